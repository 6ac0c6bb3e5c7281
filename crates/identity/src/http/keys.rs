//! `/keys` and `/epoch`: the keys that sign tokens, and logging everybody out.

use axum::extract::State;
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::error::{Error, Result};
use crate::ops::keys::{self, Sessions};
use crate::permissions::{KEYS_READ, KEYS_ROTATE};
use crate::store::keys::SigningKeyRow;

const MOST_REASON: usize = 300;

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let change = Access::Permission(KEYS_ROTATE).aal2_fresh();
    all.add(Access::Permission(KEYS_READ).aal2(), routes!(list))
        .add(change.clone(), routes!(rotate))
        .add(change, routes!(raise))
}

/// How keys are changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = KeyRotation)]
struct Rotation {
    /// The keys may have leaked: all of them are dropped, and every token with them.
    emergency: bool,
    /// With `emergency`: sessions end too, so that everybody logs in again.
    end_sessions: bool,
    /// For the audit.
    reason: Option<String>,
}

/// Why everybody is logged out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = EpochRaise)]
struct Raise {
    /// For the audit.
    reason: Option<String>,
}

/// A signing key as it is shown: its public half.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SigningKey)]
struct Shown {
    /// Thumbprint of the public key (RFC 7638), the `kid` of tokens.
    kid: String,
    alg: String,
    /// `next`, `active`, `retired` or `dropped`.
    state: &'static str,
    /// It signs from then on at the earliest.
    #[schema(value_type = String, format = DateTime)]
    not_before: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    activated_at: Option<Timestamp>,
    /// Since when it does not sign any more.
    #[schema(value_type = Option<String>, format = DateTime)]
    retired_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// The signing keys, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SigningKeys)]
struct Keys {
    items: Vec<Shown>,
}

/// The installation's epoch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Epoch)]
struct Epoch {
    /// Tokens with a lower one are refused.
    ge: u32,
}

impl From<Vec<SigningKeyRow>> for Keys {
    fn from(rows: Vec<SigningKeyRow>) -> Self {
        let shown = |row: SigningKeyRow| Shown {
            kid: row.kid,
            alg: row.alg,
            state: row.state.as_str(),
            not_before: row.not_before,
            activated_at: row.activated_at,
            retired_at: row.retired_at,
            created_at: row.created_at,
        };
        Self {
            items: rows.into_iter().map(shown).collect(),
        }
    }
}

/// List signing keys
///
/// The keys that sign access tokens, or did lately; all but the dropped ones are in `/.well-known/jwks.json`.
#[utoipa::path(get, path = "/keys", tag = "keys", responses((status = 200, body = Keys)))]
async fn list(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Keys>> {
    Ok(Json(keys::list(&core, &cx).await?.into()))
}

/// Rotate signing keys
///
/// The next key signs from now on; it must have been published for ten minutes. In an emergency all keys are
/// dropped instead and every access token dies within a second; sessions survive unless asked otherwise.
#[utoipa::path(post, path = "/keys/rotate", tag = "keys", request_body = Rotation,
    responses((status = 200, body = Keys)))]
async fn rotate(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Rotation>,
) -> ApiResult<Json<Keys>> {
    let why = reason(wish.reason.as_deref())?;
    if wish.end_sessions && !wish.emergency {
        let fault = Error::field(
            "end_sessions",
            "needs_emergency",
            "only an emergency ends sessions",
        );
        return Err(fault.into());
    }
    let sessions = if wish.end_sessions {
        Sessions::End
    } else {
        Sessions::Survive
    };
    let rows = if wish.emergency {
        keys::emergency(&core, &cx, sessions, why).await?
    } else {
        keys::rotate(&core, &cx).await?
    };
    Ok(Json(rows.into()))
}

/// Raise the epoch
///
/// Logs the whole installation out: every access token and every session ends.
#[utoipa::path(post, path = "/epoch/raise", tag = "keys", request_body = Raise,
    responses((status = 200, body = Epoch)))]
async fn raise(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Raise>,
) -> ApiResult<Json<Epoch>> {
    let why = reason(wish.reason.as_deref())?;
    let ge = keys::raise_epoch(&core, &cx, why).await?;
    Ok(Json(Epoch { ge }))
}

fn reason(text: Option<&str>) -> Result<Option<&str>> {
    match text {
        Some(text) if text.chars().count() > MOST_REASON => Err(Error::field(
            "reason",
            "too_long",
            format!("is longer than {MOST_REASON} characters"),
        )),
        text => Ok(text),
    }
}
