//! What can go wrong with a backup, sorted by what somebody can do about it.

use std::io;

use portico_base::ErrorKind;
use portico_contract::backup::PartFailed;
use portico_db::DbError;
use portico_objects::ObjectError;

/// Why a backup could not be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file is not one of ours, was cut off, or was changed; says what was found. Nothing was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The file breaks a bound that no backup of ours breaks. Nothing was written.
    #[error("the backup is refused: {0}")]
    Refused(String),
    /// The file was made with a master key that is not at hand.
    #[error("the backup was made with the master key {0}, which is not among the keys given")]
    Key(String),
    /// The file was made for a recipient whose identity is not at hand.
    #[error("the backup was made for the recipient {0}; give its identity file")]
    Identity(String),
    /// A recipient, an identity or a copy of the key is not readable.
    #[error("{0}")]
    BadKey(String),
    /// The file was made by a newer release.
    #[error("the backup needs Portico {needs} or newer, this is {binary}: {why}")]
    Newer {
        /// Release that made it.
        needs: String,
        /// This release.
        binary: String,
        /// What this release does not know.
        why: String,
    },
    /// There is a database already where the backup is to be restored.
    #[error("there is a database already: {0}")]
    NotEmpty(String),
    /// There is no room left; what had been written is gone again.
    #[error("the disk is full: {0}")]
    Full(String),
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// Which file, and what for.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Something of the database is too large or too strange for a backup.
    #[error("{0}")]
    Unfit(String),
    /// The database failed.
    #[error(transparent)]
    Db(DbError),
    /// The object store failed.
    #[error(transparent)]
    Object(ObjectError),
    /// A service could not do its part.
    #[error("the part of {service} failed: {source}")]
    Part {
        /// The service.
        service: &'static str,
        /// Why.
        source: PartFailed,
    },
    /// Somebody asked to stop; nothing was kept.
    #[error("the work was given up")]
    Cancelled,
}

/// Result of this crate.
pub type Result<T, E = BackupError> = std::result::Result<T, E>;

impl BackupError {
    /// The kind that a service's error enum maps to.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged(_)
            | Self::Refused(_)
            | Self::Key(_)
            | Self::Identity(_)
            | Self::BadKey(_)
            | Self::Newer { .. } => ErrorKind::Invalid,
            Self::NotEmpty(_) => ErrorKind::Conflict,
            Self::Full(_) | Self::Io { .. } | Self::Db(_) | Self::Cancelled => {
                ErrorKind::Unavailable
            }
            Self::Object(error) => error.kind(),
            Self::Unfit(_) | Self::Part { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::Refused(what.into())
    }

    /// A failed file operation; a full disk is told apart.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(what.into()),
            _ => Self::Io {
                what: what.into(),
                source,
            },
        }
    }
}

impl From<DbError> for BackupError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::DiskFull(what) => Self::Full(what),
            other => Self::Db(other),
        }
    }
}

impl From<ObjectError> for BackupError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Full(_) => Self::Full("where backups or objects are kept".to_owned()),
            other => Self::Object(other),
        }
    }
}
