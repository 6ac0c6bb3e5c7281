//! Verification: hashes every sealed record and link again and compares with what was signed (CT-36).

use std::sync::Arc;

use portico_base::{Access, Context, id};
use portico_contract::audit::{BROKEN, Record};
use portico_db::Db;
use portico_jobs::{Job, JobId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{redact, retain, write};
use crate::domain::chain::{Head, Verifier};
use crate::domain::checkpoint::Keys;
use crate::domain::record::Entry;
use crate::domain::report::{Fault, FaultKind, Report};
use crate::error::Result;
use crate::hub::Core;
use crate::permissions::VERIFY;
use crate::store;

/// Kind of the durable job.
pub(crate) const JOB: &str = "audit.verify_now";
/// Links that are read at a time.
const BATCH: u64 = 1_000;
/// Records whose place is looked for at a time.
const STRAYS: u64 = 5_000;

/// Which part of the chain; without numbers all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub from: Option<u64>,
    pub to: Option<u64>,
}

/// Asks for a verification by a job; the result is in the chain's state.
pub(crate) async fn ask(core: &Arc<Core>, cx: &Context, part: Part) -> Result<JobId> {
    cx.authorise(&Access::Permission(VERIFY))?;
    let tx = core.db.begin().await?;
    let job = Job::new(JOB, &part)?.max_tries(3);
    let job = portico_jobs::enqueue(&tx, cx, job).await?;
    let record = Record::done(
        "audit.verification.requested",
        "audit_chain",
        core.installation.to_string(),
        id::TENANT_SYSTEM,
    )
    .change("from", None, part.from.map(Into::into))
    .change("to", None, part.to.map(Into::into));
    write::write(core, &tx, Entry::new(cx, record)).await?;
    tx.commit().await?;
    Ok(job)
}

/// Verifies, and tells everybody what was found.
pub(crate) async fn run(core: &Core, part: Part) -> Result<Report> {
    let started = core.clock.now();
    let mut report = database(&core.db, part).await?;
    let finished = core.clock.now();
    report.started_at = Some(started);
    report.finished_at = Some(finished);
    let told = serde_json::to_value(&report).unwrap_or_default();
    let tx = core.db.begin().await?;
    store::keys::note_verification(&tx, &told, report.ok, finished).await?;
    if let Some(fault) = &report.fault {
        tx.publish(BROKEN, "chain", &told)?;
        core.metrics.failures.inc();
        tracing::error!(seq = fault.seq, kind = ?fault.kind, detail = fault.detail, "the audit chain was touched");
    } else {
        core.metrics.verified(finished);
    }
    tx.commit().await?;
    Ok(report)
}

/// Verifies what a database holds; needs no key but the public ones that are in it.
pub(crate) async fn database(db: &Db, part: Part) -> Result<Report> {
    let report = once(db, part).await?;
    if report.ok {
        return Ok(report);
    }
    // While it was read, a person may have been erased or a segment removed: a real fault is there again.
    once(db, part).await
}

async fn once(db: &Db, part: Part) -> Result<Report> {
    let conn = db.reader();
    let Some(state) = store::keys::state(conn).await? else {
        return Ok(Verifier::new(
            Keys::new(Uuid::nil(), []),
            Head::genesis(Uuid::nil()),
            true,
            None,
        )
        .finish(true));
    };
    let keys = store::keys::list(conn).await?;
    let keys = Keys::new(
        state.installation,
        keys.into_iter().map(|key| (key.key_id, key.public_key)),
    );
    let last = store::chain::last(conn).await?.map_or(0, |head| head.seq);
    let (head, anchored) = match begin(db, &keys, state.installation, part.from).await? {
        Ok(begin) => begin,
        Err(fault) => {
            let mut report = Report::begin(1);
            report.fault = Some(fault);
            return Ok(report);
        }
    };
    let redactions = redact::told(conn).await?;
    let mut verifier = Verifier::new(keys, head, anchored, Some(redactions));
    let whole = part.to.is_none();
    let to = part.to.unwrap_or(last).min(last);
    let mut good = true;
    while good && verifier.seq() < to {
        let from = verifier.seq() + 1;
        let rows = store::chain::rows(conn, from, to, BATCH).await?;
        let Some(end) = rows.last().map(|row| row.seq) else {
            break;
        };
        let signed = store::chain::checkpoints_between(conn, from, end, BATCH).await?;
        verifier.expect(signed);
        good = verifier.rows(&rows);
    }
    if whole {
        let beyond = store::chain::checkpoints_between(conn, last + 1, u64::MAX, 1).await?;
        verifier.expect(beyond);
    }
    let mut report = verifier.finish(whole);
    if report.ok && whole {
        report.fault = stray(db).await?;
        report.ok = report.fault.is_none();
    }
    report.pending = store::records::count_waiting(conn).await?;
    Ok(report)
}

/// Where to begin: behind the genesis, behind the checkpoint that a removed beginning left, or behind any
/// link; with whether that point is a signed one.
async fn begin(
    db: &Db,
    keys: &Keys,
    installation: Uuid,
    from: Option<u64>,
) -> Result<std::result::Result<(Head, bool), Fault>> {
    let conn = db.reader();
    let oldest = match store::chain::first(conn).await? {
        Some(first) => first,
        // Everything was removed in its time, or nothing was ever there.
        None => { store::chain::last_checkpoint(conn, None).await? }.map_or(1, |c| c.seq + 1),
    };
    if let Some(from) = from.filter(|from| *from > oldest) {
        let anchored = store::chain::checkpoint_at(conn, from - 1).await?.is_some();
        let gap = || {
            Fault::new(
                from,
                FaultKind::Gap,
                "there is no link before the first one",
            )
        };
        let head = store::chain::at(conn, from - 1).await?;
        return Ok(head.map(|head| (head, anchored)).ok_or_else(gap));
    }
    if oldest <= 1 {
        return Ok(Ok((Head::genesis(installation), true)));
    }
    let removed = store::records::told(conn, retain::ACTION).await?;
    let by_order = { removed.iter() }.any(|(_, target, _)| *target == (oldest - 1).to_string());
    let kept = store::chain::checkpoint_at(conn, oldest - 1).await?;
    let cut = |detail: &str| Fault::new(1, FaultKind::CutHead, detail);
    Ok(match kept.filter(|checkpoint| keys.verifies(checkpoint)) {
        None => Err(cut(
            "the chain does not begin at a checkpoint of the audit key",
        )),
        Some(_) if !by_order => Err(cut("no record says that the beginning was removed")),
        Some(checkpoint) => checkpoint
            .head()
            .map(|head| (head, true))
            .ok_or_else(|| cut("the first checkpoint's link is not a hash")),
    })
}

/// A record that is neither sealed nor waits to be.
async fn stray(db: &Db) -> Result<Option<Fault>> {
    let mut after = None;
    loop {
        let (strays, last) = store::records::strays(db.reader(), after, STRAYS).await?;
        if let Some(id) = strays.first() {
            let detail = "the record is not in the chain and does not wait to be sealed";
            let fault = Fault::new(0, FaultKind::RecordInserted, detail);
            return Ok(Some(fault.of(*id)));
        }
        match last {
            Some(last) => after = Some(last),
            None => return Ok(None),
        }
    }
}
