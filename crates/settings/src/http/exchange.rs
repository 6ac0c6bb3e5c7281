//! `/export` and `/import`: all values of a scope at once.

use std::collections::BTreeMap;

use axum::extract::State;
use portico_base::Access;
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::changes::Answer;
use super::{Api, Doorman};
use crate::ops::exchange::{self, Import};
use crate::ops::scope::word;
use crate::permissions::{VALUE_READ, VALUE_WRITE};

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(VALUE_READ), routes!(export))
        .add(Access::Permission(VALUE_WRITE), routes!(import))
}

/// What to take out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = SettingsExportWish)]
struct ExportBody {
    scope: Option<String>,
    /// Keys that begin with it.
    prefix: Option<String>,
}

/// All values that are stored for a scope.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsExport)]
struct Exported {
    /// `system`, or the tenant's id.
    scope: String,
    /// The position that they are of.
    seq: u64,
    settings: BTreeMap<String, Value>,
    /// Secrets that are set; they are left out.
    secrets: Vec<String>,
}

/// What to take in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SettingsImport)]
struct ImportBody {
    #[serde(default)]
    scope: Option<String>,
    settings: BTreeMap<String, Value>,
    /// Values that are set now and not named here are reset; secrets never.
    #[serde(default)]
    prune: bool,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    confirm: bool,
    /// Shows the difference and writes nothing.
    #[serde(default)]
    dry_run: bool,
    /// The position that the values were made from; absent: the present one.
    #[serde(default)]
    base_seq: Option<u64>,
}

/// Export settings
///
/// What is stored for a scope, without secrets and without what only the file or the default says.
#[utoipa::path(post, path = "/export", tag = "settings", request_body = ExportBody, responses((status = 200, body = Exported)))]
async fn export(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<ExportBody>,
) -> ApiResult<Json<Exported>> {
    let prefix = body.prefix.as_deref().unwrap_or_default();
    let found = exchange::export(&core, &cx, body.scope.as_deref(), prefix).await?;
    Ok(Json(Exported {
        scope: word(found.scope),
        seq: found.seq,
        settings: found.settings,
        secrets: found.secrets,
    }))
}

/// Import settings
///
/// Values that differ become one change set; with `dry_run` it is only shown.
#[utoipa::path(post, path = "/import", tag = "settings", request_body = ImportBody,
    responses((status = 200, body = Answer), (status = 400, description = "every fault"), (status = 409, description = "changed in between")))]
async fn import(
    State(core): State<Api>,
    Cx(cx): Cx,
    doorman: Doorman,
    Json(body): Json<ImportBody>,
) -> ApiResult<Json<Answer>> {
    let import = Import {
        scope: body.scope,
        settings: body.settings,
        prune: body.prune,
        comment: body.comment,
        confirm: body.confirm,
        dry_run: body.dry_run,
        base_seq: body.base_seq,
    };
    match exchange::import(&core, &cx, import).await {
        Ok(done) => Ok(Json(done.into())),
        Err(error) => Err(doorman.tell(&cx, error).await),
    }
}
