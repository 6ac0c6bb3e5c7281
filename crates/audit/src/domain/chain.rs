//! The chain of hashes over records, and the verifier that finds where somebody touched it (P§14, CT-36).

use std::collections::{BTreeMap, HashMap, HashSet};

use portico_base::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::checkpoint::{Checkpoint, Keys};
use super::record::{Hash, Stored, record_hash};
use super::report::{Fault, FaultKind, Report};

/// What the first link stands on.
pub(crate) fn genesis(installation: Uuid) -> Hash {
    Sha256::new()
        .chain_update("portico/audit/1/genesis\n")
        .chain_update(installation.to_string())
        .finalize()
        .into()
}

/// The link with number `seq` behind `before`.
pub(crate) fn link(before: &Hash, seq: u64, record: &Hash) -> Hash {
    Sha256::new()
        .chain_update("portico/audit/1/link\n")
        .chain_update(before)
        .chain_update(seq.to_be_bytes())
        .chain_update(record)
        .finalize()
        .into()
}

/// Where the chain ends, or where a verification begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub seq: u64,
    pub link: Hash,
}

impl Head {
    /// Before the first link.
    pub(crate) fn genesis(installation: Uuid) -> Self {
        Self {
            seq: 0,
            link: genesis(installation),
        }
    }

    /// The head behind one more record.
    pub(crate) fn next(&self, record: &Hash) -> Self {
        let seq = self.seq + 1;
        Self {
            seq,
            link: link(&self.link, seq, record),
        }
    }
}

/// A row of the chain, with the record that it names where that is there.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub seq: u64,
    pub record_id: Uuid,
    pub record_hash: Vec<u8>,
    pub link: Vec<u8>,
    pub record: Found,
}

/// What is behind a link.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// The record.
    Record(Box<Stored>),
    /// A row whose columns cannot be read as what they are.
    Unreadable(String),
    /// Nothing.
    Nothing,
}

/// Which records' private parts were taken out in order, by the moment of it.
pub(crate) type Redactions = HashMap<Timestamp, HashSet<Uuid>>;

/// Walks along the chain; stops at the first fault.
pub(crate) struct Verifier {
    keys: Keys,
    head: Head,
    /// Checkpoints that are still ahead.
    checkpoints: BTreeMap<u64, Checkpoint>,
    /// The last checkpoint that was passed, or the genesis.
    passed: Option<u64>,
    /// Which private parts were taken out in order; nothing where that is not known.
    redactions: Option<Redactions>,
    report: Report,
}

impl Verifier {
    /// A verifier that begins behind `head`; `anchored`: that is the genesis or a checkpoint.
    pub(crate) fn new(
        keys: Keys,
        head: Head,
        anchored: bool,
        redactions: Option<Redactions>,
    ) -> Self {
        Self {
            keys,
            head,
            checkpoints: BTreeMap::new(),
            passed: anchored.then_some(head.seq),
            redactions,
            report: Report::begin(head.seq + 1),
        }
    }

    /// Adds the checkpoints of the part that is looked at.
    pub(crate) fn expect(&mut self, checkpoints: impl IntoIterator<Item = Checkpoint>) {
        let seq = self.head.seq;
        let ahead = checkpoints.into_iter().filter(|c| c.seq > seq);
        self.checkpoints.extend(ahead.map(|c| (c.seq, c)));
    }

    /// Number of the last link that was found right.
    pub(crate) const fn seq(&self) -> u64 {
        self.head.seq
    }

    /// Looks at the next rows, which are in order. False once something is wrong.
    pub(crate) fn rows(&mut self, rows: &[Row]) -> bool {
        for (at, row) in rows.iter().enumerate() {
            if let Some(fault) = self.row(row, &rows[at + 1..]) {
                self.report.fault = Some(fault);
                return false;
            }
        }
        true
    }

    /// The result. `whole`: the chain ends here, so that checkpoints beyond say that its tail was cut.
    pub(crate) fn finish(mut self, whole: bool) -> Report {
        if self.report.fault.is_none()
            && whole
            && let Some(seq) = self.checkpoints.keys().next()
        {
            let detail = format!("a checkpoint was signed at {seq}, and the chain ends before it");
            self.report.fault = Some(Fault::new(self.head.seq + 1, FaultKind::CutTail, detail));
        }
        self.report.to_seq = self.head.seq;
        self.report.ok = self.report.fault.is_none();
        self.report
    }

    fn row(&mut self, row: &Row, later: &[Row]) -> Option<Fault> {
        let wanted = self.head.seq + 1;
        let fault = |kind, detail: &str| Some(Fault::new(wanted, kind, detail).of(row.record_id));
        if row.seq != wanted {
            let detail = format!("link {wanted} is missing, the next one is {}", row.seq);
            return Some(Fault::new(wanted, FaultKind::Gap, detail));
        }
        let record = match &row.record {
            Found::Record(record) => record,
            Found::Unreadable(why) => return fault(FaultKind::RecordAltered, why),
            Found::Nothing => return fault(FaultKind::RecordMissing, "the record is not there"),
        };
        let hash = record_hash(&record.public);
        let next = self.head.next(&hash);
        if row.record_hash != hash {
            return if row.link == next.link {
                fault(
                    FaultKind::LinkAltered,
                    "the record's hash in the chain was altered",
                )
            } else if later.iter().any(|l| l.record_hash == hash) {
                fault(
                    FaultKind::Order,
                    "the record belongs to another place of the chain",
                )
            } else {
                fault(
                    FaultKind::RecordAltered,
                    "the record is not the one that was sealed",
                )
            };
        }
        if row.link != next.link {
            let moved = |l: &Row| {
                let hash = Hash::try_from(&*l.record_hash).ok();
                hash.is_some_and(|hash| l.link == self.head.next(&hash).link)
            };
            return if later.iter().any(moved) {
                fault(FaultKind::Order, "a later link belongs here")
            } else {
                fault(
                    FaultKind::LinkAltered,
                    "the link does not follow from the one before",
                )
            };
        }
        let redactions = self.redactions.as_ref();
        let in_order = |at| {
            let named =
                |known: &Redactions| known.get(&at).is_some_and(|ids| ids.contains(&record.id));
            redactions.is_none_or(named)
        };
        if let Some(detail) = record.fault(in_order) {
            return fault(FaultKind::RecordAltered, &detail);
        }
        self.report.checked += 1;
        self.report.redacted += u64::from(record.private.is_none());
        self.head = next;
        self.checkpoint()
    }

    /// Compares with what was signed here, if anything was.
    fn checkpoint(&mut self) -> Option<Fault> {
        let checkpoint = self.checkpoints.remove(&self.head.seq)?;
        let seq = self.head.seq;
        if !self.keys.verifies(&checkpoint) {
            let detail = "the checkpoint's signature is not of the audit key";
            return Some(Fault::new(seq, FaultKind::Signature, detail));
        }
        let from = self
            .passed
            .map_or(self.report.from_seq, |passed| passed + 1);
        if checkpoint.link != self.head.link {
            let detail = format!("the chain from {from} to {seq} is not the one that was signed");
            return Some(Fault::new(from, FaultKind::Fork, detail));
        }
        if self.passed.is_some() && from + checkpoint.count != seq + 1 {
            let detail = format!(
                "the checkpoint stands for {} links, and the one before it is not there",
                checkpoint.count
            );
            return Some(Fault::new(from, FaultKind::CheckpointMissing, detail));
        }
        self.passed = Some(seq);
        self.report.checkpoints += 1;
        None
    }
}
