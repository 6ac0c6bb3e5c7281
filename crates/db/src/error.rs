//! What can go wrong with the database, sorted by what a caller can do about it.

use std::sync::Arc;

use portico_base::{ErrorKind, Fault};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

/// Something went wrong with the database.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The database cannot be reached, or took too long; trying again later helps.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The file system under the database is full.
    #[error("the disk of the database is full: {0}")]
    DiskFull(String),
    /// The database can be read and not written (a standby, a read-only file system).
    #[error("the database is read-only: {0}")]
    ReadOnly(String),
    /// The transaction lost against another one; running it again helps at once.
    #[error("the transaction collided with another one: {0}")]
    Collision(String),
    /// A row with the same unique key exists.
    #[error("a unique key exists already: {constraint}")]
    Unique {
        /// Name of the constraint on PostgreSQL, `table.column, …` on SQLite.
        constraint: String,
    },
    /// A row refers to one that is not there, or is referred to.
    #[error("a reference between rows is broken: {constraint}")]
    Reference {
        /// Name of the constraint, where the database tells.
        constraint: String,
    },
    /// A value is not one that the column allows.
    #[error("a value is refused by the table: {0}")]
    Check(String),
    /// A text that no column can hold: with NUL, or not UTF-8 (PostgreSQL; SQLite takes it).
    #[error("a text holds what the database cannot store")]
    BadText,
    /// The lease that guards the work is held by somebody else by now.
    #[error("the lease `{0}` is lost")]
    LeaseLost(String),
    /// The database was migrated by a release with which this one cannot work (exit code 4).
    #[error("the database needs at least version {needs}, this is {binary}")]
    SchemaTooNew {
        /// Oldest release that may use the schema.
        needs: String,
        /// This release.
        binary: String,
    },
    /// A migration failed; nothing of it was kept.
    #[error("migration `{name}` failed: {source}")]
    Migration {
        /// Service and step, `registry/m0001_services`.
        name: String,
        /// Why.
        source: Arc<DbError>,
    },
    /// The database's address or its options are not usable.
    #[error("the database address is not usable: {0}")]
    Address(String),
    /// The encrypted connection was refused by one of both sides (exit code 5).
    #[error("the encrypted connection to the database failed: {0}")]
    Tls(String),
    /// The server allows fewer connections than the replicas may open.
    #[error("the server allows {available} connections, the replicas may open {wanted}")]
    ServerConnections {
        /// Connections that the replicas may open together.
        wanted: u32,
        /// Connections that the server leaves to ordinary users.
        available: u32,
    },
    /// A value could not be written as JSON or read back.
    #[error("a stored value cannot be coded: {0}")]
    Codec(String),
    /// Anything else: a defect of ours.
    #[error("database error: {0}")]
    Other(String),
}

impl DbError {
    /// True when running the whole transaction again can help (serialisation, deadlock, busy).
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Collision(_))
    }

    /// True when a row with the same unique key exists.
    #[must_use]
    pub const fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Unique { .. })
    }

    /// True when the database cannot be reached.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The kind as `portico_db_errors_total{kind}` writes it; also its index there.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::DiskFull(_) => "disk_full",
            Self::ReadOnly(_) => "read_only",
            Self::Collision(_) => "collision",
            Self::Unique { .. } => "unique",
            Self::Reference { .. } | Self::Check(_) | Self::BadText => "constraint",
            Self::Tls(_) => "tls",
            _ => "other",
        }
    }
}

/// All labels that [`DbError::label`] can give.
pub const ERROR_LABELS: [&str; 8] = [
    "unavailable",
    "disk_full",
    "read_only",
    "collision",
    "unique",
    "constraint",
    "tls",
    "other",
];

impl Fault for DbError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_)
            | Self::DiskFull(_)
            | Self::ReadOnly(_)
            | Self::Tls(_)
            | Self::Collision(_)
            | Self::LeaseLost(_) => ErrorKind::Unavailable,
            Self::Unique { .. } | Self::Reference { .. } => ErrorKind::Conflict,
            Self::BadText => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) | Self::ReadOnly(_) | Self::Tls(_) => {
                "system.database_unavailable"
            }
            Self::DiskFull(_) => "system.disk_low",
            Self::Collision(_) | Self::LeaseLost(_) => "system.try_again",
            Self::Unique { .. } => "system.exists_already",
            Self::Reference { .. } => "system.in_use",
            Self::SchemaTooNew { .. } => "system.schema_too_new",
            Self::BadText => "system.bad_text",
            _ => "system.database_error",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::DiskFull(_) => 507,
            _ => self.kind().status(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Unavailable(_) | Self::ReadOnly(_) | Self::Tls(_) => Some(5),
            Self::Collision(_) | Self::LeaseLost(_) => Some(1),
            Self::DiskFull(_) => Some(60),
            _ => None,
        }
    }
}

/// Errors that know whether running their operation again helps; see [`crate::Db::retry`].
pub trait Transient {
    /// True when the transaction lost against another one and nothing else was wrong.
    fn is_transient(&self) -> bool;
}

impl Transient for DbError {
    fn is_transient(&self) -> bool {
        Self::is_transient(self)
    }
}

impl From<DbErr> for DbError {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => acquire_timed_out(),
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => closed(),
            DbErr::Conn(RuntimeErr::SqlxError(e))
            | DbErr::Exec(RuntimeErr::SqlxError(e))
            | DbErr::Query(RuntimeErr::SqlxError(e)) => Self::from(&*e),
            DbErr::Json(text) | DbErr::Type(text) => Self::Codec(text),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        Self::from(&error)
    }
}

