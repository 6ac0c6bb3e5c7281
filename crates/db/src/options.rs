//! How to reach the database: plain values, filled from the configuration by the host.

use std::path::PathBuf;
use std::time::Duration;

use portico_base::Secret;

/// Which database stands behind a [`crate::Db`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A file beside the process: single mode.
    Sqlite,
    /// PostgreSQL 15 or newer: scaled mode.
    Postgres,
}

impl Backend {
    /// The name that logs, metrics and the system page use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// What stands between us and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooler {
    /// Nothing: sessions are ours.
    #[default]
    None,
    /// pgBouncer in transaction mode: no session state survives a transaction.
    PgBouncer,
}

/// How much encryption a connection to PostgreSQL asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Encrypted where the server can, plain otherwise.
    #[default]
    Prefer,
    /// Encrypted, without looking at the certificate's name.
    Require,
    /// Encrypted, and the certificate must name the host and lead to the given authority.
    VerifyFull,
}

/// Encryption of the connection to PostgreSQL.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// How much is asked for; by default [`TlsMode::VerifyFull`] with `ca_file`, else what the URL says.
    pub mode: Option<TlsMode>,
    /// PEM file of the authority that signs the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our own certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of our own key.
    pub key_file: Option<PathBuf>,
}

/// Everything that [`crate::Db::connect`] needs to know.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// `sqlite://<path>` or `postgres://user:password@host/database`.
    pub url: Secret<String>,
    /// Most connections of this process (SQLite: of readers; the writer is one more).
    pub max_connections: u32,
    /// Connections that are kept open although nobody needs them.
    pub min_connections: u32,
    /// Longest wait for a connection, and so for a database that is gone.
    pub acquire_timeout: Duration,
    /// Longest run of one statement.
    pub statement_timeout: Duration,
    /// Idle connections are closed after this.
    pub idle_timeout: Duration,
    /// Connections are renewed after this.
    pub max_lifetime: Duration,
    /// Statements that take longer are logged and counted as slow.
    pub slow: Duration,
    /// What stands between us and PostgreSQL.
    pub pooler: Pooler,
    /// Encryption of the connection to PostgreSQL.
    pub tls: Tls,
    /// `application_name` of our sessions in PostgreSQL.
    pub application_name: String,
}

impl DbOptions {
    /// The defaults of the configuration's `database` section for a URL.
    #[must_use]
    pub fn new(url: impl Into<Secret<String>>) -> Self {
        let url = url.into();
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let sqlite = url.expose().starts_with("sqlite:");
        Self {
            max_connections: if sqlite {
                u32::try_from(cores).unwrap_or(2).max(2)
            } else {
                20
            },
            url,
            min_connections: 2,
            acquire_timeout: Duration::from_millis(3_000),
            statement_timeout: Duration::from_millis(15_000),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1_800),
            slow: Duration::from_millis(200),
            pooler: Pooler::None,
            tls: Tls::default(),
            application_name: "portico".to_owned(),
        }
    }
}
