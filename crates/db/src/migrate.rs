//! Migrations: forward only, once, under a lock; each step is one transaction (SC-8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portico_base::Timestamp;
use sea_orm::sea_query::{
    DeleteStatement, Expr, ExprTrait as _, IndexCreateStatement, IndexDropStatement,
    InsertStatement, OnConflict, Query, TableAlterStatement, TableCreateStatement,
    TableDropStatement, TableRenameStatement, UpdateStatement,
};
use sea_orm::{ConnectionTrait, DbBackend, Statement, StatementBuilder};

use crate::db::Db;
use crate::error::DbError;
use crate::migrations;
use crate::schema;
use crate::tx::WriteTx;

const TABLE: &str = "schema_migrations";
const LOCK: &str = "portico/migrate";
/// Longest time for one statement of a migration, and for the wait until another process is ready.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);
/// How often a step that could not lock its tables within a second is tried.
const TRIES: u32 = 30;

/// The steps of one service, oldest first. A step that was released is never changed again.
#[derive(Default)]
pub struct Migrations(Vec<Step>);

impl Migrations {
    /// No tables.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The steps in their order.
    #[must_use]
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self(steps.into_iter().collect())
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// One step: a name like `m0001_services` and what it changes.
pub struct Step {
    name: &'static str,
    changes: Vec<Change>,
    min_binary: Option<&'static str>,
}

impl Step {
    /// A step; `name` is unique in its service and sorts behind the older ones.
    #[must_use]
    pub fn new(name: &'static str, changes: impl IntoIterator<Item = Change>) -> Self {
        Self {
            name,
            changes: changes.into_iter().collect(),
            min_binary: None,
        }
    }

    /// Says that releases older than `version` cannot work with the schema after this step. Only a step
    /// that takes something away (contract) needs it, one release after nothing uses it any more.
    #[must_use]
    pub const fn needs_binary(mut self, version: &'static str) -> Self {
        self.min_binary = Some(version);
        self
    }
}

/// One statement of a step.
pub enum Change {
    /// Makes a table.
    CreateTable(TableCreateStatement),
    /// Changes a table; SQLite takes one option a statement.
    AlterTable(TableAlterStatement),
    /// Renames a table.
    RenameTable(TableRenameStatement),
    /// Removes a table.
    DropTable(TableDropStatement),
    /// Makes an index.
    CreateIndex(IndexCreateStatement),
    /// Removes an index.
    DropIndex(IndexDropStatement),
    /// Adds rows.
    Insert(InsertStatement),
    /// Changes rows; for few, many are the work of a job.
    Update(UpdateStatement),
    /// Removes rows.
    Delete(DeleteStatement),
}

macro_rules! change_from {
    ($($variant:ident($statement:ty)),*) => {$(
        impl From<$statement> for Change {
            fn from(statement: $statement) -> Self {
                Self::$variant(statement)
            }
        }
        impl From<&mut $statement> for Change {
            fn from(statement: &mut $statement) -> Self {
                Self::$variant(statement.to_owned())
            }
        }
    )*};
}

change_from!(
    CreateTable(TableCreateStatement),
    AlterTable(TableAlterStatement),
    RenameTable(TableRenameStatement),
    DropTable(TableDropStatement),
    CreateIndex(IndexCreateStatement),
    DropIndex(IndexDropStatement),
    Insert(InsertStatement),
    Update(UpdateStatement),
    Delete(DeleteStatement)
);

impl Change {
    fn build(&self, backend: DbBackend) -> Statement {
        match self {
            Self::CreateTable(s) => StatementBuilder::build(s, &backend),
            Self::AlterTable(s) => StatementBuilder::build(s, &backend),
            Self::RenameTable(s) => StatementBuilder::build(s, &backend),
            Self::DropTable(s) => StatementBuilder::build(s, &backend),
            Self::CreateIndex(s) => StatementBuilder::build(s, &backend),
            Self::DropIndex(s) => StatementBuilder::build(s, &backend),
            Self::Insert(s) => StatementBuilder::build(s, &backend),
            Self::Update(s) => StatementBuilder::build(s, &backend),
            Self::Delete(s) => StatementBuilder::build(s, &backend),
        }
    }
}

/// What [`Db::migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// Steps applied by this call, `service/step`.
    pub applied: Vec<String>,
    /// Steps applied over the installation's life.
    pub schema_version: u32,
}

/// A step and when it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// `service/step`.
    pub name: String,
    /// When, if it was.
    pub applied_at: Option<Timestamp>,
    /// False for a step that a newer release applied and this one does not know.
    pub known: bool,
}

/// A step that is still to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// `service/step`.
    pub name: String,
    /// Its statements in the words of the connected database.
    pub sql: Vec<String>,
}

