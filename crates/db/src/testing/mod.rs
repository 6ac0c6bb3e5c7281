//! Throw-away databases for tests: a SQLite file always, PostgreSQL where its programs are installed.
//!
//! `PORTICO_TEST_DATABASE_URL` names a PostgreSQL server whose user may create databases; without it one
//! is started from the system's binaries, shared by all test processes, and stopped after the last one.

mod postgres;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portico_base::clock::from_unix_ms;
use portico_base::{Clock, ManualClock, SystemClock};
use tempfile::TempDir;

use crate::{Backend, Db, DbOptions, Migrations};

pub use postgres::{PrivateServer, ServerTls};

/// Where test clocks stand at first: 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;

/// A database for one test, already migrated with the platform's tables.
pub struct TestDb {
    /// The connected database.
    pub db: Db,
    /// Its clock. PostgreSQL takes the time of leases and replicas from itself nevertheless.
    pub clock: ManualClock,
    /// How it was connected, for a second set of connections.
    pub options: DbOptions,
    dir: Option<TempDir>,
    database: Option<String>,
}

impl TestDb {
    /// Which database this is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.db.backend()
    }

    /// Other connections to the same database, as another process would have them.
    pub async fn another(&self) -> Db {
        Db::connect(&self.options, Arc::new(self.clock.clone()))
            .await
            .expect("the test database answers a second time")
    }

    /// Applies a service's migrations as well.
    #[must_use]
    pub async fn with(self, service: &str, migrations: Migrations) -> Self {
        self.db
            .migrate(&[(service, migrations)])
            .await
            .expect("the migrations of the service apply");
        self
    }

    /// The directory of the SQLite file.
    #[must_use]
    pub fn dir(&self) -> Option<&std::path::Path> {
        self.dir.as_ref().map(TempDir::path)
    }

    /// Closes the connections and removes the database.
    pub async fn finish(self) {
        self.db.close().await;
        if let Some(name) = &self.database {
            postgres::drop_database(name).await;
        }
    }

    async fn open(options: DbOptions, dir: Option<TempDir>, database: Option<String>) -> Self {
        let clock = ManualClock::at(from_unix_ms(START_MS));
        let db = Db::connect(&options, Arc::new(clock.clone()))
            .await
            .expect("a new database answers");
        db.migrate(&[]).await.expect("the platform's tables apply");
        Self {
            db,
            clock,
            options,
            dir,
            database,
        }
    }
}

/// A new SQLite file.
pub async fn sqlite() -> TestDb {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let options = sqlite_options(&dir);
    TestDb::open(options, Some(dir), None).await
}

/// A new database on PostgreSQL, or nothing where it is not installed: then the test is reported as
/// skipped, and fails when the environment has `CI=true`.
pub async fn postgres() -> Option<TestDb> {
    let (options, name) = postgres_options().await?;
    Some(TestDb::open(options, None, Some(name)).await)
}

/// Options of a new, empty SQLite file in a directory.
#[must_use]
pub fn sqlite_options(dir: &TempDir) -> DbOptions {
    DbOptions::new(format!("sqlite://{}", dir.path().join("test.db").display()))
}

/// Options and name of a new, empty database on PostgreSQL; nothing where it is not installed.
pub async fn postgres_options() -> Option<(DbOptions, String)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let micros = SystemClock.now().timestamp_micros();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("t_{}_{micros}_{number}", std::process::id());
    let url = postgres::create_database(&name).await?;
    let mut options = DbOptions::new(url);
    // The suite runs many tests at a time on one server.
    options.max_connections = 8;
    options.min_connections = 0;
    options.acquire_timeout = Duration::from_secs(10);
    Some((options, name))
}

/// Runs the same test on SQLite and, where it is installed, on PostgreSQL.
///
/// # Panics
/// When the test does.
pub async fn each_backend(test: impl AsyncFn(&TestDb)) {
    let db = sqlite().await;
    test(&db).await;
    db.finish().await;
    if let Some(db) = postgres().await {
        test(&db).await;
        db.finish().await;
    }
}
