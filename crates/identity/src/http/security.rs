//! `/ip-rules`, `/blocks`, `/users/{id}/unlock`: who is kept out, and who is let in again (ID-161…163).

use axum::extract::{Path, State};
use http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::ip_rule::{IpRule, RuleKind};
use crate::error::{Error, reason};
use crate::ops::security as ops;
use crate::permissions::{SECURITY_READ, SECURITY_WRITE, USER_WRITE};

/// A rule to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IpRuleWish)]
pub(super) struct Wish {
    /// Address or network: `203.0.113.7`, `2001:db8::/32`.
    cidr: String,
    /// `deny` refuses every request; as soon as there is an `allow`, administration is answered to allowed networks only. The longest network decides.
    kind: RuleKind,
    /// What it is for.
    #[serde(default)]
    note: String,
    /// When it ends.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Seconds until it ends, instead of `expires_at`.
    #[serde(default)]
    ttl_s: Option<u32>,
    /// Only says what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IpRule)]
pub(super) struct Shown {
    id: Uuid,
    cidr: String,
    kind: RuleKind,
    note: String,
    /// Who made it.
    source: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl From<IpRule> for Shown {
    fn from(rule: IpRule) -> Self {
        Self {
            id: rule.id,
            cidr: rule.net.to_string(),
            kind: rule.kind,
            note: rule.reason,
            source: rule.source,
            created_at: rule.created_at,
            expires_at: rule.expires_at,
        }
    }
}

/// A rule with what it does.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IpRuleEffect)]
pub(super) struct Effect {
    #[serde(flatten)]
    rule: Shown,
    /// It was not made.
    dry_run: bool,
    /// The address of this call would be locked out; such a rule is refused.
    locks_out_caller: bool,
    /// Live sessions last seen on addresses that are refused.
    refused_sessions: u64,
}

/// Rules; there are at most a thousand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IpRules)]
pub(super) struct All {
    items: Vec<Shown>,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = Access::Permission(SECURITY_READ);
    let write = Access::Permission(SECURITY_WRITE).aal2();
    all.add(read.clone(), routes!(list))
        .add(write.clone(), routes!(create))
        .add(write.clone(), routes!(delete))
        .add(read, routes!(blocks))
        .add(write, routes!(lift))
        .add(Access::Permission(USER_WRITE), routes!(unlock))
}

/// List address rules
///
/// Those in force that people made, newest first.
#[utoipa::path(get, path = "/ip-rules", tag = "identity", responses((status = 200, body = All)))]
pub(super) async fn list(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<All>> {
    let rules = ops::list(&core, &cx).await?;
    let items = rules.into_iter().map(Shown::from).collect();
    Ok(Json(All { items }))
}

/// Make an address rule
///
/// With `dry_run` it only says what would happen. A rule that would lock out the caller is refused.
#[utoipa::path(post, path = "/ip-rules", tag = "identity", request_body = Wish,
    responses((status = 200, description = "dry run", body = Effect), (status = 201, body = Effect),
        (status = 400), (status = 409)))]
pub(super) async fn create(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<Wish>,
) -> ApiResult<(StatusCode, Json<Effect>)> {
    if body.ttl_s.is_some() && body.expires_at.is_some() {
        return Err(
            Error::field("ttl_s", "conflict", "is given together with `expires_at`").into(),
        );
    }
    let after = body
        .ttl_s
        .map(|s| cx.now() + chrono::Duration::seconds(i64::from(s)));
    let wish = ops::NewRule {
        cidr: body.cidr,
        kind: body.kind,
        note: body.note,
        expires_at: body.expires_at.or(after),
        dry_run: body.dry_run,
    };
    let effect = ops::create(&core, &cx, wish).await?;
    let status = if body.dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let answer = Effect {
        rule: effect.rule.into(),
        dry_run: body.dry_run,
        locks_out_caller: effect.locks_out_caller,
        refused_sessions: effect.sessions,
    };
    Ok((status, Json(answer)))
}

/// Remove an address rule
///
/// Refused when what is left would lock out the caller.
#[utoipa::path(delete, path = "/ip-rules/{id}", tag = "identity",
    params(("id" = Uuid, Path, description = "id of the rule")),
    responses((status = 204), (status = 404), (status = 409)))]
pub(super) async fn delete(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    ops::delete(&core, &cx, parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List blocked addresses
///
/// Networks that tried too many different wrong names and passwords, newest first.
#[utoipa::path(get, path = "/blocks", tag = "identity", responses((status = 200, body = All)))]
pub(super) async fn blocks(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<All>> {
    let rules = ops::blocks(&core, &cx).await?;
    let items = rules.into_iter().map(Shown::from).collect();
    Ok(Json(All { items }))
}

/// Lift a block
///
/// The network may try again at once.
#[utoipa::path(delete, path = "/blocks/{id}", tag = "identity",
    params(("id" = Uuid, Path, description = "id of the block")),
    responses((status = 204), (status = 404)))]
pub(super) async fn lift(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    ops::lift(&core, &cx, parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Unlock a user
///
/// Who has to wait after wrong passwords may try again at once.
#[utoipa::path(post, path = "/users/{id}/unlock", tag = "identity",
    params(("id" = Uuid, Path, description = "id of the user")),
    responses((status = 204), (status = 403), (status = 404)))]
pub(super) async fn unlock(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::from(reason::USER_NOT_FOUND))?;
    ops::unlock(&core, &cx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse(id: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(id).map_err(|_| reason::NOT_FOUND.into())
}
