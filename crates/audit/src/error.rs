//! What can go wrong in the audit service, with stable codes.

use portico_base::envelope::OpenError;
use portico_base::{ErrorKind, Fault, FieldFault, Permission, Refusal};
use portico_contract::audit::AuditError;
use portico_db::sea_orm::DbErr;
use portico_db::{DbError, Transient};

/// An error of a use-case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the question is not right")]
    Invalid(Vec<FieldFault>),
    #[error("a credential is needed")]
    Unauthenticated,
    #[error("the permission {0} is needed")]
    Missing(Permission),
    #[error("show a second factor, or authenticate again")]
    StepUp,
    #[error("there is no such record")]
    UnknownRecord,
    #[error("nothing is sealed yet")]
    NothingSealed,
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the audit key cannot be opened")]
    Key(#[from] OpenError),
    #[error("an archive could not be written")]
    Objects(#[from] portico_objects::ObjectError),
}

/// What use-cases answer.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Bad input with one fault.
    pub(crate) fn field(field: &str, code: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldFault::new(field, code, message)])
    }
}

impl Fault for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unauthenticated | Self::StepUp => ErrorKind::Unauthenticated,
            Self::Missing(_) => ErrorKind::Forbidden,
            Self::UnknownRecord => ErrorKind::NotFound,
            Self::NothingSealed => ErrorKind::Conflict,
            Self::Db(error) => error.kind(),
            Self::Audit(_) | Self::Key(_) | Self::Objects(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "audit.invalid",
            Self::Unauthenticated => "identity.token_missing",
            Self::Missing(_) => "identity.permission_denied",
            Self::StepUp => "identity.step_up_required",
            Self::UnknownRecord => "audit.unknown_record",
            Self::NothingSealed => "audit.nothing_sealed",
            Self::Db(error) => error.code(),
            Self::Audit(_) | Self::Key(_) | Self::Objects(_) => "system.internal",
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
            Self::Invalid(faults) => faults,
            _ => &[],
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
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
        match refusal {
            Refusal::Unauthenticated => Self::Unauthenticated,
            Refusal::Missing(permission) => Self::Missing(permission),
            Refusal::StepUp => Self::StepUp,
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Db(error.into())
    }
}
