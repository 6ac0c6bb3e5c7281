//! What can go wrong with an object.

use std::io;

use portico_base::ErrorKind;

/// Why an object could not be stored, read, listed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no object of that name.
    #[error("there is no such object")]
    NotFound,
    /// The name, the content type or the range is not one that can be used; says which and why.
    #[error("{0}")]
    Invalid(String),
    /// The range begins behind the end of the object, whose size in bytes is given.
    #[error("the range begins behind the end of the object, which has {0} bytes")]
    Range(u64),
    /// There is no room left; what had been written is gone again.
    #[error("the object store is full")]
    Full(#[source] io::Error),
    /// The store refuses our credentials.
    #[error("the object store refuses access")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be reached, or a file cannot be read or written; trying again may help.
    #[error("the object store cannot be used now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was to be stored broke off; nothing is kept.
    #[error("what was to be stored broke off")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ObjectError {
    /// The kind that a service's error enum maps to.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Invalid(_) | Self::Range(_) | Self::Source(_) => ErrorKind::Invalid,
            Self::Full(_) | Self::Refused(_) | Self::Unavailable(_) => ErrorKind::Unavailable,
        }
    }

    /// One word for metrics.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Invalid(_) => "invalid",
            Self::Range(_) => "range",
            Self::Full(_) => "full",
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::Source(_) => "source",
        }
    }
}

impl From<io::Error> for ObjectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            // A file-size limit of the process is a full disk for whoever wants to store something.
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(error),
            _ => Self::Unavailable(Box::new(error)),
        }
    }
}
