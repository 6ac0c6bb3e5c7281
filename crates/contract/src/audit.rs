//! Audit: every change by anyone leaves one record in the transaction of the change (CT-30).

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Context, Timestamp, Tx};
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

/// Outbox topic of sealed records. The payload is the number of the last one; followers read by number.
pub const RECORDED: &str = "audit.recorded";

/// Outbox topic of a verification that found the chain touched, with its report.
pub const BROKEN: &str = "audit.broken";

/// Which records are looked for; what is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Records of one tenant; without it of all.
    pub tenant: Option<Uuid>,
    /// Id of whoever acted.
    pub actor: Option<String>,
    /// An action by its whole name.
    pub action: Option<String>,
    /// Actions that begin with this.
    pub action_prefix: Option<String>,
    /// Kind of the target.
    pub target_type: Option<String>,
    /// Id of the target.
    pub target_id: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Address of the caller.
    pub ip: Option<IpAddr>,
    /// Id of the request.
    pub request_id: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// A changed path.
    pub path: Option<String>,
}

/// A record as it was written, for services that read records (rules, exports).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its id.
    pub id: Uuid,
    /// Its number in the chain; absent for about a second.
    pub seq: Option<u64>,
    /// When.
    pub at: Timestamp,
    /// Tenant of the target.
    pub tenant: Uuid,
    /// Kind of whoever acted, as logs write it.
    pub actor_kind: String,
    /// Its id.
    pub actor_id: String,
    /// `identity.user.disabled`.
    pub action: String,
    /// Kind of the target.
    pub target_type: String,
    /// Its id or name.
    pub target_id: String,
    /// Id of the request.
    pub request_id: String,
    /// Trace of the request.
    pub trace_id: Option<String>,
    /// `success`, `denied` or `failed`.
    pub outcome: String,
    /// Error code, when it did not end well.
    pub code: Option<String>,
    /// Address of the caller.
    pub ip: Option<String>,
    /// `User-Agent` of the caller.
    pub agent: Option<String>,
    /// Reason given by the person.
    pub reason: Option<String>,
    /// Changed paths; a record that stands for many has `count` among them.
    pub changes: Vec<Change>,
    /// Some changes were left out, because they were too long.
    pub truncated: bool,
    /// What many changes of one order have in common.
    pub batch_id: Option<Uuid>,
    /// When what is private was taken out, because a person was erased.
    pub redacted_at: Option<Timestamp>,
}

/// A part of a search, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entries {
    /// The records; may be fewer than asked for although there are more.
    pub items: Vec<Entry>,
    /// Where the next part begins; absent at the end.
    pub next: Option<(Timestamp, Uuid)>,
}

/// Reads records. Provided by the audit service; whoever asks has checked the caller's rights and put the
/// tenant into the filter.
pub trait AuditTrail: Send + Sync {
    /// Number of the last sealed record.
    fn head(&self) -> BoxFuture<'_, Result<u64, AuditError>>;

    /// Sealed records behind a number, in their order, at most `limit` (and at most 1,000).
    fn sealed(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, AuditError>>;

    /// The next part of a search, newest first, at most `limit` (and at most 1,000) records.
    fn search<'a>(
        &'a self,
        filter: &'a Filter,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Entries, AuditError>>;
}
