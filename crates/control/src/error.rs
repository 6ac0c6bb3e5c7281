//! What can go wrong in control: bad input, a reason with a stable code, or a fault of ours.

use portico_base::{ErrorKind, Fault, FieldFault, Refusal};
use portico_contract::audit::AuditError;
use portico_db::sea_orm::DbErr;
use portico_db::{DbError, Transient};

/// Why a request is refused: a kind, a stable code and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason {
    pub kind: ErrorKind,
    pub code: &'static str,
    pub text: &'static str,
}

impl Reason {
    const fn new(kind: ErrorKind, code: &'static str, text: &'static str) -> Self {
        Self { kind, code, text }
    }
}

/// Every reason that control refuses for, one constant a code.
pub(crate) mod reason {
    use super::Reason;
    use portico_base::ErrorKind::{Conflict, Forbidden, NotFound, Unavailable};

    pub(crate) const JOB_NOT_FOUND: Reason =
        Reason::new(NotFound, "control.job_not_found", "there is no such job");
    pub(crate) const KIND_NOT_FOUND: Reason = Reason::new(
        NotFound,
        "control.job_kind_not_found",
        "there is no such kind of jobs",
    );
    pub(crate) const CRON_NOT_FOUND: Reason = Reason::new(
        NotFound,
        "control.cron_not_found",
        "there is no such schedule",
    );
    pub(crate) const JOB_STATE: Reason = Reason::new(
        Conflict,
        "control.job_state",
        "the job's state does not allow this",
    );
    pub(crate) const JOB_TWIN: Reason = Reason::new(
        Conflict,
        "control.job_twin",
        "the same job is waiting or running already",
    );
    pub(crate) const CRON_RUNNING: Reason = Reason::new(
        Conflict,
        "control.cron_running",
        "its last run has not ended",
    );
    pub(crate) const CRON_FIXED: Reason = Reason::new(
        Conflict,
        "control.cron_fixed",
        "what keeps the platform going cannot be switched off",
    );
    pub(crate) const ALL_TENANTS: Reason = Reason::new(
        Forbidden,
        "identity.permission_denied",
        "this belongs to another tenant, or to all of them",
    );
    pub(crate) const BACKUP_NOT_FOUND: Reason = Reason::new(
        NotFound,
        "control.backup_not_found",
        "there is no such backup",
    );
    pub(crate) const BACKUP_FILE_GONE: Reason = Reason::new(
        NotFound,
        "control.backup_file_gone",
        "the backup's file is not where it was kept",
    );
    pub(crate) const BACKUP_STATE: Reason = Reason::new(
        Conflict,
        "control.backup_state",
        "the backup's state does not allow this",
    );
    pub(crate) const BACKUP_ELSEWHERE: Reason = Reason::new(
        Conflict,
        "control.backup_elsewhere",
        "the backup lies beside another replica",
    );
    pub(crate) const BACKUP_STORE: Reason = Reason::new(
        Unavailable,
        "control.backup_store",
        "the place of backups cannot be used now",
    );
    pub(crate) const RESTORE_BY_COMMAND: Reason = Reason::new(
        Conflict,
        "control.restore_by_command",
        "restore into an empty database with `portico restore FILE --into postgres://…`, then use that one",
    );
}

/// An error of a use-case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the input is not right")]
    Invalid(Vec<FieldFault>),
    #[error("{}", .0.text)]
    Refused(Reason),
    #[error("the right to do this is missing")]
    Access(Refusal),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Audit(#[from] AuditError),
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
            Self::Refused(reason) => reason.kind,
            Self::Access(Refusal::Missing(_)) => ErrorKind::Forbidden,
            Self::Access(_) => ErrorKind::Unauthenticated,
            Self::Db(error) => error.kind(),
            Self::Audit(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "control.invalid",
            Self::Refused(reason) => reason.code,
            Self::Access(Refusal::Missing(_)) => "identity.permission_denied",
            Self::Access(Refusal::Unauthenticated) => "identity.token_missing",
            Self::Access(Refusal::StepUp) => "identity.step_up_required",
            Self::Db(error) => error.code(),
            Self::Audit(_) => "system.internal",
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

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
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
