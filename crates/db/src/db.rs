//! The database handle: connects, begins transactions, runs them again when they collide.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use portico_base::{Clock, Timestamp};
use portico_telemetry::trace::{self, SpanKind};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, StatementBuilder};
use sqlx::{PgPool, SqlitePool};
use tokio_util::task::TaskTracker;

use crate::connect;
use crate::durable::GroupSync;
use crate::error::{DbError, Transient};
use crate::lease::Leases;
use crate::metrics::{DbMetrics, PoolConnections};
use crate::options::{Backend, DbOptions, Pooler};
use crate::outbox::Outbox;
use crate::reader::Reader;
use crate::replica::Replicas;
use crate::session::{self, Ask, Session};
use crate::slow::SlowStatements;
use crate::tx::WriteTx;
use crate::wake::{Hears, Subscription, Wakers};

/// Most times a colliding transaction is run again (SC-5).
const RETRIES: u32 = 3;
/// How long released connections are looked at after a statement was not answered.
const SUSPICION_MS: i64 = 30_000;

/// The database of the installation. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    reader: Reader,
}

pub(crate) enum Pools {
    Sqlite {
        readers: SqlitePool,
        /// Exactly one connection, so taking it is the lock of all writers.
        writer: SqlitePool,
        file: PathBuf,
    },
    Postgres(PgPool),
}

pub(crate) struct Inner {
    pub(crate) pools: Pools,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: DbMetrics,
    pub(crate) slow: SlowStatements,
    pub(crate) wakers: Wakers,
    pub(crate) log_sync: Option<GroupSync>,
    pub(crate) commits: TaskTracker,
    pub(crate) persistent: bool,
    pub(crate) acquire_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) slow_after: Duration,
    pub(crate) pooler: Pooler,
    /// The server answers commits before they are on its disk, unless a transaction asks otherwise.
    pub(crate) lazy_commits: bool,
    pub(crate) max_connections: u32,
    pub(crate) suspect_until_ms: Arc<AtomicI64>,
}

impl Inner {
    pub(crate) const fn sea_backend(&self) -> DbBackend {
        match self.pools {
            Pools::Sqlite { .. } => DbBackend::Sqlite,
            Pools::Postgres(_) => DbBackend::Postgres,
        }
    }

    /// The database's name in the OpenTelemetry semantic conventions.
    pub(crate) const fn system(&self) -> &'static str {
        match self.pools {
            Pools::Sqlite { .. } => "sqlite",
            Pools::Postgres(_) => "postgresql",
        }
    }

    /// Takes a connection and begins a transaction on it.
    pub(crate) async fn begin(&self, limit: Duration, durable: bool) -> Result<Session, DbErr> {
        let start = Instant::now();
        // On the heap, because it would make every caller's future large.
        let beginning = Box::pin(async {
            match &self.pools {
                Pools::Sqlite { writer, .. } => writer
                    .begin_with("BEGIN IMMEDIATE")
                    .await
                    .map(Session::Sqlite),
                Pools::Postgres(pool) => pool.begin().await.map(Session::Postgres),
            }
        });
        // The pool limits its own part; the statement behind it may meet a dead network as well.
        let session = session::answered(self, self.acquire_timeout, beginning).await;
        self.metrics.acquired(start.elapsed());
        let mut session = session.map_err(|e| session::failed(self, Ask::Execute, e))?;
        if let Some(sql) = self.settings(limit, durable) {
            session::run_raw(self, session.conn(), &sql, self.statement_timeout).await?;
        }
        Ok(session)
    }

    /// What a transaction on PostgreSQL must set for itself.
    fn settings(&self, limit: Duration, durable: bool) -> Option<String> {
        if matches!(self.pools, Pools::Sqlite { .. }) {
            return None;
        }
        let mut sql = String::new();
        if self.pooler == Pooler::PgBouncer || limit != self.statement_timeout {
            let ms = limit.as_millis();
            sql.push_str(&format!("SET LOCAL statement_timeout = {ms};"));
        }
        if self.pooler == Pooler::PgBouncer {
            let ms = connect::FORGOTTEN_MS;
            sql.push_str(&format!(
                "SET LOCAL idle_in_transaction_session_timeout = {ms};"
            ));
        }
        if durable && self.lazy_commits {
            sql.push_str("SET LOCAL synchronous_commit = on;");
        }
        (!sql.is_empty()).then_some(sql)
    }

    /// A statement was not answered: connections that come back are tried before others get them.
    pub(crate) fn suspect_network(&self) {
        let until = self.clock.unix_ms() + SUSPICION_MS;
        self.suspect_until_ms.store(until, Ordering::Relaxed);
    }
}

