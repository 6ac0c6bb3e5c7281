//! What a verification found.

use portico_base::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a verification found: everything in order, or the first place where it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditReport)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    /// First link that was looked at.
    pub from_seq: u64,
    /// Last link that was found right.
    pub to_seq: u64,
    /// Records that were hashed again and are as they were sealed.
    pub checked: u64,
    /// Those of them whose private part was taken out, because a person was erased.
    pub redacted: u64,
    /// Signatures that were checked.
    pub checkpoints: u64,
    /// Records that wait to be sealed.
    #[serde(default)]
    pub pending: u64,
    /// The first fault.
    pub fault: Option<Fault>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// The first place where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditFault)]
pub struct Fault {
    /// First bad number of the chain; 0 for a record that is not in the chain.
    pub seq: u64,
    /// What is wrong.
    pub kind: FaultKind,
    /// The record.
    pub record_id: Option<Uuid>,
    /// A sentence for people.
    pub detail: String,
}

/// What can be wrong with the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditFaultKind)]
pub enum FaultKind {
    /// A record was changed after it was sealed.
    RecordAltered,
    /// A sealed record was removed.
    RecordMissing,
    /// A record was put in that nobody sealed.
    RecordInserted,
    /// A row of the chain was changed.
    LinkAltered,
    /// Rows of the chain are missing.
    Gap,
    /// Records or rows changed places.
    Order,
    /// A checkpoint was not signed by the audit key.
    Signature,
    /// A checkpoint was removed.
    CheckpointMissing,
    /// The chain is not the one that was signed.
    Fork,
    /// The end of the chain was cut off.
    CutTail,
    /// The beginning is gone, and no record says that its time had come.
    CutHead,
}

impl Report {
    pub(crate) const fn begin(from_seq: u64) -> Self {
        Self {
            ok: false,
            from_seq,
            to_seq: from_seq - 1,
            checked: 0,
            redacted: 0,
            checkpoints: 0,
            pending: 0,
            fault: None,
            started_at: None,
            finished_at: None,
        }
    }
}

impl Fault {
    pub(crate) fn new(seq: u64, kind: FaultKind, detail: impl Into<String>) -> Self {
        Self {
            seq,
            kind,
            record_id: None,
            detail: detail.into(),
        }
    }

    pub(crate) const fn of(mut self, record: Uuid) -> Self {
        self.record_id = Some(record);
        self
    }
}
