//! What is known after a start: how a restore ended, and which backups really lie where they are kept. The
//! table came out of a backup itself, so it is the files that are right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portico_backup::{Outcome, file_name};
use portico_base::{Caller, Context, Principal, id};
use portico_contract::audit::Record;
use portico_objects::{Key, Meta};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::store::{self, Row};
use super::work::{self, to_i64};
use crate::error::Result;
use crate::hub::Core;
use crate::unit::Unit;

/// Backups that are looked at.
const LOOK: u64 = 10_000;
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Does it once, after a start, trying again while the database is away.
pub(crate) async fn settle_once(core: Arc<Core>, stop: CancellationToken) {
    let cx = Context {
        caller: Caller::internal(Principal::system(), "backup.settle"),
        clock: Arc::clone(&core.clock),
        random: Arc::clone(&core.random),
    };
    while let Err(error) = settle(&core, &cx).await {
        tracing::warn!(err = %error, "backups could not be looked at");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Takes note of files without a row, of rows without a file, and of the restore that was done before this
/// start.
pub(crate) async fn settle(core: &Arc<Core>, cx: &Context) -> Result<()> {
    if let Some(files) = files(core).await {
        compare(core, cx, files).await?;
    }
    outcome(core, cx).await?;
    work::refresh(core).await
}

/// The files, by name; nothing when the place cannot be read now.
async fn files(core: &Core) -> Option<BTreeMap<Key, Meta>> {
    let store = core.backups.store().ok()?;
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.list(None, after.as_ref(), 1_000).await.ok()?;
        let backups = page.items.into_iter();
        all.extend(backups.map(|meta| (meta.key.clone(), meta)));
        after = page.next;
        if after.is_none() || all.len() as u64 > LOOK {
            return Some(all);
        }
    }
}

async fn compare(core: &Arc<Core>, cx: &Context, mut files: BTreeMap<Key, Meta>) -> Result<()> {
    let here = core.backups.node();
    for row in store::list(core.db.reader(), None, LOOK).await? {
        let there = Key::new(&*row.location).is_ok_and(|key| files.remove(&key).is_some());
        let mine = row.node.is_none() || row.node == here;
        let change = match (row.state.as_str(), there) {
            ("done", false) if mine => ("done", "missing"),
            ("missing", true) => ("missing", "done"),
            // It was being restored when the database was replaced by this one, or the process died.
            ("restoring", true)
                if portico_backup::Pending::find(&core.backups.data_dir)
                    .is_ok_and(|p| p.is_none()) =>
            {
                ("restoring", "done")
            }
            _ => continue,
        };
        let unit = Unit::begin(core, cx).await?;
        store::set(&unit.tx, row.id, &[change.0], [("state", change.1.into())]).await?;
        unit.commit().await?;
    }
    for (key, meta) in files {
        if let Some(row) = found(core, &key, &meta).await {
            let unit = Unit::begin(core, cx).await?;
            store::insert(&unit.tx, &row).await?;
            unit.commit().await?;
        }
    }
    Ok(())
}

/// A file that nobody knows becomes a row, if it is a backup that can be opened.
async fn found(core: &Core, key: &Key, meta: &Meta) -> Option<Row> {
    let manifest = work::manifest(core, key).await?;
    let taken = manifest.objects;
    let mut row = work::new_row(core, manifest.id, "found", taken, "found", manifest.made_at);
    row.location = key.to_string();
    row.state = "done".to_owned();
    row.bytes = Some(to_i64(meta.size));
    row.db_version = Some(manifest.version);
    row.ended_at = Some(meta.modified);
    // A scheduled one keeps its place in the order of scheduled ones.
    if row.location == file_name(row.id, row.at) {
        row.asked_by = "restore".to_owned();
    }
    Some(row)
}

/// Notes how the restore before this start ended: in the row, in the audit, as an event.
async fn outcome(core: &Arc<Core>, cx: &Context) -> Result<()> {
    let data_dir = &core.backups.data_dir;
    let Ok(Some(outcome)) = Outcome::find(data_dir) else {
        return Ok(());
    };
    let now = cx.now();
    let id = outcome.order.backup;
    let unit = Unit::begin(core, cx).await?;
    let mut values = vec![("error", outcome.error.clone().into())];
    if let Some(report) = &outcome.report {
        let mut shown = serde_json::to_value(report).unwrap_or_default();
        shown["good"] = report.is_good().into();
        shown["replaced"] = outcome.replaced.clone().into();
        shown["safety"] = outcome.order.safety.clone().into();
        values.extend([("report", shown.into()), ("restored_at", now.into())]);
    }
    let states = [
        "waiting",
        "running",
        "done",
        "verifying",
        "restoring",
        "missing",
    ];
    store::set(&unit.tx, id, &states, values).await?;
    let tenant = id::TENANT_SYSTEM;
    let mut record = Record::done("control.backup.restored", "backup", id.to_string(), tenant)
        .change(
            "location",
            None,
            Some(outcome.order.location.as_str().into()),
        )
        .change(
            "asked_by",
            None,
            Some(outcome.order.asked_by.as_str().into()),
        )
        .change("safety", None, Some(outcome.order.safety.as_str().into()))
        .change("rows", None, outcome.report.as_ref().map(|r| json!(r.rows)));
    if outcome.error.is_some() {
        record.outcome = portico_contract::audit::Outcome::Failed;
        record.code = Some("control.restore_failed");
    }
    unit.audit(record).await?;
    let (topic, news) = match &outcome.error {
        None => ("backup.restored", json!({ "id": id })),
        Some(_) => ("backup.failed", json!({ "id": id })),
    };
    unit.tx.publish(topic, &id.to_string(), &news)?;
    unit.commit().await?;
    // Noted twice is better than not at all: the file goes last.
    if let Err(error) = Outcome::forget(data_dir) {
        tracing::warn!(err = %error, "the word of the restore stays");
    }
    Ok(())
}

/// Size of a file that is there.
pub(super) async fn looked_at(core: &Core, location: &str) -> Option<u64> {
    let store = core.backups.store().ok()?;
    let meta = store.head(&Key::new(location).ok()?).await.ok()?;
    Some(meta.size)
}
