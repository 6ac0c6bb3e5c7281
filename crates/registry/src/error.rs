//! What can go wrong in the registry, with stable codes.

use portico_base::{ErrorKind, Fault, FieldFault, Permission, Refusal};
use portico_contract::audit::AuditError;
use portico_db::sea_orm::DbErr;
use portico_db::{DbError, Transient};

/// An error of a use-case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the registration is not right")]
    Invalid {
        code: &'static str,
        faults: Vec<FieldFault>,
    },
    #[error("a credential is needed")]
    Unauthenticated,
    #[error("the permission {0} is needed")]
    Missing(Permission),
    #[error("show a second factor, or authenticate again")]
    StepUp,
    #[error("{reason}")]
    NotAllowed {
        reason: String,
        faults: Vec<FieldFault>,
    },
    #[error("the name belongs to somebody else, or is reserved")]
    NameOwned,
    #[error("there is no such instance")]
    UnknownInstance,
    #[error("there is no such service")]
    UnknownService,
    #[error("there is no such token")]
    UnknownToken,
    #[error("there is no such name")]
    UnknownName,
    #[error("there is no such check")]
    UnknownCheck,
    #[error("the instance is drained")]
    Drained,
    #[error("{0}")]
    Conflict(&'static str),
    #[error("the position is too old, read the whole list again")]
    SeqTooOld,
    #[error("too many instances live under this token")]
    TooManyInstances,
    #[error("too many requests wait here")]
    TooManyWatchers,
    #[error("plug-in protocol {0} is not spoken here, only 1 to 1")]
    Protocol(String),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("{0}")]
    Internal(String),
}

/// What use-cases answer.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Bad input with one fault.
    pub(crate) fn field(field: &str, code: &str, message: impl Into<String>) -> Self {
        Self::Invalid {
            code: "registry.invalid",
            faults: vec![FieldFault::new(field, code, message)],
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::Protocol(_) => ErrorKind::Invalid,
            Self::Unauthenticated | Self::StepUp => ErrorKind::Unauthenticated,
            Self::Missing(_) | Self::NotAllowed { .. } => ErrorKind::Forbidden,
            Self::UnknownInstance
            | Self::UnknownService
            | Self::UnknownToken
            | Self::UnknownName
            | Self::UnknownCheck => ErrorKind::NotFound,
            Self::NameOwned | Self::Drained | Self::Conflict(_) | Self::SeqTooOld => {
                ErrorKind::Conflict
            }
            Self::TooManyInstances | Self::TooManyWatchers => ErrorKind::TooMany,
            Self::Db(error) => error.kind(),
            Self::Audit(_) | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid { code, .. } => code,
            Self::Unauthenticated => "identity.token_missing",
            Self::Missing(_) => "identity.permission_denied",
            Self::StepUp => "identity.step_up_required",
            Self::NotAllowed { .. } => "registry.not_allowed",
            Self::NameOwned => "registry.name_owned",
            Self::UnknownInstance => "registry.unknown_instance",
            Self::UnknownService => "registry.unknown_service",
            Self::UnknownToken => "registry.unknown_token",
            Self::UnknownName => "registry.unknown_name",
            Self::UnknownCheck => "registry.unknown_check",
            Self::Drained => "registry.drained",
            Self::Conflict(_) => "registry.conflict",
            Self::SeqTooOld => "registry.seq_too_old",
            Self::TooManyInstances => "registry.too_many_instances",
            Self::TooManyWatchers => "registry.too_many_watchers",
            Self::Protocol(_) => "registry.protocol_unsupported",
            Self::Db(error) => error.code(),
            Self::Audit(_) | Self::Internal(_) => "system.internal",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::SeqTooOld => 410,
            Self::Db(error) => error.status(),
            _ => self.kind().status(),
        }
    }

    fn fields(&self) -> &[FieldFault] {
        match self {
            Self::Invalid { faults, .. } | Self::NotAllowed { faults, .. } => faults,
            _ => &[],
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Db(error) => error.retry_after_s(),
            Self::TooManyWatchers => Some(1),
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
