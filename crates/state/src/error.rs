//! What can go wrong with shared state. Callers go on without it; that is what SC-3 asks of them.

use portico_base::ErrorKind;

/// Why shared state could not be asked or told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Redis is not there. Told at once while that is known, at the latest after the command's time-out.
    #[error("redis is not available: {0}")]
    Unavailable(String),
    /// Redis answered with an error.
    #[error("redis refused: {0}")]
    Refused(String),
    /// The options are wrong.
    #[error("{0}")]
    Config(String),
    /// A bounded table in the process is full.
    #[error("the table of {0} is full")]
    Full(&'static str),
}

impl StateError {
    /// The kind that a service's error enum maps to.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) | Self::Full(_) => ErrorKind::Unavailable,
            Self::Refused(_) | Self::Config(_) => ErrorKind::Internal,
        }
    }
}
