//! Copies of a person's data, and how far an erasure is.

use portico_base::{Principal, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PersonalExportState)]
pub(crate) enum ExportState {
    /// It is being made.
    Waiting,
    /// It can be fetched.
    Ready,
    /// It could not be made.
    Failed,
}

impl ExportState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Ready, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A copy of a person's data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Export {
    pub id: Uuid,
    pub tenant: Uuid,
    /// Whose data it is.
    pub user: Uuid,
    /// Who asked for it and alone may fetch it.
    pub requester: String,
    pub reason: Option<String>,
    pub state: ExportState,
    /// Name of the object.
    pub object: String,
    pub bytes: Option<i64>,
    pub sha256: Option<String>,
    /// Services that had something about the person.
    pub parts: Vec<String>,
    pub created_at: Timestamp,
    pub ready_at: Option<Timestamp>,
    pub expires_at: Timestamp,
}

/// A principal as the one who asks for copies; an API key of a person is not that person.
pub(crate) fn requester(principal: &Principal) -> String {
    format!("{}:{}", principal.kind.as_str(), principal.subject)
}

/// Who wanted an account to be erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ErasureCause)]
pub(crate) enum Cause {
    /// Its owner.
    User,
    Admin,
    /// The provider of the identity that it was made with.
    Provider,
}

impl Cause {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::Provider => "provider",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Admin, Self::Provider]
            .into_iter()
            .find(|cause| cause.as_str() == text)
    }
}

/// An erasure that has begun.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Erasure {
    pub user: Uuid,
    pub tenant: Uuid,
    pub cause: Cause,
    pub reason: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// How far a service's part of an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ErasurePartState)]
pub(crate) enum TaskState {
    Waiting,
    Done,
    /// It did not work the last time; it is tried again.
    Failed,
}

impl TaskState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Done, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// One service's part of an erasure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub service: String,
    pub state: TaskState,
    /// Runs so far.
    pub tries: u32,
    pub last_error: Option<String>,
    pub updated_at: Timestamp,
}
