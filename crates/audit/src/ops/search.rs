//! Searching records, newest first (CT-38).

use portico_base::{Access, Context, Timestamp};
use portico_contract::audit::{Change, Entries, Entry, Filter};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::record::Stored;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::permissions::{READ, READ_ALL};
use crate::store;
use crate::store::search::{After, Found, is_indexed};

/// Records that one look goes through for what no index knows.
const STRETCH: u64 = 5_000;
/// Looks of one page; then it says where to go on.
const LOOKS: usize = 4;
/// Actions that one prefix is looked for as.
const ACTIONS: u64 = 16;
/// Newest records in which a prefix finds actions that no list knows yet.
const FRESH: u64 = 200;
/// Most spans of a histogram.
pub(crate) const SPANS: usize = 120;

/// A page of records that the caller may see.
pub(crate) async fn list(
    core: &Core,
    cx: &Context,
    mut filter: Filter,
    after: Option<After>,
    limit: usize,
) -> Result<Entries> {
    filter.tenant = scope(cx, filter.tenant)?;
    find(core, &filter, after, limit).await
}

/// One record that the caller may see, with its two parts as they were hashed.
pub(crate) async fn get(core: &Core, cx: &Context, id: Uuid) -> Result<(Entry, Stored)> {
    let tenant = scope(cx, None)?;
    let found = store::records::get(core.db.reader(), tenant, id).await?;
    let found = found.ok_or(Error::UnknownRecord)?;
    Ok((entry(&found), found.0))
}

/// How many records fall into each of `spans` equal parts of a time.
pub(crate) async fn histogram(
    core: &Core,
    cx: &Context,
    mut filter: Filter,
    (from, to): (Timestamp, Timestamp),
    spans: usize,
) -> Result<Vec<(Timestamp, u64)>> {
    filter.tenant = scope(cx, filter.tenant)?;
    let whole = (to - from).num_microseconds().unwrap_or(i64::MAX);
    let count = i64::try_from(spans.clamp(1, SPANS)).unwrap_or(1);
    if whole <= 0 {
        return Err(Error::field("to", "order", "must be behind `from`"));
    }
    let edge = |n: i64| from + chrono::Duration::microseconds(whole / count * n);
    let spans: Vec<_> = (0..count)
        .map(|n| (edge(n), if n + 1 == count { to } else { edge(n + 1) }))
        .collect();
    let counts = store::search::counts(core.db.reader(), &filter, &spans).await?;
    Ok(spans.into_iter().map(|span| span.0).zip(counts).collect())
}

/// Names of actions that there are records of.
pub(crate) async fn actions(
    core: &Core,
    cx: &Context,
    tenant: Option<Uuid>,
    prefix: &str,
) -> Result<Vec<String>> {
    let tenant = scope(cx, tenant)?;
    Ok(store::actions::list(core.db.reader(), tenant, prefix, 1_000).await?)
}

/// The tenant whose records a caller sees: the own one, or any for whoever may see all.
pub(crate) fn scope(cx: &Context, wanted: Option<Uuid>) -> Result<Option<Uuid>> {
    cx.authorise(&Access::Permission(READ))?;
    if cx.principal().may(&READ_ALL) {
        return Ok(wanted);
    }
    let own = cx.tenant();
    match wanted {
        Some(other) if other != own => {
            let message = "records of other tenants are not for you";
            Err(Error::field("tenant", "unknown", message))
        }
        _ => Ok(Some(own)),
    }
}

/// A part of a search without regard to whoever asks.
pub(crate) async fn find(
    core: &Core,
    filter: &Filter,
    after: Option<After>,
    limit: usize,
) -> Result<Entries> {
    if let Some(prefix) = filter
        .action_prefix
        .as_deref()
        .filter(|_| is_indexed(filter))
    {
        let known = { core.db.reader() };
        let actions = store::actions::list(known, filter.tenant, prefix, ACTIONS + 1).await?;
        if actions.len() as u64 <= ACTIONS {
            return by_actions(core, filter, &actions, after, limit).await;
        }
    } else if is_indexed(filter) {
        let select = store::search::page(filter, after, None, limit as u64 + 1);
        let found = store::search::found(core.db.reader(), &select).await?;
        return Ok(cut(found, limit));
    }
    by_stretches(core, filter, after, limit).await
}

