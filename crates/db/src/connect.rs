//! Opens the connection pools of both databases with the settings that the house relies on.

use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use portico_base::Clock;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, PgPool, Row as _};
use tokio_util::task::TaskTracker;

use crate::db::{Db, Inner, Pools};
use crate::durable::GroupSync;
use crate::error::DbError;
use crate::metrics::DbMetrics;
use crate::options::{Backend, DbOptions, Pooler, TlsMode};
use crate::slow::SlowStatements;
use crate::wake::Wakers;

/// Prepared statements that one connection keeps.
const STATEMENTS: usize = 256;
/// Rows of an index that are looked at when tables are counted for the planner.
const ANALYSED: &str = "400";
/// The log is cut back to this size after a checkpoint.
const LOG_LIMIT: &str = "67108864";
/// Page cache of one SQLite connection: negative means KiB.
const CACHE: &str = "-16000";
/// An idle connection is tried before use when it was idle for longer than this.
const FRESH: Duration = Duration::from_secs(1);
/// How long a connection may take to answer when the network is under suspicion.
const PROBE: Duration = Duration::from_secs(2);
/// A transaction that does nothing for so long belongs to a process that is paused or gone, and may keep
/// others from the counter of the outbox: the server ends it.
pub(crate) const FORGOTTEN_MS: &str = "10000";
/// Oldest PostgreSQL that the suite runs on, as `server_version_num`.
const OLDEST_SERVER: i32 = 150_000;

/// The write-ahead log of a SQLite file.
pub(crate) fn log_of(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push("-wal");
    PathBuf::from(name)
}

pub(crate) async fn connect(options: &DbOptions, clock: Arc<dyn Clock>) -> Result<Inner, DbError> {
    let suspect_until_ms = Arc::new(AtomicI64::new(0));
    let url = options.url.expose();
    let (pools, log_sync, lazy_commits) = if url.starts_with("sqlite:") {
        let (pools, file) = open_sqlite(options).await?;
        (pools, Some(GroupSync::of_log(log_of(&file))), false)
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        let suspect = Suspicion {
            clock: Arc::clone(&clock),
            until_ms: Arc::clone(&suspect_until_ms),
        };
        let (pool, lazy) = open_postgres(options, suspect).await?;
        (Pools::Postgres(pool), None, lazy)
    } else {
        return Err(DbError::Address(
            "it must begin with sqlite:// or postgres://".to_owned(),
        ));
    };
    Ok(Inner {
        pools,
        clock,
        metrics: DbMetrics::default(),
        slow: SlowStatements::default(),
        wakers: Wakers::default(),
        log_sync,
        commits: TaskTracker::new(),
        persistent: options.pooler == Pooler::None,
        acquire_timeout: options.acquire_timeout,
        statement_timeout: options.statement_timeout,
        slow_after: options.slow,
        pooler: options.pooler,
        lazy_commits,
        max_connections: options.max_connections,
        suspect_until_ms,
    })
}

async fn open_sqlite(options: &DbOptions) -> Result<(Pools, PathBuf), DbError> {
    let url = options.url.expose();
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(DbError::Address(
            "a database in memory cannot have several connections".to_owned(),
        ));
    }
    let base = SqliteConnectOptions::from_str(url).map_err(|e| DbError::from(&e))?;
    let file = base.get_filename().to_owned();
    create_private(&file)?;
    let base = base
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(options.acquire_timeout)
        .statement_cache_capacity(STATEMENTS)
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", CACHE)
        .pragma("journal_size_limit", LOG_LIMIT)
        .disable_statement_logging();
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            .max_lifetime(None)
    };
    // The writer comes first, because it makes the file a WAL database.
    let writer = pool()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .after_release(|conn, _| {
            Box::pin(async move {
                // On a full disk SQLite rolls back by itself, and then refuses the driver's own
                // rollback: the driver would think for ever that a transaction is open.
                if conn.is_in_transaction() {
                    // A rollback may still be under way.
                    conn.ping().await?;
                }
                Ok(!conn.is_in_transaction())
            })
        })
        .connect_with(
            base.clone()
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal)
                // What is counted at the end of a process may be old when it is killed instead.
                .pragma("analysis_limit", ANALYSED)
                .pragma("optimize", "0x10002")
                .optimize_on_close(true, 400),
        )
        .await?;
    let readers = pool()
        .max_connections(options.max_connections.max(1))
        .min_connections(options.min_connections.min(options.max_connections.max(1)))
        .idle_timeout(options.idle_timeout)
        .connect_with(base.pragma("query_only", "ON"))
        .await?;
    Ok((
        Pools::Sqlite {
            readers,
            writer,
            file: file.clone(),
        },
        file,
    ))
}

