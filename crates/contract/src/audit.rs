//! Audit: every change by anyone leaves one record in the transaction of the change (CT-30).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Context, Tx};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Done,
    /// Refused for lack of a right.
    Denied,
    /// Tried and failed.
    Failed,
}

/// What was changed, as the use-case says it; who and when come from the context.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// `registry.service.registered`.
    pub action: &'static str,
    /// Kind of the target (`service`).
    pub target_type: &'static str,
    /// Its id or name.
    pub target: String,
    /// Tenant of the target.
    pub tenant: Uuid,
    /// Changed paths with the value before and after; secrets masked by the caller.
    pub changes: Vec<Change>,
    /// How it ended.
    pub outcome: Outcome,
    /// Error code, when it did not end well.
    pub code: Option<&'static str>,
    /// Reason given by the person.
    pub reason: Option<String>,
    /// What many changes of one order have in common.
    pub batch_id: Option<Uuid>,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Path of the field.
    pub path: String,
    /// Value before; absent when there was none.
    pub before: Option<Value>,
    /// Value after; absent when there is none.
    pub after: Option<Value>,
}

impl Record {
    /// A finished change without details.
    #[must_use]
    pub fn done(
        action: &'static str,
        target_type: &'static str,
        target: impl Into<String>,
        tenant: Uuid,
    ) -> Self {
        Self {
            action,
            target_type,
            target: target.into(),
            tenant,
            changes: Vec::new(),
            outcome: Outcome::Done,
            code: None,
            reason: None,
            batch_id: None,
        }
    }

    /// The same with one more changed path.
    #[must_use]
    pub fn change(mut self, path: &str, before: Option<Value>, after: Option<Value>) -> Self {
        self.changes.push(Change {
            path: path.to_owned(),
            before,
            after,
        });
        self
    }
}

/// The record could not be written; the change must not be either.
#[derive(Debug, thiserror::Error)]
#[error("the audit record could not be written")]
pub struct AuditError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where audit records go.
pub trait AuditSink: Send + Sync {
    /// Writes a record within the transaction of the change.
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        context: &'a Context,
        record: Record,
    ) -> BoxFuture<'a, Result<(), AuditError>>;
}

/// Shared handle.
pub type Audit = Arc<dyn AuditSink>;
