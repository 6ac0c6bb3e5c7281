//! Why a process could not start, with the exit code that scripts rely on.

/// Exit codes of the command line (`operations.md` §5).
pub mod exit {
    /// Failed, or stopped by force.
    pub const FAILED: u8 = 1;
    /// Usage or configuration.
    pub const USAGE: u8 = 2;
    /// Another process holds the data directory.
    pub const LOCKED: u8 = 3;
    /// The database's schema is newer than this binary.
    pub const SCHEMA: u8 = 4;
    /// A dependency is missing.
    pub const DEPENDENCY: u8 = 5;
    /// The master key is not the one of the database.
    pub const KEY: u8 = 6;
}

/// A failed start: a sentence and an exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What happened and what to do, for people.
    pub message: String,
    /// One of [`exit`].
    pub code: u8,
    /// What was behind it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StartError {
    /// An error with an exit code.
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code,
            source: None,
        }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}