impl From<serde_json::Error> for DbError {
    fn from(error: serde_json::Error) -> Self {
        Self::Codec(error.to_string())
    }
}

impl From<&sqlx::Error> for DbError {
    fn from(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(e) => from_database(&**e),
            sqlx::Error::Io(e) if is_disk_full(e) => Self::DiskFull(e.to_string()),
            sqlx::Error::Io(e) => Self::Unavailable(e.to_string()),
            sqlx::Error::Tls(e) => Self::Tls(e.to_string()),
            sqlx::Error::PoolTimedOut => acquire_timed_out(),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => closed(),
            // A server that goes away in the middle of an answer.
            sqlx::Error::Protocol(text) => Self::Unavailable(text.clone()),
            sqlx::Error::Configuration(e) => Self::Address(e.to_string()),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::InvalidArgument(_) => Self::Codec(error.to_string()),
            sqlx::Error::BeginFailed => Self::Unavailable(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

fn acquire_timed_out() -> DbError {
    DbError::Unavailable("no connection became free in time".to_owned())
}

fn closed() -> DbError {
    DbError::Unavailable("the connections are closed".to_owned())
}

fn is_disk_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge
    )
}

fn from_database(error: &dyn sqlx::error::DatabaseError) -> DbError {
    let code = error.code().unwrap_or_default();
    let text = error.message().to_owned();
    if error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        from_sqlite(code.parse().unwrap_or(0), text)
    } else {
        from_postgres(&code, text, error.constraint())
    }
}

/// Sorts by the result code; the low byte is the primary one (sqlite.org/rescode.html).
fn from_sqlite(code: i32, text: String) -> DbError {
    const UNIQUE: i32 = 2067;
    const PRIMARY_KEY: i32 = 1555;
    const ROW_ID: i32 = 2579;
    const FOREIGN_KEY: i32 = 787;
    const TRIGGER: i32 = 1811;
    // A write or its fsync failed. Under a file size limit the system reports it so too.
    const IO_WRITE: i32 = 778;
    let constraint = || {
        text.split_once(": ")
            .map_or_else(|| text.clone(), |(_, c)| c.to_owned())
    };
    match code {
        UNIQUE | PRIMARY_KEY | ROW_ID => DbError::Unique {
            constraint: constraint(),
        },
        FOREIGN_KEY | TRIGGER => DbError::Reference {
            constraint: constraint(),
        },
        IO_WRITE => DbError::DiskFull(text),
        _ => match code & 0xff {
            5 | 6 => DbError::Collision(text),
            8 => DbError::ReadOnly(text),
            13 => DbError::DiskFull(text),
            19 => DbError::Check(text),
            // Input/output, cannot open, out of memory, interrupted.
            7 | 9 | 10 | 14 => DbError::Unavailable(text),
            _ => DbError::Other(text),
        },
    }
}

/// Sorts by SQLSTATE (PostgreSQL documentation, appendix A).
fn from_postgres(code: &str, text: String, constraint: Option<&str>) -> DbError {
    let name = || constraint.map_or_else(|| text.clone(), str::to_owned);
    match code {
        "23505" => DbError::Unique { constraint: name() },
        "23503" => DbError::Reference { constraint: name() },
        "40001" | "40P01" | "55P03" => DbError::Collision(text),
        "25006" => DbError::ReadOnly(text),
        "53100" => DbError::DiskFull(text),
        "28000" | "28P01" | "3D000" => DbError::Address(text),
        // Statement timeout and shutdowns are 57xxx, too many connections 53300.
        _ if code.starts_with("08") || code.starts_with("57") || code.starts_with("53") => {
            DbError::Unavailable(text)
        }
        _ if code.starts_with("23") => DbError::Check(text),
        _ if code.starts_with("58") => DbError::Unavailable(text),
        "22021" | "22P05" => DbError::BadText,
        _ => DbError::Other(format!("{text} (SQLSTATE {code})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_kinds() {
        assert!(from_sqlite(2067, "UNIQUE constraint failed: a.b".into()).is_unique_violation());
        assert!(matches!(
            from_sqlite(2067, "UNIQUE constraint failed: a.b".into()),
            DbError::Unique { constraint } if constraint == "a.b"
        ));
        assert!(from_sqlite(5, "database is locked".into()).is_transient());
        assert!(from_sqlite(517, "busy snapshot".into()).is_transient());
        assert_eq!(from_sqlite(13, "full".into()).status(), 507);
        assert!(from_postgres("40P01", "deadlock".into(), None).is_transient());
        assert!(from_postgres("57P01", "shutdown".into(), None).is_unavailable());
        assert!(from_postgres("53300", "too many".into(), None).is_unavailable());
        let unique = from_postgres("23505", "duplicate".into(), Some("users_name"));
        assert_eq!(unique.kind(), ErrorKind::Conflict);
        assert_eq!(
            from_postgres("42P01", "no table".into(), None).kind(),
            ErrorKind::Internal
        );
    }

    #[test]
    fn an_absent_database_asks_to_come_back() {
        let error = DbError::from(sqlx::Error::PoolTimedOut);
        assert_eq!(error.code(), "system.database_unavailable");
        assert_eq!(error.status(), 503);
        assert_eq!(error.retry_after_s(), Some(5));
        assert!(ERROR_LABELS.contains(&error.label()));
    }
}
