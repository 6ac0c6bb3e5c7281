//! What can go wrong in identity: bad input, a reason with a stable code, or a fault of ours.

use portico_base::{ErrorKind, Fault, FieldFault, Refusal};
use portico_contract::audit::AuditError;
use portico_contract::services::SwitchError;
use portico_db::sea_orm::DbErr;
use portico_db::{DbError, Transient};
use serde_json::{Map, Value};

/// Why a request is refused: a kind, a stable code and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason {
    pub kind: ErrorKind,
    pub code: &'static str,
    pub text: &'static str,
    /// A refined status; 0 for the kind's own.
    pub status: u16,
}

impl Reason {
    const fn new(kind: ErrorKind, code: &'static str, text: &'static str) -> Self {
        Self {
            kind,
            code,
            text,
            status: 0,
        }
    }

    /// The code without the service's name, as figures are told apart by.
    pub(crate) fn word(self) -> &'static str {
        self.code
            .split_once('.')
            .map_or(self.code, |(_, word)| word)
    }

    const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

/// Every reason that identity refuses for, one constant a code.
pub(crate) mod reason {
    use super::Reason;
    use portico_base::ErrorKind::{
        Conflict, Forbidden, Internal, Invalid, NotFound, TooMany, Unauthenticated, Unavailable,
    };

    pub(crate) const NOT_FOUND: Reason =
        Reason::new(NotFound, "identity.not_found", "there is no such thing");
    pub(crate) const USER_NOT_FOUND: Reason =
        Reason::new(NotFound, "identity.user_not_found", "there is no such user");
    pub(crate) const TENANT_NOT_FOUND: Reason = Reason::new(
        NotFound,
        "identity.tenant_not_found",
        "there is no such tenant",
    );
    pub(crate) const ROLE_NOT_FOUND: Reason =
        Reason::new(NotFound, "identity.role_not_found", "there is no such role");

    pub(crate) const INVALID_CREDENTIALS: Reason = Reason::new(
        Unauthenticated,
        "identity.invalid_credentials",
        "these credentials are not right",
    );
    pub(crate) const ACCOUNT_DISABLED: Reason = Reason::new(
        Unauthenticated,
        "identity.account_disabled",
        "the account is disabled",
    );
    pub(crate) const ACCOUNT_PENDING: Reason = Reason::new(
        Unauthenticated,
        "identity.account_pending",
        "the address of the account is not verified yet",
    );
    pub(crate) const TENANT_SUSPENDED: Reason = Reason::new(
        Unauthenticated,
        "identity.tenant_suspended",
        "the tenant is suspended",
    );
    pub(crate) const REFRESH_INVALID: Reason = Reason::new(
        Unauthenticated,
        "identity.refresh_invalid",
        "the refresh token is not good",
    );
    pub(crate) const SESSION_REVOKED: Reason = Reason::new(
        Unauthenticated,
        "identity.session_revoked",
        "the session has ended",
    );
    pub(crate) const IP_MISMATCH: Reason = Reason::new(
        Unauthenticated,
        "identity.ip_mismatch",
        "the session belongs to another network",
    );
    pub(crate) const TICKET_INVALID: Reason = Reason::new(
        Unauthenticated,
        "identity.ticket_invalid",
        "the ticket is used, expired or not yours",
    );
    pub(crate) const TOKEN_USED: Reason = Reason::new(
        Unauthenticated,
        "identity.one_time_token_invalid",
        "the link is used or expired",
    );
    pub(crate) const OTP_INVALID: Reason = Reason::new(
        Unauthenticated,
        "identity.otp_invalid",
        "the code is not right",
    );
    pub(crate) const OTP_EXPIRED: Reason = Reason::new(
        Unauthenticated,
        "identity.otp_expired",
        "the code has expired",
    );
    pub(crate) const OTP_EXHAUSTED: Reason = Reason::new(
        Unauthenticated,
        "identity.otp_exhausted",
        "there were too many wrong tries",
    );
    pub(crate) const STEP_UP_REQUIRED: Reason = Reason::new(
        Unauthenticated,
        "identity.step_up_required",
        "show a second factor, or authenticate again",
    );

    pub(crate) const APPLE_TOKEN_INVALID: Reason = Reason::new(
        Unauthenticated,
        "identity.apple_token_invalid",
        "this is no statement of Apple that is good here and now",
    );
    pub(crate) const APPLE_UNAVAILABLE: Reason = Reason::new(
        Unavailable,
        "identity.apple_unavailable",
        "Apple cannot be asked now",
    );
    pub(crate) const IDENTITY_EXISTS: Reason = Reason::new(
        Conflict,
        "identity.identity_exists",
        "another identity of this provider is linked to the account",
    );
    pub(crate) const IDENTITY_TAKEN: Reason = Reason::new(
        Conflict,
        "identity.identity_taken",
        "this identity is linked to another account",
    );