impl Db {
    /// Applies what is missing of the platform's and the services' steps. Any number of processes may
    /// call it at the same time; each step runs once.
    ///
    /// # Errors
    /// [`DbError::SchemaTooNew`] before anything is changed; [`DbError::Migration`] names the step.
    pub async fn migrate(&self, sets: &[(&str, Migrations)]) -> Result<MigrationReport, DbError> {
        self.migrate_as(sets, env!("CARGO_PKG_VERSION")).await
    }

    /// Applies only the named steps (`service/step`), for rows that were copied from a database that had
    /// just these. Names that this binary does not know are left out.
    ///
    /// # Errors
    /// As [`Db::migrate`].
    pub async fn migrate_only(
        &self,
        sets: &[(&str, Migrations)],
        only: &BTreeSet<String>,
    ) -> Result<MigrationReport, DbError> {
        self.migrate_some(sets, env!("CARGO_PKG_VERSION"), |name| only.contains(name))
            .await
    }

    /// [`Db::migrate`] as the release `binary`.
    pub(crate) async fn migrate_as(
        &self,
        sets: &[(&str, Migrations)],
        binary: &str,
    ) -> Result<MigrationReport, DbError> {
        self.migrate_some(sets, binary, |_| true).await
    }

    async fn migrate_some(
        &self,
        sets: &[(&str, Migrations)],
        binary: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<MigrationReport, DbError> {
        self.install().await?;
        self.check_binary(binary).await?;
        let platform = migrations::all();
        let steps = in_order(&platform, sets)?;
        let mut applied = Vec::new();
        let done: BTreeSet<String> = self.applied().await?.into_keys().collect();
        let missing = |name: &String| !done.contains(name) && wanted(name);
        for (name, step) in steps.iter().filter(|(name, _)| missing(name)) {
            if self.apply_patiently(name, step, binary).await? {
                tracing::info!(step = name, "migration applied");
                applied.push(name.clone());
            }
        }
        let schema_version = u32::try_from(self.applied().await?.len()).unwrap_or(u32::MAX);
        // Another process may have raised the minimum while we were working.
        let needs = self.check_binary(binary).await?;
        crate::installation::ensure(self, schema_version, &needs).await?;
        Ok(MigrationReport {
            applied,
            schema_version,
        })
    }

    /// All steps, known and unknown, with when they were applied.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn migration_status(
        &self,
        sets: &[(&str, Migrations)],
    ) -> Result<Vec<MigrationStatus>, DbError> {
        let platform = migrations::all();
        let mut applied = self.applied_if_installed().await?;
        let mut all: Vec<MigrationStatus> = in_order(&platform, sets)?
            .into_iter()
            .map(|(name, _)| MigrationStatus {
                applied_at: applied.remove(&name),
                name,
                known: true,
            })
            .collect();
        all.extend(applied.into_iter().map(|(name, at)| MigrationStatus {
            name,
            applied_at: Some(at),
            known: false,
        }));
        Ok(all)
    }

