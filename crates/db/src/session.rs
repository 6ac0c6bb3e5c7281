//! Runs SeaORM's statements on sqlx connections of both databases, with time, rows and errors counted.
//!
//! SeaORM's own pool hides the wait for a connection and the number of rows, which the metrics and the
//! log of slow statements need; hence this thin layer below its `ConnectionTrait`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_telemetry::trace::{self, OpenSpan, SpanKind};
use sea_orm::{DbErr, ExecResult, QueryResult, RuntimeErr, Statement, Values};
use sea_query_sqlx::SqlxValues;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};

use crate::db::Inner;
use crate::error::DbError;
use crate::metrics::Op;
use crate::slow;

/// How much longer we wait than the server is told to work on a statement.
const GRACE: Duration = Duration::from_millis(500);

/// A connection of either kind, borrowed for one statement.
pub(crate) enum Conn<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// An open transaction of either kind; rolled back when dropped.
pub(crate) enum Session {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Session {
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(tx) => Conn::Sqlite(tx),
            Self::Postgres(tx) => Conn::Postgres(tx),
        }
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }

    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await,
            Self::Postgres(tx) => tx.rollback().await,
        }
    }
}

/// What to do with a statement; the answer has the matching variant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    Execute,
    One,
    All,
}

/// What a statement gave.
pub(crate) enum Answer {
    Done(ExecResult),
    Row(Option<QueryResult>),
    Rows(Vec<QueryResult>),
}

impl Answer {
    fn rows(&self) -> u64 {
        match self {
            Self::Done(done) => done.rows_affected(),
            Self::Row(row) => u64::from(row.is_some()),
            Self::Rows(rows) => rows.len() as u64,
        }
    }

    pub(crate) fn done(self) -> Result<ExecResult, DbErr> {
        match self {
            Self::Done(done) => Ok(done),
            _ => Err(mismatch()),
        }
    }

    pub(crate) fn row(self) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Self::Row(row) => Ok(row),
            _ => Err(mismatch()),
        }
    }

    pub(crate) fn all(self) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Self::Rows(rows) => Ok(rows),
            _ => Err(mismatch()),
        }
    }
}

impl Conn<'_> {
    /// Runs a prepared statement. Behind pgBouncer it must not stay prepared (`persistent = false`),
    /// because the next transaction may run on another server connection.
    async fn run(
        self,
        statement: &Statement,
        ask: Ask,
        persistent: bool,
    ) -> Result<Answer, sqlx::Error> {
        let values = SqlxValues(
            statement
                .values
                .clone()
                .unwrap_or_else(|| Values(Vec::new())),
        );
        let query = AssertSqlSafe(statement.sql.as_str());
        match self {
            Self::Sqlite(conn) => {
                let query = sqlx::query_with::<Sqlite, _>(query, values).persistent(persistent);
                Ok(match ask {
                    Ask::Execute => Answer::Done(query.execute(conn).await?.into()),
                    Ask::One => {
                        Answer::Row(query.fetch_optional(conn).await?.map(QueryResult::from))
                    }
                    Ask::All => Answer::Rows(into_rows(query.fetch_all(conn).await?)),
                })
            }
            Self::Postgres(conn) => {
                let query = sqlx::query_with::<Postgres, _>(query, values).persistent(persistent);
                Ok(match ask {
                    Ask::Execute => Answer::Done(query.execute(conn).await?.into()),
                    Ask::One => {
                        Answer::Row(query.fetch_optional(conn).await?.map(QueryResult::from))
                    }
                    Ask::All => Answer::Rows(into_rows(query.fetch_all(conn).await?)),
                })
            }
        }
    }

    /// Runs text without parameters as it is; several statements are allowed.
    async fn run_raw(self, sql: &str) -> Result<Answer, sqlx::Error> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        Ok(Answer::Done(match self {
            Self::Sqlite(conn) => query.execute(conn).await?.into(),
            Self::Postgres(conn) => query.execute(conn).await?.into(),
        }))
    }
}

/// Runs a prepared statement and counts it.
pub(crate) async fn run(
    inner: &Inner,
    conn: Conn<'_>,
    statement: &Statement,
    ask: Ask,
    limit: Duration,
) -> Result<Answer, DbErr> {
    let work = conn.run(statement, ask, inner.persistent);
    measured(inner, &statement.sql, ask, limit, work).await
}

/// Runs text as it is and counts it.
pub(crate) async fn run_raw(
    inner: &Inner,
    conn: Conn<'_>,
    sql: &str,
    limit: Duration,
) -> Result<Answer, DbErr> {
    measured(inner, sql, Ask::Execute, limit, conn.run_raw(sql)).await
}

/// Turns sqlx's error into SeaORM's, and counts it.
pub(crate) fn failed(inner: &Inner, ask: Ask, error: sqlx::Error) -> DbErr {
    inner.metrics.error(&DbError::from(&error));
    let error = RuntimeErr::SqlxError(Arc::new(error));
    match ask {
        Ask::Execute => DbErr::Exec(error),
        Ask::One | Ask::All => DbErr::Query(error),
    }
}

/// Waits a little longer than the server may take. What is not answered by then never will be: the
/// network is dead, or SQLite's thread hangs in the file system.
pub(crate) async fn answered<T>(
    inner: &Inner,
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit + GRACE, work).await {
        Ok(result) => result,
        Err(_) => {
            inner.suspect_network();
            Err(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "the database did not answer in time",
            )))
        }
    }
}

async fn measured(
    inner: &Inner,
    sql: &str,
    ask: Ask,
    limit: Duration,
    work: impl Future<Output = Result<Answer, sqlx::Error>>,
) -> Result<Answer, DbErr> {
    let op = Op::of(sql);
    let mut span = span(inner, op, sql);
    let start = Instant::now();
    let result = answered(inner, limit, work).await;
    let took = start.elapsed();
    inner.metrics.query(op, took);
    let rows = result.as_ref().map_or(0, Answer::rows);
    if took >= inner.slow_after {
        inner.slow.record(sql, took, rows, inner.clock.now());
    }
    match &result {
        Ok(_) => span.set("db.response.returned_rows", rows),
        Err(error) => span.fail(DbError::from(error).label()),
    }
    result.map_err(|e| failed(inner, ask, e))
}

/// A statement's span: which kind of statement, never its values (OB-11).
fn span(inner: &Inner, op: Op, sql: &str) -> OpenSpan {
    let mut span = trace::start("db", op.as_str(), SpanKind::Client);
    if span.is_recorded() {
        let (text, fingerprint) = slow::describe(sql);
        span.set("db.system.name", inner.system());
        span.set("db.operation.name", op.as_str());
        span.set("db.query.text", text);
        span.set("portico.db.fingerprint", fingerprint);
    }
    span
}

fn into_rows<R>(rows: Vec<R>) -> Vec<QueryResult>
where
    QueryResult: From<R>,
{
    rows.into_iter().map(QueryResult::from).collect()
}

fn mismatch() -> DbErr {
    DbErr::Custom("the session answered another question".to_owned())
}
