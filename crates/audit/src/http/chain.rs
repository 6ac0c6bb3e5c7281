//! `/chain`, `/verify`, `/checkpoints`, `/links`: the proof that nobody changed what was done.

use axum::extract::State;
use http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_web::page::limit;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, PageQuery, Query};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::record::moment;
use crate::domain::report::Report;
use crate::error::{Error, Result};
use crate::ops::{checkpoints as points, export, seal, verify as verifying};
use crate::permissions::VERIFY;
use crate::store;

/// The chain as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditChain)]
pub(super) struct Standing {
    installation_id: Uuid,
    /// Number of the last sealed record.
    seq: u64,
    /// Its link, in hex.
    link: String,
    /// Number of the first record that is still there.
    first_seq: Option<u64>,
    /// Records that wait to be sealed.
    pending: u64,
    /// The key that signs.
    key_id: String,
    /// Its public part, in hex: keep it elsewhere, and nobody can pass off another one.
    public_key: Option<String>,
    /// What the last verification found.
    verified: Option<Report>,
    #[schema(value_type = Option<String>, format = DateTime)]
    verified_at: Option<Timestamp>,
    /// The last one that found everything in order.
    #[schema(value_type = Option<String>, format = DateTime)]
    verified_ok_at: Option<Timestamp>,
}

/// Show the audit chain
///
/// Its end, what waits, the key that signs, and the last verification.
#[utoipa::path(get, path = "/chain", tag = "audit", responses((status = 200, body = Standing)))]
pub(super) async fn state(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Standing>> {
    let read = async {
        cx.authorise(&Access::Permission(VERIFY))?;
        let conn = api.db.reader();
        let head = seal::head(conn, api.installation).await?;
        let state = store::keys::state(conn).await?;
        let keys = store::keys::list(conn).await?;
        let key = keys.into_iter().find(|k| k.key_id == api.signer.key_id);
        let first = store::chain::first(conn).await?;
        let pending = store::records::count_waiting(conn).await?;
        Result::Ok((head, state, key, first, pending))
    };
    let (head, state, key, first_seq, pending) = read.await?;
    let told = state.as_ref().and_then(|s| s.verified.clone());
    Ok(Json(Standing {
        installation_id: api.installation,
        seq: head.seq,
        link: hex::encode(head.link),
        first_seq,
        pending,
        key_id: api.signer.key_id.clone(),
        public_key: key.map(|key| hex::encode(key.public_key)),
        verified: told.and_then(|told| serde_json::from_value(told).ok()),
        verified_at: state.as_ref().and_then(|s| s.verified_at),
        verified_ok_at: state.and_then(|s| s.verified_ok_at),
    }))
}

/// Which part to verify.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AuditVerification)]
pub(super) struct Wish {
    /// First number; without it from the beginning.
    #[serde(default)]
    from: Option<u64>,
    /// Last number; without it to the end.
    #[serde(default)]
    to: Option<u64>,
}

/// A verification that will be made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditVerificationAsked)]
pub(super) struct Asked {
    /// The job that makes it; what it finds is in `GET /api/audit/chain`.
    job_id: Uuid,
}

/// Verify the audit chain
///
/// A job hashes everything again; what it found is in `GET /api/audit/chain`.
#[utoipa::path(post, path = "/verify", tag = "audit", request_body = Wish,
    responses((status = 202, body = Asked)))]
pub(super) async fn verify(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Wish>,
) -> ApiResult<(StatusCode, Json<Asked>)> {
    let part = verifying::Part {
        from: wish.from,
        to: wish.to,
    };
    if part.from == Some(0) {
        return Err(Error::field("from", "invalid", "the first number is 1").into());
    }
    if let (Some(from), Some(to)) = (part.from, part.to)
        && to < from
    {
        return Err(Error::field("to", "order", "must not be below `from`").into());
    }
    let job = verifying::ask(&api, &cx, part).await?;
    Ok((StatusCode::ACCEPTED, Json(Asked { job_id: job.0 })))
}

/// A signed point of the chain.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditCheckpoint)]
pub(super) struct Shown {
    seq: u64,
    /// The link that was signed, in hex.
    link: String,
    /// Links since the checkpoint before.
    count: u64,
    at: String,
    key_id: String,
    /// Ed25519, in hex.
    signature: String,
}

impl From<Checkpoint> for Shown {
    fn from(c: Checkpoint) -> Self {
        Self {
            seq: c.seq,
            link: hex::encode(c.link),
            count: c.count,
            at: moment(c.at),
            key_id: c.key_id,
            signature: hex::encode(c.signature),
        }
    }
}

/// List audit checkpoints
///
/// Newest first.
#[utoipa::path(get, path = "/checkpoints", tag = "audit", params(PageQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(super) async fn checkpoints(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(page): Query<PageQuery>,
) -> ApiResult<Json<Page<Shown>>> {
    let limit = page.limit()?;
    let before = page.cursor.as_deref().map(Cursor::<u64>::decode);
    let before = before.transpose()?.map(|cursor| cursor.0);
    let items = points::list(&api, &cx, before, limit as u64 + 1).await?;
    let items = items.into_iter().map(Shown::from).collect();
    Ok(Json(Page::cut(items, limit, |c: &Shown| c.seq)))
}

/// Sign the audit chain now
///
/// Gives the checkpoint of the last sealed record; keep it elsewhere, and no earlier record can be changed unseen.
#[utoipa::path(post, path = "/checkpoints", tag = "audit",
    responses((status = 201, body = Shown), (status = 409, description = "nothing is sealed yet")))]
pub(super) async fn checkpoint(
    State(api): State<Api>,
    Cx(cx): Cx,
) -> ApiResult<(StatusCode, Json<Shown>)> {
    let made = points::make(&api, &cx).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Which links.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedLinks {
    /// Number of the last link that is known already.
    #[serde(default)]
    after: u64,
    /// Links: 1 to 200, default 50.
    limit: Option<u32>,
}

/// A part of the chain that verifies on any machine.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditLinks)]
pub(super) struct Links {
    /// Whose chain it is, its public keys, and the link before the first of these.
    header: Value,
    /// Links with their records exactly as they were hashed, and checkpoints.
    items: Vec<Value>,
    /// The `after` of the next part; absent at the end.
    next: Option<u64>,
}

/// Read the audit chain
///
/// In its order, records of all tenants, exactly as they were hashed: the lines of `portico audit export`.
#[utoipa::path(get, path = "/links", tag = "audit", params(WantedLinks),
    responses((status = 200, body = Links)))]
pub(super) async fn links(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(wanted): Query<WantedLinks>,
) -> ApiResult<Json<Links>> {
    let limit = limit(wanted.limit)? as u64;
    let part = export::part(&api, &cx, wanted.after, limit).await?;
    Ok(Json(Links {
        header: part.header,
        items: part.lines,
        next: part.last,
    }))
}