    /// What [`Db::migrate`] would do now.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn migration_plan(
        &self,
        sets: &[(&str, Migrations)],
    ) -> Result<Vec<PlannedStep>, DbError> {
        let platform = migrations::all();
        let applied = self.applied_if_installed().await?;
        let backend = self.inner().sea_backend();
        Ok(in_order(&platform, sets)?
            .into_iter()
            .filter(|(name, _)| !applied.contains_key(name))
            .map(|(name, step)| PlannedStep {
                name,
                sql: step
                    .changes
                    .iter()
                    .map(|c| c.build(backend).to_string())
                    .collect(),
            })
            .collect())
    }

    async fn install(&self) -> Result<(), DbError> {
        let tx = self.begin_migration().await?;
        let mut table = schema::table(TABLE);
        table
            .if_not_exists()
            .col(schema::text("name").primary_key())
            .col(schema::timestamp("applied_at"))
            .col(schema::text("binary"))
            .col(schema::text_null("min_binary"));
        tx.execute(&table).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A transaction that has the migration lock and much time.
    async fn begin_migration(&self) -> Result<WriteTx, DbError> {
        let tx = self.begin_long(LIMIT).await?;
        if tx.get_database_backend() == DbBackend::Postgres {
            lock_for_transaction(&tx, LOCK).await?;
            // Others must not queue up for long behind our wait for a table.
            tx.execute_unprepared("SET LOCAL lock_timeout = '1s'")
                .await?;
        }
        Ok(tx)
    }

    async fn apply_patiently(
        &self,
        name: &str,
        step: &Step,
        binary: &str,
    ) -> Result<bool, DbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Box::pin(self.apply(name, step, binary)).await {
                Err(e) if e.is_transient() && tries < TRIES => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(e) if e.is_unavailable() => return Err(e),
                Err(e) => {
                    return Err(DbError::Migration {
                        name: name.to_owned(),
                        source: Arc::new(e),
                    });
                }
                Ok(applied) => return Ok(applied),
            }
        }
    }

    async fn apply(&self, name: &str, step: &Step, binary: &str) -> Result<bool, DbError> {
        let tx = self.begin_migration().await?;
        let mut insert = Query::insert();
        insert
            .into_table(TABLE)
            .columns(["name", "applied_at", "binary", "min_binary"])
            .values_panic([
                name.into(),
                self.clock().now().into(),
                binary.into(),
                step.min_binary.map(str::to_owned).into(),
            ])
            .on_conflict(OnConflict::column("name").do_nothing().to_owned());
        if tx.execute(&insert).await?.rows_affected() == 0 {
            // Another process was quicker.
            return Ok(false);
        }
        for change in &step.changes {
            tx.execute_raw(change.build(tx.get_database_backend()))
                .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Applied steps with their time.
    async fn applied(&self) -> Result<BTreeMap<String, Timestamp>, DbError> {
        let mut select = Query::select();
        select.columns(["name", "applied_at"]).from(TABLE);
        let rows = self.reader().query_all(&select).await?;
        rows.iter()
            .map(|row| Ok((row.try_get("", "name")?, row.try_get("", "applied_at")?)))
            .collect()
    }

    async fn applied_if_installed(&self) -> Result<BTreeMap<String, Timestamp>, DbError> {
        if table_exists(self.reader(), TABLE).await? {
            self.applied().await
        } else {
            Ok(BTreeMap::new())
        }
    }

    /// Gives the oldest release that may use the schema; empty means any.
    async fn check_binary(&self, binary: &str) -> Result<String, DbError> {
        let mut select = Query::select();
        select
            .column("min_binary")
            .from(TABLE)
            .and_where(Expr::col("min_binary").is_not_null());
        let mut needs = String::new();
        for row in self.reader().query_all(&select).await? {
            let one: String = row.try_get("", "min_binary")?;
            if version(&needs) < version(&one) {
                needs = one;
            }
        }
        if version(&needs) > version(binary) {
            return Err(DbError::SchemaTooNew {
                needs,
                binary: binary.to_owned(),
            });
        }
        Ok(needs)
    }
}

/// Waits for the lock of a name, which the transaction then has until its end (PostgreSQL only).
pub(crate) async fn lock_for_transaction(tx: &WriteTx, name: &str) -> Result<(), DbError> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT 1 AS one FROM pg_advisory_xact_lock(hashtextextended($1, 0))",
        [name.into()],
    );
    tx.query_one_raw(statement).await?;
    Ok(())
}

async fn table_exists(conn: &impl ConnectionTrait, table: &str) -> Result<bool, DbError> {
    let backend = conn.get_database_backend();
    let sql = if backend == DbBackend::Postgres {
        "SELECT 1 AS one FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1"
    } else {
        "SELECT 1 AS one FROM sqlite_schema WHERE type = 'table' AND name = $1"
    };
    let statement = Statement::from_sql_and_values(backend, sql, [table.into()]);
    Ok(conn.query_one_raw(statement).await?.is_some())
}

/// Names of all steps that this binary knows, `service/step`.
///
/// # Errors
/// When two have one name, which is a defect.
pub fn step_names(sets: &[(&str, Migrations)]) -> Result<BTreeSet<String>, DbError> {
    let platform = migrations::all();
    let steps = in_order(&platform, sets)?;
    Ok(steps.into_iter().map(|(name, _)| name).collect())
}

/// All steps with their full names, the platform's first. Two of one name are a defect.
fn in_order<'a>(
    platform: &'a Migrations,
    sets: &'a [(&str, Migrations)],
) -> Result<Vec<(String, &'a Step)>, DbError> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let sets = std::iter::once(("platform", platform)).chain(sets.iter().map(|(n, m)| (*n, m)));
    for (service, migrations) in sets {
        for step in &migrations.0 {
            let name = format!("{service}/{}", step.name);
            if !seen.insert(name.clone()) {
                return Err(DbError::Migration {
                    name,
                    source: Arc::new(DbError::Other("the name is there twice".to_owned())),
                });
            }
            all.push((name, step));
        }
    }
    Ok(all)
}

/// Major, minor and patch of a version; what is behind a `-` or `+` does not count.
#[must_use]
pub fn version(text: &str) -> (u64, u64, u64) {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|p| p.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("0.10.0") > version("0.9.9"));
        assert_eq!(version("1.2.3-rc.1"), (1, 2, 3));
        assert_eq!(version("nonsense"), (0, 0, 0));
    }

    #[test]
    fn names_are_unique() {
        let twice = [(
            "a",
            Migrations::new([Step::new("m1", []), Step::new("m1", [])]),
        )];
        assert!(in_order(&Migrations::none(), &twice).is_err());
    }
}
