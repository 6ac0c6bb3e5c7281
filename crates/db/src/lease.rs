//! Leases: a time-limited right to do something alone, decided by the database's time (OP-4).
//!
//! Each acquisition raises the fencing number. A holder that was paused for longer than its lease cannot
//! know that it lost it, so work that changes rows calls [`WriteTx::fence`] in the same transaction: it
//! refuses when the number has moved on, and keeps it from moving until the transaction ends (Kleppmann,
//! "How to do distributed locking", 2016).

use std::time::Duration;

use portico_base::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType, OnConflict, Query};
use sea_orm::{ConnectionTrait, DbBackend, QueryResult, StatementBuilder};
use serde::Serialize;

use crate::db::Db;
use crate::error::DbError;
use crate::options::Backend;
use crate::time;
use crate::tx::WriteTx;

const TABLE: &str = "leases";

/// How long leases last and when they are renewed.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTiming {
    /// A lease ends so long after its last renewal.
    pub ttl: Duration,
    /// It is renewed so long after its last renewal.
    pub renew: Duration,
    /// Without a renewal for so long the holder stops; shorter than `ttl`, so that nobody else has begun.
    pub stop: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(15),
            renew: Duration::from_secs(5),
            stop: Duration::from_secs(12),
        }
    }
}

/// A lease as it stands in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// What may be done alone.
    pub name: String,
    /// Who may do it.
    pub holder: String,
    /// Raised by each acquisition.
    pub fencing: i64,
    /// When the right ends, by the database's time.
    pub expires_at: Timestamp,
}

/// The leases of the installation.
#[derive(Clone)]
pub struct Leases {
    pub(crate) db: Db,
    pub(crate) timing: LeaseTiming,
}

impl Leases {
    pub(crate) fn new(db: Db) -> Self {
        Self {
            db,
            timing: LeaseTiming::default(),
        }
    }

    /// The same leases with other times.
    #[must_use]
    pub fn with_timing(mut self, timing: LeaseTiming) -> Self {
        self.timing = timing;
        self
    }

    /// Takes a lease, unless somebody (the same holder too) has it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn acquire(&self, name: &str, holder: &str) -> Result<Option<Lease>, DbError> {
        let (now, until) = self.times();
        let mut insert = Query::insert();
        insert
            .into_table(TABLE)
            .columns(["name", "holder", "fencing", "expires_at"])
            .values_panic([name.into(), holder.into(), 1_i64.into(), until])
            .on_conflict(
                OnConflict::column("name")
                    .update_columns(["holder", "expires_at"])
                    .value("fencing", Expr::col((TABLE, "fencing")).add(1))
                    .action_and_where(Expr::col((TABLE, "expires_at")).lte(now))
                    .to_owned(),
            )
            .returning(Query::returning().columns(["name", "holder", "fencing", "expires_at"]));
        self.change(&insert).await
    }

    /// Makes a lease last longer; gives nothing when it is lost. An expired lease that nobody took is
    /// still the holder's.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn renew(&self, lease: &Lease) -> Result<Option<Lease>, DbError> {
        let (_, until) = self.times();
        self.move_end(lease, until).await
    }

    /// Gives a lease back, so that others need not wait for its end. False when it was lost before.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn release(&self, lease: &Lease) -> Result<bool, DbError> {
        let now = self.times().0;
        Ok(self.move_end(lease, now).await?.is_some())
    }

    /// Takes a lease away from whoever holds it (`portico lease release`). True when it was held.
    /// The holder learns of it at its next renewal; its late writes are refused by fencing.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn take_away(&self, name: &str) -> Result<bool, DbError> {
        let tx = self.db.begin().await?;
        let (now, _) = self.times();
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("expires_at", now.clone())
            .value("fencing", Expr::col("fencing").add(1))
            .and_where(Expr::col("name").eq(name))
            .and_where(Expr::col("expires_at").gt(now));
        let held = tx.execute(&update).await?.rows_affected() > 0;
        tx.commit().await?;
        Ok(held)
    }

    /// Ends all leases, so that jobs need not wait for those of a process that was killed. Only right at
    /// the start in single mode, where the lock of the data directory proves that nobody else is there.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn end_all(&self) -> Result<(), DbError> {
        let tx = self.db.begin().await?;
        let (now, _) = self.times();
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("expires_at", now.clone())
            .value("fencing", Expr::col("fencing").add(1))
            .and_where(Expr::col("expires_at").gt(now));
        tx.execute(&update).await?;
        tx.commit().await?;
        Ok(())
    }

    /// All leases that are held now, by name.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list(&self) -> Result<Vec<Lease>, DbError> {
        let mut select = Query::select();
        select
            .columns(["name", "holder", "fencing", "expires_at"])
            .from(TABLE)
            .and_where(Expr::col("expires_at").gt(self.times().0))
            .order_by("name", sea_orm::sea_query::Order::Asc);
        let rows = self.db.reader().query_all(&select).await?;
        rows.iter().map(from_row).collect()
    }

    async fn move_end(&self, lease: &Lease, end: Expr) -> Result<Option<Lease>, DbError> {
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("expires_at", end)
            .and_where(Expr::col("name").eq(lease.name.as_str()))
            .and_where(Expr::col("holder").eq(lease.holder.as_str()))
            .and_where(Expr::col("fencing").eq(lease.fencing))
            .returning(Query::returning().columns(["name", "holder", "fencing", "expires_at"]));
        self.change(&update).await
    }

    /// Runs a statement that changes at most one lease, and gives that. On PostgreSQL it is a transaction
    /// of its own on the server, so that a process which is paused just now keeps nobody from the row.
    async fn change(&self, statement: &impl StatementBuilder) -> Result<Option<Lease>, DbError> {
        let row = if self.db.backend() == Backend::Postgres {
            self.db.reader().query_one(statement).await?
        } else {
            let tx = self.db.begin().await?;
            let row = tx.query_one(statement).await?;
            tx.commit().await?;
            row
        };
        row.as_ref().map(from_row).transpose()
    }

    /// Now, and the end of a lease that begins now.
    fn times(&self) -> (Expr, Expr) {
        let (backend, clock) = (self.db.inner().sea_backend(), self.db.clock());
        (
            time::now_expr(backend, clock),
            time::ahead_expr(backend, clock, self.timing.ttl),
        )
    }
}

impl WriteTx {
    /// Refuses to go on when the lease was taken by somebody else, and keeps it from being taken until
    /// the transaction ends.
    ///
    /// # Errors
    /// [`DbError::LeaseLost`], or when the database cannot be reached.
    pub async fn fence(&self, lease: &Lease) -> Result<(), DbError> {
        let mut select = Query::select();
        select
            .column("fencing")
            .from(TABLE)
            .and_where(Expr::col("name").eq(lease.name.as_str()))
            .and_where(Expr::col("holder").eq(lease.holder.as_str()))
            .and_where(Expr::col("fencing").eq(lease.fencing));
        if self.get_database_backend() == DbBackend::Postgres {
            select.lock(LockType::Share);
        }
        match self.query_one(&select).await? {
            Some(_) => Ok(()),
            None => Err(DbError::LeaseLost(lease.name.clone())),
        }
    }
}

fn from_row(row: &QueryResult) -> Result<Lease, DbError> {
    Ok(Lease {
        name: row.try_get("", "name")?,
        holder: row.try_get("", "holder")?,
        fencing: row.try_get("", "fencing")?,
        expires_at: row.try_get("", "expires_at")?,
    })
}
