//! Fills a database with the rows of a copy, all or nothing.

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::db::Db;
use crate::error::DbError;
use crate::migrate::LIMIT;
use crate::shape::{self, TableShape};
use crate::tx::WriteTx;

/// Counters and fencing numbers jump by this, so that nothing that was given out after the copy was made
/// is given out again (RG-42).
pub const JUMP: i64 = 1_000_000;
/// The counter that says that a restore has not been finished; whoever finishes it removes it.
pub const RESTORE_PENDING: &str = "restore.pending";

/// A transaction that fills the database. The schema must be there; references between rows are checked
/// at its end.
pub struct Load {
    tx: WriteTx,
    references: Vec<Reference>,
}

/// A foreign key of PostgreSQL that is set aside while rows come in any order.
struct Reference {
    table: String,
    name: String,
    definition: String,
}

impl Db {
    /// Begins to fill the database, and empties `tables` (migrations put first rows into some).
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn begin_load(&self, tables: &[TableShape]) -> Result<Load, DbError> {
        let tx = self.begin_long(LIMIT).await?;
        let references = if tx.get_database_backend() == DbBackend::Postgres {
            set_aside(&tx).await?
        } else {
            tx.execute_unprepared("PRAGMA defer_foreign_keys = ON")
                .await?;
            Vec::new()
        };
        for table in tables {
            let sql = format!("DELETE FROM {}", shape::quoted(&table.name));
            tx.execute_unprepared(&sql).await?;
        }
        Ok(Load { tx, references })
    }

    /// Whether a restore was begun and not finished: nobody may live in such a database.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn restore_is_pending(&self) -> Result<bool, DbError> {
        Ok(self.current_seq(RESTORE_PENDING).await? > 0)
    }
}

impl Load {
    /// The transaction, to add rows.
    #[must_use]
    pub const fn tx(&self) -> &WriteTx {
        &self.tx
    }

    /// Checks the references between rows and keeps everything. The database counts as unfinished while
    /// [`RESTORE_PENDING`] is there.
    ///
    /// # Errors
    /// When a reference is broken; nothing is kept then.
    pub async fn finish(self) -> Result<(), DbError> {
        for reference in &self.references {
            let sql = format!(
                "ALTER TABLE {} ADD CONSTRAINT {} {}",
                reference.table,
                shape::quoted(&reference.name),
                reference.definition
            );
            self.tx.execute_unprepared(&sql).await?;
        }
        crate::seq::raise(&self.tx, RESTORE_PENDING, 1).await?;
        self.tx.commit().await?;
        Ok(())
    }
}

async fn set_aside(tx: &WriteTx) -> Result<Vec<Reference>, DbError> {
    let statement = Statement::from_string(
        DbBackend::Postgres,
        "SELECT conrelid::regclass::text AS child, conname::text AS name, \
         pg_get_constraintdef(oid) AS definition FROM pg_constraint \
         WHERE contype = 'f' AND connamespace = current_schema()::regnamespace",
    );
    let mut references = Vec::new();
    for row in tx.query_all_raw(statement).await? {
        let reference = Reference {
            table: row.try_get("", "child")?,
            name: row.try_get("", "name")?,
            definition: row.try_get("", "definition")?,
        };
        let sql = format!(
            "ALTER TABLE {} DROP CONSTRAINT {}",
            reference.table,
            shape::quoted(&reference.name)
        );
        tx.execute_unprepared(&sql).await?;
        references.push(reference);
    }
    Ok(references)
}