/// Makes the file readable for its owner alone; SQLite gives the log and the index the same mode.
fn create_private(file: &Path) -> Result<(), DbError> {
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match made {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(DbError::Address(format!("{}: {e}", file.display()))),
    }
}

/// Says whether a statement was not answered lately.
#[derive(Clone)]
struct Suspicion {
    clock: Arc<dyn Clock>,
    until_ms: Arc<AtomicI64>,
}

impl Suspicion {
    fn is_on(&self) -> bool {
        self.clock.unix_ms() < self.until_ms.load(Ordering::Relaxed)
    }
}

async fn open_postgres(options: &DbOptions, before: Suspicion) -> Result<(PgPool, bool), DbError> {
    let connect = postgres_options(options)?;
    let after = before.clone();
    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections.max(1))
        .min_connections(options.min_connections.min(options.max_connections.max(1)))
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(options.idle_timeout)
        .max_lifetime(options.max_lifetime)
        .test_before_acquire(false)
        .before_acquire(move |conn, meta| {
            let doubtful = meta.idle_for > FRESH || before.is_on();
            Box::pin(async move {
                if doubtful {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .after_release(move |conn, _| {
            let suspicious = after.is_on();
            Box::pin(async move {
                if suspicious {
                    tokio::time::timeout(PROBE, conn.ping())
                        .await
                        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                }
                Ok(true)
            })
        })
        .connect_with(connect)
        .await?;
    let mut conn = pool.acquire().await?;
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit')",
    )
    .persistent(false)
    .fetch_one(&mut *conn)
    .await?;
    let (version, commit): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if version < OLDEST_SERVER {
        return Err(DbError::Address(format!(
            "PostgreSQL 15 or newer is needed, the server is {}.{}",
            version / 10_000,
            version % 10_000
        )));
    }
    Ok((pool, commit == "off"))
}

fn postgres_options(options: &DbOptions) -> Result<PgConnectOptions, DbError> {
    let mut connect =
        PgConnectOptions::from_str(options.url.expose()).map_err(|e| DbError::from(&e))?;
    connect = connect
        .application_name(&options.application_name)
        .disable_statement_logging();
    if options.pooler == Pooler::PgBouncer {
        // It refuses start-up parameters that it does not know, and statements must not stay prepared.
        connect = connect.statement_cache_capacity(0).extra_float_digits(None);
    } else {
        let timeout = options.statement_timeout.as_millis().to_string();
        connect = connect.statement_cache_capacity(STATEMENTS).options([
            ("statement_timeout", timeout.as_str()),
            ("idle_in_transaction_session_timeout", FORGOTTEN_MS),
        ]);
    }
    let tls = &options.tls;
    let mode = match (tls.mode, &tls.ca_file) {
        (Some(TlsMode::Prefer), _) => Some(PgSslMode::Prefer),
        (Some(TlsMode::Require), _) => Some(PgSslMode::Require),
        (Some(TlsMode::VerifyFull), _) | (None, Some(_)) => Some(PgSslMode::VerifyFull),
        (None, None) => None,
    };
    if let Some(mode) = mode {
        connect = connect.ssl_mode(mode);
    }
    if let Some(ca) = &tls.ca_file {
        connect = connect.ssl_root_cert(ca);
    }
    if let Some(cert) = &tls.cert_file {
        connect = connect.ssl_client_cert(cert);
    }
    if let Some(key) = &tls.key_file {
        connect = connect.ssl_client_key(key);
    }
    Ok(connect)
}

pub(crate) async fn check_server_connections(db: &Db, replicas: u32) -> Result<(), DbError> {
    let inner = db.inner();
    if db.backend() == Backend::Sqlite || inner.pooler == Pooler::PgBouncer {
        return Ok(());
    }
    let statement = Statement::from_string(
        DbBackend::Postgres,
        "SELECT current_setting('max_connections')::int \
         - current_setting('superuser_reserved_connections')::int \
         - coalesce(current_setting('reserved_connections', true), '0')::int AS free",
    );
    let row = db
        .reader()
        .query_one_raw(statement)
        .await?
        .ok_or_else(|| DbError::Other("the server did not tell its limits".to_owned()))?;
    let available = u32::try_from(row.try_get::<i32>("", "free")?).unwrap_or(0);
    let wanted = replicas.saturating_mul(inner.max_connections);
    if wanted > available {
        return Err(DbError::ServerConnections { wanted, available });
    }
    Ok(())
}
