//! `/changes`: changing settings together, and what was changed.

use axum::extract::{Path, State};
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::values::ScopeQuery;
use super::{Api, Doorman};
use crate::domain::state::Author;
use crate::error::{Error, Result};
use crate::ops::change::{self, Done};
use crate::ops::history;
use crate::ops::plan::{Wish, Wished};
use crate::ops::scope::{named, word};
use crate::permissions::{VALUE_READ, VALUE_WRITE};
use crate::store::sets::ChangeSet;
use crate::views::HistoryEntry;

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(VALUE_WRITE), routes!(apply))
        .add(Access::Permission(VALUE_READ), routes!(list))
        .add(Access::Permission(VALUE_READ), routes!(get))
}

/// Settings to change together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SettingsChange)]
struct Body {
    /// `system`, or a tenant's id; absent: the own.
    #[serde(default)]
    scope: Option<String>,
    /// At most 100 keys.
    changes: Vec<Key>,
    /// For the history and the audit.
    #[serde(default)]
    comment: Option<String>,
    /// The position that keys without a version are based on: `seq` of what was read.
    #[serde(default)]
    base_seq: Option<u64>,
    /// Checks everything and writes nothing.
    #[serde(default)]
    dry_run: bool,
    /// Said for settings that ask for it.
    #[serde(default)]
    confirm: bool,
}

/// One key to change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SettingsChangeKey)]
struct Key {
    key: String,
    /// The new value.
    #[serde(default, deserialize_with = "some")]
    value: Option<Value>,
    /// Back to what holds without a value here.
    #[serde(default)]
    reset: bool,
    /// The version that the change is based on; 0 for a key that was never set in this scope.
    #[serde(default)]
    version: Option<u64>,
}

/// A value that is there, null included.
fn some<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// What was changed, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsChanged)]
pub(super) struct Answer {
    /// Id of the change set; absent when nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    /// Position of the change, or the present one.
    seq: u64,
    dry_run: bool,
    /// Keys that are different now, secrets by their fingerprints.
    #[schema(value_type = Vec<ChangedKey>)]
    changed: Vec<change::Changed>,
}

/// A changed key, for the documentation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedKey)]
struct ChangedKey {
    key: String,
    /// The new version.
    version: u64,
    before: Option<Value>,
    after: Option<Value>,
}

impl From<Done> for Answer {
    fn from(done: Done) -> Self {
        Self {
            id: done.id,
            seq: done.seq,
            dry_run: done.dry_run,
            changed: done.changed,
        }
    }
}

fn wish(cx: &portico_base::Context, body: Body) -> Result<Wish> {
    let scope = named(cx, body.scope.as_deref())?;
    let mut faults = Vec::new();
    let mut changes = Vec::new();
    for one in body.changes {
        if one.reset == one.value.is_some() {
            let message = "needs either a value or `reset`: true";
            faults.push(portico_base::FieldFault::new(
                &*one.key,
                "value_missing",
                message,
            ));
        }
        changes.push(Wished {
            key: one.key,
            to: one.value,
            base: one.version,
            rolled_back_from: None,
        });
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    Ok(Wish {
        scope,
        changes,
        comment: body.comment,
        base_seq: body.base_seq,
        confirm: body.confirm,
        dry_run: body.dry_run,
        reverts: None,
    })
}

/// Change settings
///
/// All of them or none: every fault comes back at once, and with `dry_run` nothing is written. Each key says
/// which version it is based on (or `base_seq` for all); who was overtaken gets 409 with both sides.
#[utoipa::path(post, path = "/changes", tag = "settings", request_body = Body,
    responses((status = 200, body = Answer), (status = 400, description = "every fault"), (status = 404, description = "keys that nobody declares"), (status = 409, description = "changed in between: `conflicts` with a three-way difference")))]
async fn apply(
    State(core): State<Api>,
    Cx(cx): Cx,
    doorman: Doorman,
    Json(body): Json<Body>,
) -> ApiResult<Json<Answer>> {
    let done = match wish(&cx, body) {
        Ok(wish) => change::change(&core, &cx, &wish).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(done) => Ok(Json(done.into())),
        Err(error) => Err(doorman.tell(&cx, error).await),
    }
}

/// A change set.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsChangeSet)]
struct Shown {
    id: Uuid,
    seq: u64,
    /// `system`, or the tenant's id.
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    actor: Author,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The set that this one took back.
    #[serde(skip_serializing_if = "Option::is_none")]
    reverts: Option<Uuid>,
    /// What it wrote; of a single set only.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<HistoryEntry>>,
}

impl From<ChangeSet> for Shown {
    fn from(set: ChangeSet) -> Self {
        Self {
            id: set.id,
            seq: set.seq,
            scope: word(set.scope),
            comment: set.comment,
            actor: set.actor,
            at: set.at,
            reverts: set.reverts,
            entries: None,
        }
    }
}

/// Which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `system`, or a tenant's id; absent: the own.
    scope: Option<String>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List change sets
///
/// Newest first.
#[utoipa::path(get, path = "/changes", tag = "settings", params(ListQuery),
    responses((status = 200, body = Page<Shown>)))]
async fn list(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<Shown>>> {
    let limit = portico_web::page::limit(query.limit)?;
    let below = query
        .cursor
        .as_deref()
        .map(Cursor::<u64>::decode)
        .transpose()?;
    let scope = query.scope.as_deref();
    let found = history::sets(&core, &cx, scope, below.map(|c| c.0), limit).await?;
    let items: Vec<Shown> = found.into_iter().map(Shown::from).collect();
    Ok(Json(Page::cut(items, limit, |s| s.seq)))
}

/// Read a change set
///
/// With every key that it wrote.
#[utoipa::path(get, path = "/changes/{id}", tag = "settings", params(ScopeQuery, ("id" = Uuid, Path, description = "the set")),
    responses((status = 200, body = Shown), (status = 404, description = "unknown")))]
async fn get(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
    Query(query): Query<ScopeQuery>,
) -> ApiResult<Json<Shown>> {
    let (set, entries) = history::set(&core, &cx, query.scope.as_deref(), id).await?;
    let mut shown = Shown::from(set);
    shown.entries = Some(entries);
    Ok(Json(shown))
}
