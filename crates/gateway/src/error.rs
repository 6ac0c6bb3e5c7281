//! What can go wrong in the gateway's own API, with stable codes.

use portico_base::{ErrorKind, Fault, FieldFault, Refusal};
use portico_contract::audit::AuditError;
use portico_db::DbError;

use crate::release::Refused;

/// An error of a use-case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the document is not right")]
    Invalid(Vec<FieldFault>),
    #[error("a credential is needed")]
    Unauthenticated,
    #[error("the permission {0} is needed")]
    Missing(portico_base::Permission),
    #[error("show a second factor, or authenticate again")]
    StepUp,
    #[error("there is no such object")]
    UnknownObject,
    #[error("there is no version {0} of it")]
    UnknownVersion(i64),
    #[error("there is an object of this name")]
    Exists,
    #[error("the present version is {0}")]
    VersionMismatch(i64),
    #[error("there are too many objects of this kind")]
    TooManyObjects,
    #[error("there is no service or instance of this id")]
    UnknownBreaker,
    #[error("too many watch already")]
    TooManyWatchers,
    #[error("the gateway is not serving")]
    NotServing,
    #[error(transparent)]
    Release(#[from] Refused),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl Error {
    /// Bad input with one fault.
    pub(crate) fn field(field: &str, code: &str, message: &str) -> Self {
        Self::Invalid(vec![FieldFault::new(field, code, message)])
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => Self::Unauthenticated,
            Refusal::Missing(permission) => Self::Missing(permission),
            Refusal::StepUp => Self::StepUp,
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unauthenticated | Self::StepUp => ErrorKind::Unauthenticated,
            Self::Missing(_) => ErrorKind::Forbidden,
            Self::UnknownObject | Self::UnknownVersion(_) | Self::UnknownBreaker => {
                ErrorKind::NotFound
            }
            Self::TooManyWatchers => ErrorKind::TooMany,
            Self::NotServing => ErrorKind::Unavailable,
            Self::Exists | Self::VersionMismatch(_) | Self::TooManyObjects | Self::Release(_) => {
                ErrorKind::Conflict
            }
            Self::Db(error) => error.kind(),
            Self::Audit(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "gateway.invalid",
            Self::Unauthenticated => "identity.token_missing",
            Self::Missing(_) => "identity.permission_denied",
            Self::StepUp => "identity.step_up_required",
            Self::UnknownObject => "gateway.object_not_found",
            Self::UnknownVersion(_) => "gateway.version_not_found",
            Self::Exists => "gateway.object_exists",
            Self::VersionMismatch(_) => "gateway.version_mismatch",
            Self::TooManyObjects => "gateway.too_many_objects",
            Self::UnknownBreaker => "gateway.breaker_not_found",
            Self::TooManyWatchers => "gateway.too_many_watchers",
            Self::NotServing => "gateway.not_serving",
            Self::Release(why) => why.code(),
            Self::Db(error) => error.code(),
            Self::Audit(_) => "system.audit_failed",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::VersionMismatch(_) => 412,
            Self::Db(error) => error.status(),
            _ => self.kind().status(),
        }
    }

    fn fields(&self) -> &[FieldFault] {
        match self {
            Self::Invalid(faults) => faults,
            _ => &[],
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Db(error) => error.retry_after_s(),
            Self::TooManyWatchers | Self::NotServing => Some(1),
            _ => None,
        }
    }
}
