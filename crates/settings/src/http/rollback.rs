//! Rolling back a key, a change set, or a scope to a moment.

use axum::extract::{Path, State};
use portico_base::{Access, Context, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::changes::Answer;
use super::{Api, Doorman};
use crate::error::{Error, Result};
use crate::ops::rollback::{self, How, Moment};
use crate::ops::scope::named;
use crate::permissions::VALUE_WRITE;

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let write = || Access::Permission(VALUE_WRITE);
    all.add(write(), routes!(key))
        .add(write(), routes!(set))
        .add(write(), routes!(moment))
}

/// A version to bring back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SettingRollback)]
struct KeyBody {
    /// The version whose value comes back.
    version: u64,
    /// The present version, as far as the caller knows; absent: whatever it is.
    #[serde(default)]
    base_version: Option<u64>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    confirm: bool,
    #[serde(default)]
    dry_run: bool,
}

/// How a change set is taken back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = SettingsChangeRollback)]
struct SetBody {
    /// Later changes of the same keys up to this position are known and taken back, too.
    base_seq: Option<u64>,
    scope: Option<String>,
    comment: Option<String>,
    confirm: bool,
    dry_run: bool,
}

/// To which moment a scope goes back: either a time or a position.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = SettingsMoment)]
struct MomentBody {
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    seq: Option<u64>,
    /// The present position, as far as the caller knows; absent: whatever it is.
    base_seq: Option<u64>,
    scope: Option<String>,
    comment: Option<String>,
    confirm: bool,
    dry_run: bool,
}

fn how(
    cx: &Context,
    scope: Option<&str>,
    comment: Option<String>,
    confirm: bool,
    dry_run: bool,
) -> Result<How> {
    Ok(How {
        scope: named(cx, scope)?,
        comment,
        confirm,
        dry_run,
        base_seq: None,
    })
}

/// Roll a setting back
///
/// The value of an earlier version becomes a new version, by today's rules; 409 `settings.not_possible` says
/// why it cannot.
#[utoipa::path(post, path = "/{key}/rollback", tag = "settings", request_body = KeyBody, params(("key" = String, Path, description = "the key")),
    responses((status = 200, body = Answer), (status = 404, description = "unknown"), (status = 409, description = "not possible, or changed in between")))]
async fn key(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(key): Path<String>,
    doorman: Doorman,
    Json(body): Json<KeyBody>,
) -> ApiResult<Json<Answer>> {
    let scope = body.scope.as_deref();
    let done = match how(&cx, scope, body.comment, body.confirm, body.dry_run) {
        Ok(how) => rollback::key(&core, &cx, &how, &key, body.version, body.base_version).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(done) => Ok(Json(done.into())),
        Err(error) => Err(doorman.tell(&cx, error).await),
    }
}

/// Take a change set back
///
/// Every key gets the value that it had before. A key that was changed again since is a conflict, unless
/// `base_seq` says that this is known.
#[utoipa::path(post, path = "/changes/{id}/rollback", tag = "settings", request_body = SetBody, params(("id" = Uuid, Path, description = "the set")),
    responses((status = 200, body = Answer), (status = 404, description = "unknown"), (status = 409, description = "not possible, or changed in between")))]
async fn set(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
    doorman: Doorman,
    Json(body): Json<SetBody>,
) -> ApiResult<Json<Answer>> {
    let scope = body.scope.as_deref();
    let done = match how(&cx, scope, body.comment, body.confirm, body.dry_run) {
        Ok(how) => {
            let base_seq = body.base_seq;
            rollback::set(&core, &cx, &How { base_seq, ..how }, id).await
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(done) => Ok(Json(done.into())),
        Err(error) => Err(doorman.tell(&cx, error).await),
    }
}

/// Roll settings back to a moment
///
/// Every value of the scope becomes what it was then; at most 100 keys at once.
#[utoipa::path(post, path = "/rollback", tag = "settings", request_body = MomentBody,
    responses((status = 200, body = Answer), (status = 409, description = "not possible, or changed in between")))]
async fn moment(
    State(core): State<Api>,
    Cx(cx): Cx,
    doorman: Doorman,
    Json(body): Json<MomentBody>,
) -> ApiResult<Json<Answer>> {
    let to = match (body.at, body.seq) {
        (Some(at), None) => Ok(Moment::At(at)),
        (None, Some(seq)) => Ok(Moment::Seq(seq)),
        _ => Err(Error::field("at", "invalid", "needs either `at` or `seq`")),
    };
    let scope = body.scope.as_deref();
    let how = how(&cx, scope, body.comment, body.confirm, body.dry_run);
    let done = match (how, to) {
        (Ok(how), Ok(to)) => {
            let base_seq = body.base_seq;
            rollback::moment(&core, &cx, &How { base_seq, ..how }, to).await
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match done {
        Ok(done) => Ok(Json(done.into())),
        Err(error) => Err(doorman.tell(&cx, error).await),
    }
}