    pub(crate) const REGISTRATION_CLOSED: Reason = Reason::new(
        Forbidden,
        "identity.registration_closed",
        "registration is closed here",
    );
    pub(crate) const GRANT_EXCEEDS_OWN: Reason = Reason::new(
        Forbidden,
        "identity.grant_exceeds_own",
        "nobody grants what they do not hold",
    );
    pub(crate) const NOT_FOR_KEYS: Reason = Reason::new(
        Forbidden,
        "identity.not_for_keys",
        "this is for people, not for API keys and programs",
    );
    pub(crate) const OTHER_TENANT: Reason = Reason::new(
        Forbidden,
        "identity.permission_denied",
        "this belongs to another tenant",
    );

    pub(crate) const USERNAME_TAKEN: Reason = Reason::new(
        Conflict,
        "identity.username_taken",
        "the user name is taken",
    );
    pub(crate) const EMAIL_TAKEN: Reason = Reason::new(
        Conflict,
        "identity.email_taken",
        "the e-mail address is taken",
    );
    pub(crate) const PHONE_TAKEN: Reason = Reason::new(
        Conflict,
        "identity.phone_taken",
        "the phone number is taken",
    );
    pub(crate) const SLUG_TAKEN: Reason =
        Reason::new(Conflict, "identity.slug_taken", "the slug is taken");
    pub(crate) const HOST_TAKEN: Reason = Reason::new(
        Conflict,
        "identity.host_taken",
        "the host is bound to another tenant",
    );
    pub(crate) const ROLE_TAKEN: Reason =
        Reason::new(Conflict, "identity.role_taken", "the role's name is taken");
    pub(crate) const BUILT_IN: Reason = Reason::new(
        Conflict,
        "identity.built_in",
        "what is built in cannot be changed",
    );
    pub(crate) const ROLE_IN_USE: Reason = Reason::new(
        Conflict,
        "identity.role_in_use",
        "more than 1000 users have the role: take it from them first",
    );
    pub(crate) const VERSION_MISMATCH: Reason = Reason::new(
        Conflict,
        "system.version_mismatch",
        "it was changed in between",
    )
    .status(412);
    pub(crate) const LAST_ADMIN: Reason = Reason::new(
        Conflict,
        "identity.last_admin",
        "somebody must be able to administer the installation",
    );
    pub(crate) const LAST_METHOD: Reason = Reason::new(
        Conflict,
        "identity.last_method",
        "this is the last way to log in",
    );
    pub(crate) const DEVICE_LIMIT: Reason = Reason::new(
        Conflict,
        "identity.device_limit",
        "as many devices as allowed are logged in",
    );
    pub(crate) const LEGAL_HOLD: Reason = Reason::new(
        Conflict,
        "identity.legal_hold",
        "the account is under legal hold",
    );
    pub(crate) const OPERATOR_ONLY: Reason = Reason::new(
        Forbidden,
        "identity.operator_only",
        "only the operator of this machine may do this",
    );
    pub(crate) const ALREADY_SET_UP: Reason = Reason::new(
        Conflict,
        "identity.already_set_up",
        "the first administrator exists already",
    );
    pub(crate) const QUOTA_EXCEEDED: Reason = Reason::new(
        Conflict,
        "identity.quota_exceeded",
        "the tenant's quota is used up",
    );
    pub(crate) const KEY_CONFLICT: Reason = Reason::new(
        Conflict,
        "identity.key_not_ready",
        "the next key is not published long enough",
    );
    pub(crate) const RULE_EXISTS: Reason = Reason::new(
        Conflict,
        "identity.rule_exists",
        "there is such a rule for this network already",
    );
    pub(crate) const LOCKS_OUT_CALLER: Reason = Reason::new(
        Conflict,
        "identity.locks_out_caller",
        "this would lock out the address that you call from",
    );
    pub(crate) const KEY_REUSED: Reason = Reason::new(
        Conflict,
        "identity.idempotency_key_reused",
        "this Idempotency-Key was used for another request",
    );
    pub(crate) const FACTOR_EXISTS: Reason = Reason::new(
        Conflict,
        "identity.factor_exists",
        "the factor is set up already",
    );
    pub(crate) const FACTOR_MISSING: Reason = Reason::new(
        Conflict,
        "identity.factor_missing",
        "no such factor is set up",
    );

    pub(crate) const HTTPS_REQUIRED: Reason = Reason::new(
        Invalid,
        "identity.https_required",
        "cookies need https here",
    );
    pub(crate) const CSRF: Reason = Reason::new(
        Forbidden,
        "identity.csrf",
        "a request with a cookie needs X-Portico-CSRF: 1 and an Origin of its own",
    );

    pub(crate) const RATE_LIMITED: Reason = Reason::new(
        TooMany,
        "identity.rate_limited",
        "too many tries, wait a little",
    );
    pub(crate) const ACCOUNT_LOCKED: Reason = Reason::new(
        TooMany,
        "identity.account_locked",
        "too many tries, wait a little",
    );
    pub(crate) const FACTOR_LOCKED: Reason = Reason::new(
        TooMany,
        "identity.factor_locked",
        "too many wrong codes, wait a little",
    );
    pub(crate) const SMS_LIMITED: Reason = Reason::new(
        TooMany,
        "identity.sms_limited",
        "too many messages, wait a little",
    );

