//! What can go wrong in settings: bad input, a refusal, a lost update, or a fault of ours.

use portico_base::{ErrorKind, Fault, FieldFault, Refusal};
use portico_contract::audit::AuditError;
use portico_contract::sealed::SealedError;
use portico_db::sea_orm::DbErr;
use portico_db::{DbError, Transient};
use serde_json::{Map, Value};

use crate::domain::conflict::Conflict;

/// An error of a use-case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the input is not right")]
    Invalid(Vec<FieldFault>),
    /// Some keys are declared by nobody; all faults of the input, though.
    #[error("there is no such setting")]
    UnknownKey(Vec<FieldFault>),
    /// Some keys are configuration, which no API changes; all faults of the input, though.
    #[error(
        "this is configuration: it is set in the file or in the environment, and read at the start"
    )]
    Configuration(Vec<FieldFault>),
    #[error("it was changed in between")]
    Conflict(Vec<Conflict>),
    #[error("{1}")]
    NotFound(&'static str, &'static str),
    /// The version cannot come back under today's rules.
    #[error("not possible: {}", .0.first().map_or("", |f| f.message.as_str()))]
    NotPossible(Vec<FieldFault>),
    #[error("there are too many watches")]
    TooManyWatches,
    #[error("the right to do this is missing")]
    Access(Refusal),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Sealed(#[from] SealedError),
}

/// What use-cases answer.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Bad input with one fault.
    pub(crate) fn field(field: &str, code: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldFault::new(field, code, message)])
    }

    /// A key that nobody declares.
    pub(crate) fn unknown(key: &str) -> Self {
        Self::UnknownKey(vec![unknown(key)])
    }
}

/// The fault of a key that no API changes.
pub(crate) fn configuration(key: &str) -> FieldFault {
    let message = "is configuration: it is set in the file or in the environment";
    FieldFault::new(key, "configuration", message)
}

/// The fault of a key that nobody declares.
pub(crate) fn unknown(key: &str) -> FieldFault {
    FieldFault::new(key, "unknown_key", "no service declares this setting")
}

impl Fault for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::UnknownKey(_) | Self::NotFound(..) => ErrorKind::NotFound,
            Self::Configuration(_) => ErrorKind::Forbidden,
            Self::Conflict(_) | Self::NotPossible(_) => ErrorKind::Conflict,
            Self::TooManyWatches => ErrorKind::TooMany,
            Self::Access(Refusal::Missing(_)) => ErrorKind::Forbidden,
            Self::Access(_) => ErrorKind::Unauthenticated,
            Self::Db(error) => error.kind(),
            Self::Audit(_) | Self::Sealed(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "settings.invalid",
            Self::UnknownKey(_) => "settings.unknown_key",
            Self::Configuration(_) => "settings.configuration",
            Self::Conflict(_) => "settings.conflict",
            Self::NotPossible(_) => "settings.not_possible",
            Self::NotFound(code, _) => code,
            Self::TooManyWatches => "settings.too_many_watches",
            Self::Access(Refusal::Missing(_)) => "identity.permission_denied",
            Self::Access(Refusal::Unauthenticated) => "identity.token_missing",
            Self::Access(Refusal::StepUp) => "identity.step_up_required",
            Self::Db(error) => error.code(),
            Self::Audit(_) | Self::Sealed(_) => "system.internal",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Db(error) => error.status(),
            _ => self.kind().status(),
        }
    }

    fn fields(&self) -> &[FieldFault] {
        match self {
            Self::Invalid(faults)
            | Self::UnknownKey(faults)
            | Self::Configuration(faults)
            | Self::NotPossible(faults) => faults,
            _ => &[],
        }
    }

    fn members(&self) -> Map<String, Value> {
        match self {
            Self::Conflict(conflicts) => {
                let list = serde_json::to_value(conflicts).unwrap_or_default();
                Map::from_iter([("conflicts".to_owned(), list)])
            }
            _ => Map::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::TooManyWatches => Some(5),
            Self::Db(error) => error.retry_after_s(),
            _ => None,
        }
    }
}

impl Transient for Error {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_transient())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Access(refusal)
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Db(error.into())
    }
}
