//! The connections that only read; each statement takes one for itself.

use std::sync::Arc;
use std::time::Instant;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use sqlx::pool::PoolConnection;
use sqlx::{Postgres, Sqlite};

use crate::db::{Inner, Pools};
use crate::error::DbError;
use crate::options::Pooler;
use crate::session::{self, Answer, Ask, Conn};

/// A pool of connections for reading. On SQLite writing through it is refused by the database.
#[derive(Clone)]
pub struct Reader(pub(crate) Arc<Inner>);

enum Taken {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Taken {
    fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(conn) => Conn::Sqlite(conn),
            Self::Postgres(conn) => Conn::Postgres(conn),
        }
    }

    /// A connection whose statement was given up is in the middle of an answer: it is not used again.
    fn discard(&mut self) {
        match self {
            Self::Sqlite(conn) => conn.close_on_drop(),
            Self::Postgres(conn) => conn.close_on_drop(),
        }
    }
}

impl Reader {
    async fn take(&self) -> Result<Taken, DbErr> {
        let start = Instant::now();
        let taken = match &self.0.pools {
            Pools::Sqlite { readers, .. } => readers.acquire().await.map(Taken::Sqlite),
            Pools::Postgres(pool) => pool.acquire().await.map(Taken::Postgres),
        };
        self.0.metrics.acquired(start.elapsed());
        taken.map_err(|e| session::failed(&self.0, Ask::Execute, e))
    }

    async fn ask(&self, statement: &Statement, ask: Ask) -> Result<Answer, DbErr> {
        if self.0.pooler == Pooler::PgBouncer {
            return self.ask_in_transaction(statement, ask).await;
        }
        let mut taken = self.take().await?;
        let limit = self.0.statement_timeout;
        let result = session::run(&self.0, taken.conn(), statement, ask, limit).await;
        if let Err(error) = &result
            && DbError::from(error.clone()).is_unavailable()
        {
            taken.discard();
        }
        result
    }

    /// Behind pgBouncer preparing and running a statement may meet two server connections, unless both
    /// happen in one transaction; and the time limit must be set there as well.
    async fn ask_in_transaction(&self, statement: &Statement, ask: Ask) -> Result<Answer, DbErr> {
        let limit = self.0.statement_timeout;
        let mut session = self.0.begin(limit, false).await?;
        let answer = session::run(&self.0, session.conn(), statement, ask, limit).await?;
        session
            .commit()
            .await
            .map_err(|e| session::failed(&self.0, ask, e))?;
        Ok(answer)
    }
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.0.sea_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.ask(&stmt, Ask::Execute).await?.done()
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut taken = self.take().await?;
        session::run_raw(&self.0, taken.conn(), sql, self.0.statement_timeout)
            .await?
            .done()
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.ask(&stmt, Ask::One).await?.row()
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.ask(&stmt, Ask::All).await?.all()
    }
}
