//! `/records`, `/histogram`, `/actions`: what was done.

use std::net::IpAddr;

use axum::extract::{Path, State};
use portico_base::{Timestamp, id};
use portico_contract::audit::{Change, Entry, Filter, Outcome};
use portico_web::page::limit;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::record::record_hash;
use crate::error::{Error, Result};
use crate::ops::search;

/// Which records.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// A tenant's id, `system` or `default`; for whoever may see all tenants.
    tenant: Option<String>,
    /// Id of whoever acted.
    actor: Option<String>,
    /// An action, or the beginning of one followed by `*`.
    action: Option<String>,
    /// Kind of the target.
    target_type: Option<String>,
    /// Id of the target.
    target_id: Option<String>,
    /// `success`, `denied` or `failed`.
    outcome: Option<String>,
    /// Address of the caller.
    ip: Option<String>,
    /// Id of the request.
    request_id: Option<String>,
    /// Not before.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Before.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// A changed path.
    path: Option<String>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Parts of a histogram: 1 to 120, default 48.
    #[param(ignore)]
    spans: Option<usize>,
}

/// An audit record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditRecord)]
pub(super) struct Shown {
    id: Uuid,
    /// Number in the chain; absent for about a second.
    seq: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Tenant of the target.
    tenant_id: Uuid,
    actor: ShownActor,
    action: String,
    target: ShownTarget,
    request_id: String,
    trace_id: Option<String>,
    /// `success`, `denied` or `failed`.
    outcome: String,
    error_code: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    reason: Option<String>,
    /// Changed paths; secrets as fingerprints.
    #[schema(value_type = Vec<ShownChange>)]
    changes: Vec<Change>,
    /// Some changes were left out, because they were too long.
    truncated: bool,
    batch_id: Option<Uuid>,
    /// When what is private was taken out, because a person was erased.
    #[schema(value_type = Option<String>, format = DateTime)]
    redacted_at: Option<Timestamp>,
}

/// Whoever acted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditActor)]
pub(super) struct ShownActor {
    kind: String,
    id: String,
}

/// What it was about.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditTarget)]
pub(super) struct ShownTarget {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// One changed path.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditChange)]
pub(super) struct ShownChange {
    path: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl From<Entry> for Shown {
    fn from(e: Entry) -> Self {
        Self {
            id: e.id,
            seq: e.seq,
            at: e.at,
            tenant_id: e.tenant,
            actor: ShownActor {
                kind: e.actor_kind,
                id: e.actor_id,
            },
            action: e.action,
            target: ShownTarget {
                kind: e.target_type,
                id: e.target_id,
            },
            request_id: e.request_id,
            trace_id: e.trace_id,
            outcome: e.outcome,
            error_code: e.code,
            ip: e.ip,
            user_agent: e.agent,
            reason: e.reason,
            changes: e.changes,
            truncated: e.truncated,
            batch_id: e.batch_id,
            redacted_at: e.redacted_at,
        }
    }
}

/// List audit records
///
/// Newest first. Of outcome, address, changed path and the beginning of many actions a page looks through a
/// bounded number of records, so that it may be short or empty and still have a next one.
#[utoipa::path(get, path = "/records", tag = "audit", params(Wanted),
    responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(wanted): Query<Wanted>,
) -> ApiResult<Json<Page<Shown>>> {
    let (limit, after) = (limit(wanted.limit)?, wanted.cursor.as_deref());
    let after = after.map(Cursor::<(Timestamp, Uuid)>::decode).transpose()?;
    let filter = filter(wanted)?;
    let found = search::list(&api, &cx, filter, after.map(|c| c.0), limit).await?;
    Ok(Json(Page {
        items: found.items.into_iter().map(Shown::from).collect(),
        next_cursor: found.next.map(|next| Cursor(next).encode()),
    }))
}

/// One record with what was hashed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditRecordProof)]
pub(super) struct Proof {
    #[serde(flatten)]
    record: Shown,
    /// The public part, exactly as it was hashed.
    public: String,
    /// Hash of the public part, in hex.
    record_hash: String,
    /// Hash of the private part with its salt, in hex.
    private_hash: String,
}

/// Show an audit record
///
/// With its public part and its hashes.
#[utoipa::path(get, path = "/records/{id}", tag = "audit",
    params(("id" = String, Path, description = "id of the record")),
    responses((status = 200, body = Proof), (status = 404, description = "unknown")))]
pub(super) async fn get(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Proof>> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::UnknownRecord)?;
    let (entry, stored) = search::get(&api, &cx, id).await?;
    Ok(Json(Proof {
        record: entry.into(),
        record_hash: hex::encode(record_hash(&stored.public)),
        private_hash: stored.private_hash,
        public: stored.public,
    }))
}