    pub(crate) const REGISTRY_UNAVAILABLE: Reason = Reason::new(
        Unavailable,
        "identity.registry_unavailable",
        "services cannot be switched now",
    );
    pub(crate) const HASH_BUSY: Reason = Reason::new(
        Unavailable,
        "identity.hash_busy",
        "too many logins at once, try again",
    );
    pub(crate) const SMS_UNAVAILABLE: Reason = Reason::new(
        Unavailable,
        "identity.sms_unavailable",
        "no message can be sent now",
    );
    pub(crate) const SMS_REFUSED: Reason = Reason::new(
        Invalid,
        "identity.sms_refused",
        "no message can be delivered to this number now",
    );
    pub(crate) const PROVIDER_NOT_SET: Reason = Reason::new(
        Conflict,
        "identity.sms_provider_not_set",
        "the provider is not set up",
    );
    pub(crate) const PHONE_MISSING: Reason = Reason::new(
        Conflict,
        "identity.phone_missing",
        "the own account has no verified phone number",
    );
    pub(crate) const METHOD_OFF: Reason = Reason::new(
        Forbidden,
        "identity.method_off",
        "this way to log in is off",
    );
    pub(crate) const MAIL_OFF: Reason = Reason::new(
        Conflict,
        "identity.mail_off",
        "no mail can be sent: `mail.smtp.*` is not set",
    );
    pub(crate) const MAIL_FAILED: Reason = Reason::new(
        Unavailable,
        "identity.mail_failed",
        "the mail server did not take the mail",
    );
    pub(crate) const REVOCATIONS_STALE: Reason = Reason::new(
        Unavailable,
        "identity.revocations_stale",
        "revocations were not heard of for too long",
    );
    pub(crate) const EXPORT_NOT_READY: Reason = Reason::new(
        Conflict,
        "identity.export_not_ready",
        "the copy is not ready",
    );
    pub(crate) const OBJECTS_UNAVAILABLE: Reason = Reason::new(
        Unavailable,
        "identity.objects_unavailable",
        "the object store cannot be used now",
    );
    pub(crate) const GONE: Reason =
        Reason::new(NotFound, "identity.gone", "this is gone").status(410);
    pub(crate) const SECRET_BROKEN: Reason = Reason::new(
        Internal,
        "system.internal",
        "a stored secret cannot be opened",
    );
}

/// An error of a use-case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the input is not right")]
    Invalid(Vec<FieldFault>),
    #[error("{}", .0.text)]
    Refused(Reason),
    /// The same, and when trying again makes sense.
    #[error("{}", .0.text)]
    Later(Reason, u32),
    /// The same, with further members of the problem.
    #[error("{}", .0.text)]
    With(Reason, Map<String, Value>),
    #[error("the right to do this is missing")]
    Access(Refusal),
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
        Self::Invalid(vec![FieldFault::new(field, code, message)])
    }

    /// The reason, where it is one.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(reason) | Self::Later(reason, _) | Self::With(reason, _) => Some(*reason),
            _ => None,
        }
    }

    /// True when it is this reason.
    pub(crate) fn is(&self, reason: Reason) -> bool {
        self.reason() == Some(reason)
    }
}

impl Fault for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Refused(r) | Self::Later(r, _) | Self::With(r, _) => r.kind,
            Self::Access(Refusal::Missing(_)) => ErrorKind::Forbidden,
            Self::Access(_) => ErrorKind::Unauthenticated,
            Self::Db(error) => error.kind(),
            Self::Audit(_) | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "identity.invalid",
            Self::Refused(r) | Self::Later(r, _) | Self::With(r, _) => r.code,
            Self::Access(Refusal::Missing(_)) => "identity.permission_denied",
            Self::Access(Refusal::Unauthenticated) => "identity.token_missing",
            Self::Access(Refusal::StepUp) => "identity.step_up_required",
            Self::Db(error) => error.code(),
            Self::Audit(_) | Self::Internal(_) => "system.internal",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Refused(r) | Self::Later(r, _) | Self::With(r, _) if r.status != 0 => r.status,
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

    fn members(&self) -> Map<String, Value> {
        match self {
            Self::With(_, members) => members.clone(),
            _ => Map::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Later(_, seconds) => Some(*seconds),
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

impl From<SwitchError> for Error {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::Unknown => reason::NOT_FOUND.into(),
            SwitchError::Fixed => reason::BUILT_IN.into(),
            SwitchError::Refused(refusal) => refusal.into(),
            SwitchError::Failed(cause) => {
                tracing::warn!(err = %cause, "a service could not be switched");
                Self::Later(reason::REGISTRY_UNAVAILABLE, 5)
            }
        }
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
