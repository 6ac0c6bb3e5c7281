//! Error kinds: every service maps its own error enum once to an [`ErrorKind`] and a stable dotted code.

use serde::{Deserialize, Serialize};

/// What went wrong, as far as a caller must know to react.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong (400).
    Invalid,
    /// Nobody is known behind the request (401).
    Unauthenticated,
    /// The caller is known and may not (403).
    Forbidden,
    /// There is no such thing, or the caller may not know of it (404).
    NotFound,
    /// The state of the thing forbids it now (409).
    Conflict,
    /// Too much, too fast (429).
    TooMany,
    /// A dependency is away; trying again helps (503).
    Unavailable,
    /// A defect of ours (500).
    Internal,
}

impl ErrorKind {
    /// The HTTP status of the kind; a code may refine it (402, 410, 412, 413, 421, 507).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooMany => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

/// One fault of one input field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldFault {
    /// Path of the field as the caller wrote it (`endpoints[2].path`).
    pub field: String,
    /// Stable code of the fault (`too_long`).
    pub code: String,
    /// A sentence for people, lower case, without full stop.
    pub message: String,
}

impl FieldFault {
    /// A fault of `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// What a service's error enum tells the boundary that answers it.
///
/// Implemented by one enum a service; the boundary (HTTP, gRPC, command line) turns it into its own form.
pub trait Fault: std::error::Error + Send + Sync + 'static {
    /// The kind that decides status and logging.
    fn kind(&self) -> ErrorKind;

    /// Stable dotted code, `service.reason`.
    fn code(&self) -> &'static str;

    /// A refined HTTP status, where the kind's own is not exact enough.
    fn status(&self) -> u16 {
        self.kind().status()
    }

    /// All faults of the input, for [`ErrorKind::Invalid`].
    fn fields(&self) -> &[FieldFault] {
        &[]
    }

    /// Further members of the problem, where the code promises some.
    fn members(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::Map::new()
    }

    /// Seconds after which trying again makes sense.
    fn retry_after_s(&self) -> Option<u32> {
        None
    }
}