/// One question for each action that a prefix means: each is answered by the index, newest first.
async fn by_actions(
    core: &Core,
    filter: &Filter,
    actions: &[String],
    after: Option<After>,
    limit: usize,
) -> Result<Entries> {
    let mut found = Vec::new();
    let mut exact = filter.clone();
    exact.action_prefix = None;
    for action in actions {
        exact.action = Some(action.clone());
        let select = store::search::page(&exact, after, None, limit as u64 + 1);
        found.extend(store::search::found(core.db.reader(), &select).await?);
    }
    if after.is_none() {
        let newest = store::search::stretch(filter, None, FRESH);
        let down_to = store::search::end_of(core.db.reader(), &newest).await?;
        let select = store::search::page(filter, None, down_to, limit as u64 + 1);
        found.extend(store::search::found(core.db.reader(), &select).await?);
    }
    found.sort_by_key(|(record, _)| std::cmp::Reverse((record.at, record.id)));
    found.dedup_by_key(|(record, _)| record.id);
    Ok(cut(found, limit))
}

/// Looks through bounded stretches, so that a question that finds little does not read everything at once.
async fn by_stretches(
    core: &Core,
    filter: &Filter,
    mut after: Option<After>,
    limit: usize,
) -> Result<Entries> {
    let mut found: Vec<Found> = Vec::new();
    for _ in 0..LOOKS {
        let stretch = store::search::stretch(filter, after, STRETCH);
        let end = store::search::end_of(core.db.reader(), &stretch).await?;
        let left = limit + 1 - found.len();
        let select = store::search::page(filter, after, end, left as u64);
        found.extend(store::search::found(core.db.reader(), &select).await?);
        if found.len() > limit || end.is_none() {
            return Ok(cut(found, limit));
        }
        after = end;
    }
    let mut part = cut(found, limit);
    part.next = after;
    Ok(part)
}

fn cut(mut found: Vec<Found>, limit: usize) -> Entries {
    let more = found.len() > limit;
    found.truncate(limit);
    Entries {
        next: { found.last() }
            .filter(|_| more)
            .map(|(record, _)| (record.at, record.id)),
        items: found.iter().map(entry).collect(),
    }
}

/// A record as others read it.
pub(crate) fn entry((record, seq): &Found) -> Entry {
    let private: Value = { record.private.as_deref() }
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let text = |name: &str| private[name].as_str().map(str::to_owned);
    let value = |value: &Value| Some(value.clone()).filter(|value| !value.is_null());
    let changes = private["changes"].as_array().map_or_else(Vec::new, |all| {
        { all.iter() }
            .map(|change| Change {
                path: change["path"].as_str().unwrap_or_default().to_owned(),
                before: value(&change["before"]),
                after: value(&change["after"]),
            })
            .collect()
    });
    Entry {
        id: record.id,
        seq: *seq,
        at: record.at,
        tenant: record.tenant,
        actor_kind: record.actor_kind.clone(),
        actor_id: record.actor_id.clone(),
        action: record.action.clone(),
        target_type: record.target_type.clone(),
        target_id: record.target_id.clone(),
        request_id: record.request_id.clone(),
        trace_id: record.trace_id.clone(),
        outcome: record.outcome.clone(),
        code: record.error_code.clone(),
        ip: record.ip.clone(),
        agent: text("user_agent"),
        reason: text("reason"),
        changes,
        truncated: private["truncated"].as_bool().unwrap_or(false),
        batch_id: record.batch,
        redacted_at: record.redacted_at,
    }
}