impl Db {
    /// Connects to `sqlite://<path>` or `postgres://…`.
    ///
    /// # Errors
    /// When the address is not usable or the database does not answer within the acquire time-out.
    pub async fn connect(options: &DbOptions, clock: Arc<dyn Clock>) -> Result<Self, DbError> {
        let inner = Box::pin(connect::connect(options, clock)).await?;
        Ok(Self::of(&Arc::new(inner)))
    }

    /// Which database this is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self.inner().pools {
            Pools::Sqlite { .. } => Backend::Sqlite,
            Pools::Postgres(_) => Backend::Postgres,
        }
    }

    /// The connections for reading.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The clock that stamps events, and SQLite's leases.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner().clock
    }

    /// Begins a write transaction. On SQLite a power loss (not a crash) may lose the last 100 ms.
    ///
    /// # Errors
    /// When no connection becomes free within the acquire time-out.
    pub async fn begin(&self) -> Result<WriteTx, DbError> {
        self.begin_with(false).await
    }

    /// Begins a write transaction whose commit returns only when it is safe from power loss too.
    /// On SQLite concurrent ones share their fsync.
    ///
    /// # Errors
    /// When no connection becomes free within the acquire time-out.
    pub async fn begin_durable(&self) -> Result<WriteTx, DbError> {
        self.begin_with(true).await
    }

    async fn begin_with(&self, durable: bool) -> Result<WriteTx, DbError> {
        let limit = self.inner().statement_timeout;
        self.open(limit, durable).await
    }

    /// The span begins before the wait for a connection, which is often the longest part.
    async fn open(&self, limit: Duration, durable: bool) -> Result<WriteTx, DbError> {
        let inner = self.inner();
        let mut span = trace::start("db", "transaction", SpanKind::Client);
        span.set("db.system.name", inner.system());
        match span.around(inner.begin(limit, durable)).await {
            Ok(session) => Ok(WriteTx::new(
                Arc::clone(inner),
                session,
                durable,
                limit,
                span,
            )),
            Err(error) => {
                let error = DbError::from(error);
                span.fail(error.label());
                Err(error)
            }
        }
    }

    /// A transaction whose statements may run for long.
    pub(crate) async fn begin_long(&self, limit: Duration) -> Result<WriteTx, DbError> {
        self.open(limit, true).await
    }

    /// Runs an operation, and again up to three times when its transaction collided with another one.
    /// The operation begins and commits its own transaction, and has no effect outside of it.
    ///
    /// # Errors
    /// The operation's last error.
    pub async fn retry<T, E, F, Fut>(&self, mut operation: F) -> Result<T, E>
    where
        E: Transient,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut tries = 0;
        loop {
            match operation().await {
                Err(e) if e.is_transient() && tries < RETRIES => {
                    tries += 1;
                    self.inner().metrics.retried();
                    tokio::time::sleep(self.backoff(tries)).await;
                }
                result => return result,
            }
        }
    }

    /// Some milliseconds, more with each try, and not the same for two that collided.
    fn backoff(&self, tries: u32) -> Duration {
        let spread = u64::from(self.clock().now().timestamp_subsec_nanos()) % 5_000;
        Duration::from_micros((u64::from(tries) * 5_000) + spread)
    }

    /// The outbox.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        Outbox(self.clone())
    }

    /// The leases of the installation.
    #[must_use]
    pub fn leases(&self) -> Leases {
        Leases::new(self.clone())
    }

    /// The replicas of the installation.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        Replicas(self.clone())
    }

    /// Present value of a counter of [`WriteTx::next_seq`], 0 when it was never used.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn current_seq(&self, counter: &str) -> Result<u64, DbError> {
        crate::seq::current(self.reader(), counter).await
    }

    /// Calls `wake(topic, seq)` after each commit of this process that published to `topic` (or to any,
    /// without one). For telling other replicas: it does not hear of what [`Db::wake`] brings in. It must
    /// be quick and must not block.
    pub fn on_commit(
        &self,
        topic: Option<&str>,
        wake: impl Fn(&str, u64) + Send + Sync + 'static,
    ) -> Subscription {
        self.inner().wakers.add(topic, Hears::Own, Arc::new(wake))
    }

    /// Calls `wake(topic, seq)` after each commit of this process, and for each [`Db::wake`]; it must not block.
    pub fn on_news(
        &self,
        topic: Option<&str>,
        wake: impl Fn(&str, u64) + Send + Sync + 'static,
    ) -> Subscription {
        self.inner().wakers.add(topic, Hears::All, Arc::new(wake))
    }

    /// Wakes the followers of `topic` because another replica says that it has published.
    pub fn wake(&self, topic: &str, seq: u64) {
        self.inner().wakers.heard(topic, seq);
    }

    /// The database's own time: of the server on PostgreSQL, of the injected clock on SQLite.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn time(&self) -> Result<Timestamp, DbError> {
        crate::time::now(self.reader(), self.clock()).await
    }

    /// The moment `ahead` from now by the database's own time, inside a statement.
    #[must_use]
    pub fn ahead_expr(&self, ahead: Duration) -> sea_orm::sea_query::Expr {
        crate::time::ahead_expr(self.inner().sea_backend(), self.clock(), ahead)
    }

    /// Asks the database for nothing, to see whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), DbError> {
        let statement = Statement::from_string(self.inner().sea_backend(), "SELECT 1");
        self.reader().query_one_raw(statement).await?;
        Ok(())
    }

    /// Whether the connection to the server is encrypted (SC-13). Nothing where there is no connection
    /// (SQLite), and behind pgBouncer, where the server knows of another one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn is_encrypted(&self) -> Result<Option<bool>, DbError> {
        if self.backend() == Backend::Sqlite || self.inner().pooler == Pooler::PgBouncer {
            return Ok(None);
        }
        let statement = Statement::from_string(
            DbBackend::Postgres,
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        );
        let row = self.reader().query_one_raw(statement).await?;
        Ok(row.map(|row| row.try_get("", "ssl")).transpose()?)
    }

    /// Refuses to go on when `replicas` processes like this one could open more connections than the
    /// server gives (SC-5). SQLite and pgBouncer have no such limit.
    ///
    /// # Errors
    /// [`DbError::ServerConnections`], or when the database cannot be reached.
    pub async fn check_server_connections(&self, replicas: u32) -> Result<(), DbError> {
        connect::check_server_connections(self, replicas).await
    }

    /// Writes the log back into the database file and empties it (SQLite; nothing on PostgreSQL).
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn checkpoint(&self) -> Result<(), DbError> {
        if let Pools::Sqlite { writer, .. } = &self.inner().pools {
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
                .execute(writer)
                .await?;
        }
        Ok(())
    }

    /// Counts anew what has grown or shrunk much since it was counted, for the planner of queries (SQLite; nothing
    /// on PostgreSQL, which does so by itself). What was counted when a table was nearly empty makes it read
    /// the whole of it when it is large. Looks at a few hundred rows of each index only.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn optimize(&self) -> Result<(), DbError> {
        if let Pools::Sqlite { writer, .. } = &self.inner().pools {
            // All tables, also those that nobody asked in this connection (sqlite.org/pragma.html#pragma_optimize).
            sqlx::query("PRAGMA optimize = 0x10002")
                .execute(writer)
                .await?;
        }
        Ok(())
    }

    /// Reads the whole database file and says what is wrong with it (SQLite; nothing on PostgreSQL, which
    /// has `amcheck`). Takes about a second per gigabyte.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub async fn check_integrity(&self) -> Result<Vec<String>, DbError> {
        if self.backend() == Backend::Postgres {
            return Ok(Vec::new());
        }
        let statement = Statement::from_string(DbBackend::Sqlite, "PRAGMA integrity_check(100)");
        let mut faults = Vec::new();
        for row in self.reader().query_all_raw(statement).await? {
            let text: String = row.try_get_by_index(0)?;
            if text != "ok" {
                faults.push(text);
            }
        }
        Ok(faults)
    }

    /// How the database would answer a query, as text; for tests that look at plans. PostgreSQL is told to
    /// avoid reading whole tables, as it would with many rows.
    ///
    /// # Errors
    /// When the query is wrong.
    pub async fn explain(&self, query: &impl StatementBuilder) -> Result<String, DbError> {
        let backend = self.inner().sea_backend();
        let mut statement = query.build(&backend);
        let (verb, column) = match self.backend() {
            Backend::Sqlite => ("EXPLAIN QUERY PLAN", 3),
            Backend::Postgres => ("EXPLAIN", 0),
        };
        statement.sql = format!("{verb} {}", statement.sql);
        let tx = self.begin().await?;
        if self.backend() == Backend::Postgres {
            tx.execute_unprepared(
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off",
            )
            .await?;
        }
        let lines = tx.query_all_raw(statement).await?;
        let lines: Result<Vec<String>, _> = lines
            .iter()
            .map(|row| row.try_get_by_index(column))
            .collect();
        Ok(lines?.join("\n"))
    }

    /// Size of SQLite's write-ahead log in bytes.
    #[must_use]
    pub fn wal_bytes(&self) -> Option<u64> {
        match &self.inner().pools {
            Pools::Sqlite { file, .. } => {
                let log = connect::log_of(file);
                Some(std::fs::metadata(log).map_or(0, |m| m.len()))
            }
            Pools::Postgres(_) => None,
        }
    }

    /// The connections by pool: `writer` and `reader` on SQLite, `all` on PostgreSQL.
    #[must_use]
    pub fn connections(&self) -> Vec<(&'static str, PoolConnections)> {
        fn count<D: sqlx::Database>(pool: &sqlx::Pool<D>) -> PoolConnections {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            PoolConnections {
                used: pool.size().saturating_sub(idle),
                idle,
                max: pool.options().get_max_connections(),
            }
        }
        match &self.inner().pools {
            Pools::Sqlite {
                readers, writer, ..
            } => vec![("writer", count(writer)), ("reader", count(readers))],
            Pools::Postgres(pool) => vec![("all", count(pool))],
        }
    }

    /// Counters for telemetry.
    #[must_use]
    pub fn metrics(&self) -> &DbMetrics {
        &self.inner().metrics
    }

    /// The slow statements of the last hour.
    #[must_use]
    pub fn slow_statements(&self) -> &SlowStatements {
        &self.inner().slow
    }

    /// Waits for running commits, then closes all connections. Later calls fail as unavailable.
    pub async fn close(&self) {
        let inner = self.inner();
        inner.commits.close();
        inner.commits.wait().await;
        match &inner.pools {
            Pools::Sqlite {
                readers, writer, ..
            } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    pub(crate) fn of(inner: &Arc<Inner>) -> Self {
        Self {
            reader: Reader(Arc::clone(inner)),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.reader.0
    }
}
