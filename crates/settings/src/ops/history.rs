//! History and differences of settings (CT-7, CT-8).

use portico_base::Context;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::scope::{named, need};
use crate::domain::diff::{Diff, diff};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::permissions::VALUE_READ;
use crate::store;
use crate::store::history::Version;
use crate::store::sets::ChangeSet;
use crate::views::HistoryEntry;

const UNKNOWN_VERSION: Error = Error::NotFound(
    "settings.version_not_found",
    "there is no such version of this setting",
);

/// The scope of a reader of the past, who holds the permission.
fn reader(cx: &Context, scope: Option<&str>) -> Result<Uuid> {
    need(cx, &VALUE_READ)?;
    named(cx, scope)
}

/// Versions of a key below one, newest first, at most `limit` and one more.
pub(crate) async fn page(
    core: &Core,
    cx: &Context,
    scope: Option<&str>,
    key: &str,
    below: Option<u64>,
    limit: usize,
) -> Result<Vec<HistoryEntry>> {
    let scope = reader(cx, scope)?;
    // Two more: the last one that is shown has one before it.
    let wanted = limit as u64 + 2;
    let conn = core.db.reader();
    let found = store::history::page(conn, &core.keys, (scope, key), below, wanted).await?;
    if found.is_empty() && core.catalogue.get(key, scope).is_none() {
        return Err(Error::unknown(key));
    }
    let entry = |i: usize| HistoryEntry::of(&found[i], found.get(i + 1));
    Ok((0..found.len().min(limit + 1)).map(entry).collect())
}

/// The difference of two versions; version 0 is that nothing was set.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingDiff)]
pub(crate) struct Difference {
    pub key: String,
    pub from: u64,
    pub to: u64,
    /// `{"kind": "paths", "changes": [{path, before, after}]}` or `{"kind": "lines", "lines": [{op, text}]}`;
    /// of a secret the fingerprints.
    #[schema(value_type = Object)]
    pub diff: Diff,
}

/// Compares two versions of a key.
pub(crate) async fn difference(
    core: &Core,
    cx: &Context,
    scope: Option<&str>,
    key: &str,
    from: u64,
    to: u64,
) -> Result<Difference> {
    let scope = reader(cx, scope)?;
    let (before, after) = (
        value(core, scope, key, from).await?,
        value(core, scope, key, to).await?,
    );
    Ok(Difference {
        key: key.to_owned(),
        from,
        to,
        diff: diff(before.as_ref(), after.as_ref()),
    })
}

async fn value(core: &Core, scope: Uuid, key: &str, version: u64) -> Result<Option<Value>> {
    if version == 0 {
        return Ok(None);
    }
    let conn = core.db.reader();
    let found = store::history::get(conn, &core.keys, scope, key, version).await?;
    let found = found.ok_or(UNKNOWN_VERSION)?;
    Ok(if found.secret {
        found.fingerprint.map(Value::String)
    } else {
        found.value.as_deref().cloned()
    })
}

/// Change sets below a position, newest first, at most `limit` and one more.
pub(crate) async fn sets(
    core: &Core,
    cx: &Context,
    scope: Option<&str>,
    below: Option<u64>,
    limit: usize,
) -> Result<Vec<ChangeSet>> {
    let scope = reader(cx, scope)?;
    let conn = core.db.reader();
    Ok(store::sets::page(conn, scope, below, limit as u64 + 1).await?)
}

/// One change set with what it wrote.
pub(crate) async fn set(
    core: &Core,
    cx: &Context,
    scope: Option<&str>,
    id: Uuid,
) -> Result<(ChangeSet, Vec<HistoryEntry>)> {
    let scope = reader(cx, scope)?;
    let conn = core.db.reader();
    let set = store::sets::get(conn, scope, id)
        .await?
        .ok_or(Error::NotFound(
            "settings.change_not_found",
            "there is no such change set",
        ))?;
    let mut entries = Vec::new();
    for version in store::history::of_set(conn, &core.keys, scope, id).await? {
        let earlier = version.version - 1;
        let before: Option<Version> =
            store::history::get(conn, &core.keys, scope, &version.key, earlier).await?;
        entries.push(HistoryEntry::of(&version, before.as_ref()));
    }
    Ok((set, entries))
}