/// Records by time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditHistogram)]
pub(super) struct Histogram {
    /// Parts of the time, oldest first.
    items: Vec<Span>,
}

/// A part of the time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditSpan)]
pub(super) struct Span {
    /// Where it begins.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// Records within it.
    count: u64,
}

/// Count audit records by time
///
/// Equal parts between `from` and `to` (default: the last day), `spans` of them (default 48). Addresses and
/// changed paths are not looked at.
#[utoipa::path(get, path = "/histogram", tag = "audit",
    params(Wanted, ("spans" = Option<usize>, Query, description = "parts: 1 to 120, default 48")),
    responses((status = 200, body = Histogram)))]
pub(super) async fn histogram(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(wanted): Query<Wanted>,
) -> ApiResult<Json<Histogram>> {
    let spans = wanted.spans.unwrap_or(48);
    if !(1..=search::SPANS).contains(&spans) {
        return Err(Error::field("spans", "invalid", "must be from 1 to 120").into());
    }
    for (name, given) in [
        ("ip", wanted.ip.is_some()),
        ("path", wanted.path.is_some()),
        ("cursor", wanted.cursor.is_some()),
        ("limit", wanted.limit.is_some()),
    ] {
        if given {
            return Err(Error::field(name, "invalid", "does not go with a histogram").into());
        }
    }
    let mut filter = filter(wanted)?;
    if filter.action_prefix.is_some() {
        let message = "must be a whole action for a histogram";
        return Err(Error::field("action", "invalid", message).into());
    }
    let to = filter.to.take().unwrap_or_else(|| cx.now());
    let day = || to - chrono::Duration::days(1);
    let from = filter.from.take().unwrap_or_else(day);
    let counts = search::histogram(&api, &cx, filter, (from, to), spans).await?;
    let items = counts.into_iter().map(|(from, count)| Span { from, count });
    Ok(Json(Histogram {
        items: items.collect(),
    }))
}

/// Which actions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedActions {
    /// A tenant's id, `system` or `default`; for whoever may see all tenants.
    tenant: Option<String>,
    /// The beginning of their names.
    #[serde(default)]
    prefix: String,
}

/// Names of actions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditActions)]
pub(super) struct Actions {
    /// In alphabetical order, at most 1,000.
    items: Vec<String>,
}

/// List audited actions
///
/// Those that there are records of.
#[utoipa::path(get, path = "/actions", tag = "audit", params(WantedActions),
    responses((status = 200, body = Actions)))]
pub(super) async fn actions(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(wanted): Query<WantedActions>,
) -> ApiResult<Json<Actions>> {
    let tenant = wanted.tenant.as_deref().map(tenant).transpose()?;
    let items = search::actions(&api, &cx, tenant, &wanted.prefix).await?;
    Ok(Json(Actions { items }))
}

fn filter(wanted: Wanted) -> Result<Filter> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, message: &str| {
        faults.push(portico_base::FieldFault::new(field, "invalid", message));
    };
    let outcome = match wanted.outcome.as_deref() {
        None => None,
        Some("success") => Some(Outcome::Done),
        Some("denied") => Some(Outcome::Denied),
        Some("failed") => Some(Outcome::Failed),
        Some(_) => {
            fault("outcome", "must be success, denied or failed");
            None
        }
    };
    let ip = wanted.ip.as_deref().map(str::parse::<IpAddr>);
    if let Some(Err(_)) = ip {
        fault("ip", "must be an address");
    }
    let named = wanted.tenant.as_deref().map(tenant);
    if let Some(Err(_)) = named {
        fault("tenant", "must be the id of a tenant");
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let prefix = { wanted.action.as_deref() }
        .and_then(|action| action.strip_suffix('*'))
        .map(str::to_owned);
    Ok(Filter {
        tenant: named.transpose()?,
        actor: wanted.actor,
        action: wanted.action.filter(|_| prefix.is_none()),
        action_prefix: prefix,
        target_type: wanted.target_type,
        target_id: wanted.target_id,
        outcome,
        ip: ip.and_then(std::result::Result::ok),
        request_id: wanted.request_id,
        from: wanted.from,
        to: wanted.to,
        path: wanted.path,
    })
}

/// A tenant by its id; the two fixed ones by their names, too.
fn tenant(text: &str) -> Result<Uuid> {
    match text {
        "system" => Ok(id::TENANT_SYSTEM),
        "default" => Ok(id::TENANT_DEFAULT),
        other => Uuid::parse_str(other)
            .map_err(|_| Error::field("tenant", "invalid", "must be the id of a tenant")),
    }
}
