//! Retention: whole segments between checkpoints are removed when their time has come, oldest first (CT-40).

use std::sync::Arc;

use chrono::Duration;
use portico_base::{Context, id};
use portico_contract::audit::{Change, Record};
use portico_objects::Key;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{export, write};
use crate::domain::record::Entry;
use crate::error::Result;
use crate::hub::Core;
use crate::settings::{ARCHIVE, RETENTION_DAYS};
use crate::store;

/// The action of the records that say so: the chain may begin behind a checkpoint only with one.
pub(crate) const ACTION: &str = "audit.segment.removed";
/// Links that are removed in one transaction, unless a single segment has more.
const BATCH: u64 = 5_000;

/// Removes what is older than the setting says; gives the number of records.
pub(crate) async fn run(core: &Arc<Core>, cx: &Context, cancel: &CancellationToken) -> Result<u64> {
    let days = core.settings.system(&RETENTION_DAYS);
    let before = cx.now() - Duration::days(i64::from(days));
    let mut removed = 0;
    while !cancel.is_cancelled() {
        let conn = core.db.reader();
        let Some(first) = store::chain::first(conn).await? else {
            break;
        };
        // All that it signs was written before it.
        let last = store::chain::last_checkpoint(conn, Some(before)).await?;
        let Some(last) = last.map(|c| c.seq).filter(|seq| *seq >= first) else {
            break;
        };
        let ends = store::chain::checkpoints_between(conn, first, last, 1_000).await?;
        let within = { ends.iter() }.rfind(|c| c.seq - first < BATCH);
        let Some(end) = within.or_else(|| ends.first()).map(|c| c.seq) else {
            break;
        };
        removed += segment(core, cx, first, end).await?;
    }
    Ok(removed)
}

async fn segment(core: &Arc<Core>, cx: &Context, first: u64, end: u64) -> Result<u64> {
    let archive = if core.settings.system(&ARCHIVE) {
        Some(store_segment(core, first, end).await?)
    } else {
        None
    };
    let tx = core.db.begin_durable().await?;
    let removed = store::chain::remove_to(&tx, end).await?;
    let record = Record::done(ACTION, "audit_segment", end.to_string(), id::TENANT_SYSTEM);
    let mut entry = Entry::new(cx, record);
    let change = |path: &str, after: Value| Change {
        path: path.to_owned(),
        before: None,
        after: Some(after),
    };
    entry.changes = vec![
        change("first", first.into()),
        change("count", removed.into()),
    ];
    entry
        .changes
        .extend(archive.map(|key| change("archive", key.into())));
    write::insert(core, &tx, entry).await?;
    tx.commit().await?;
    Ok(removed)
}

/// Writes a segment as an object that verifies by itself; done twice it is the same object.
async fn store_segment(core: &Core, first: u64, end: u64) -> Result<String> {
    let name = format!("audit/{}/{first:012}-{end:012}.jsonl", core.installation);
    let key = Key::new(name.clone())?;
    let mut writer = core.objects.writer(&key, "application/jsonl").await?;
    let mut at = first - 1;
    while at < end {
        let limit = 1_000.min(end - at);
        let part = export::read(&core.db, core.installation, at, limit).await?;
        let mut text = String::new();
        let header = (at + 1 == first).then_some(&part.header);
        for line in header.into_iter().chain(&part.lines) {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        writer.write(text.into()).await?;
        match part.last {
            Some(last) => at = last,
            None => break,
        }
    }
    writer.finish().await?;
    Ok(name)
}
