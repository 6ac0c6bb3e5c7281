//! Attempts at SMS providers, one row each (ID-53).

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Cond, Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{all, broken, insert as insert_row};
use crate::domain::sms::SmsRecord;

const TABLE: &str = "sms_records";
const COLUMNS: [&str; 20] = [
    "id",
    "tenant_id",
    "transaction_id",
    "provider",
    "attempt_no",
    "phone_masked",
    "phone_hash",
    "prefix_hash",
    "country",
    "status",
    "class",
    "notice",
    "provider_code",
    "provider_message",
    "receipt_id",
    "latency_ms",
    "segments",
    "cost_micro",
    "verified_at",
    "at",
];

/// What is listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub provider: Option<String>,
    pub status: Option<String>,
    pub phone_hash: Option<[u8; 32]>,
    pub transaction: Option<Uuid>,
    /// Behind this one, newest first.
    pub after: Option<(Timestamp, Uuid)>,
}

/// What statistics need of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub provider: String,
    pub status: String,
    pub latency_ms: u32,
    pub segments: u32,
    pub cost_micro: i64,
    /// No code of it comes back.
    pub notice: bool,
    pub verified: bool,
    pub at: Timestamp,
}

/// Adds an attempt.
pub(crate) async fn insert(conn: &impl ConnectionTrait, r: &SmsRecord) -> Result<(), DbError> {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            r.id.into(),
            r.tenant.into(),
            r.transaction.into(),
            r.provider.clone().into(),
            number(r.attempt_no).into(),
            r.phone_masked.clone().into(),
            r.phone_hash.to_vec().into(),
            r.prefix_hash.to_vec().into(),
            r.country.clone().into(),
            r.status.clone().into(),
            r.class.clone().into(),
            r.notice.into(),
            r.provider_code.clone().into(),
            r.provider_message.clone().into(),
            r.receipt_id.clone().into(),
            number(r.latency_ms).into(),
            number(r.segments).into(),
            r.cost_micro.into(),
            r.verified_at.into(),
            r.at.into(),
        ],
    )
    .await
}

/// Notes that the code of a provider's message came back.
pub(crate) async fn verified(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    transaction: Uuid,
    provider: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("verified_at", now)
        .and_where(Expr::col("transaction_id").eq(transaction))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("provider").eq(provider))
        .and_where(Expr::col("verified_at").is_null())
        .and_where(Expr::col("status").is_in(["sent", "ambiguous", "delivered"]));
    conn.execute(&update).await?;
    Ok(())
}

/// A page of attempts, newest first.
pub(crate) async fn page(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    filter: &Filter,
    limit: u64,
) -> Result<Vec<SmsRecord>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(limit);
    if let Some(provider) = &filter.provider {
        select.and_where(Expr::col("provider").eq(provider.as_str()));
    }
    if let Some(status) = &filter.status {
        select.and_where(Expr::col("status").eq(status.as_str()));
    }
    if let Some(hash) = filter.phone_hash {
        select.and_where(Expr::col("phone_hash").eq(hash.to_vec()));
    }
    if let Some(transaction) = filter.transaction {
        select.and_where(Expr::col("transaction_id").eq(transaction));
    }
    if let Some((at, id)) = filter.after {
        select.cond_where(
            Cond::any().add(Expr::col("at").lt(at)).add(
                Cond::all()
                    .add(Expr::col("at").eq(at))
                    .add(Expr::col("id").lt(id)),
            ),
        );
    }
    all(conn, &select, read).await
}

/// Figures of a tenant's attempts in a span, oldest first, at most `limit`.
pub(crate) async fn figures(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    (from, to): (Timestamp, Timestamp),
    limit: u64,
) -> Result<Vec<Figures>, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "provider",
            "status",
            "latency_ms",
            "segments",
            "cost_micro",
            "notice",
            "verified_at",
            "at",
        ])
        .from(TABLE)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("at").gte(from))
        .and_where(Expr::col("at").lt(to))
        .order_by("at", Order::Asc)
        .limit(limit);
    all(conn, &select, |row| {
        let verified: Option<Timestamp> = row.try_get("", "verified_at")?;
        Ok(Figures {
            provider: row.try_get("", "provider")?,
            status: row.try_get("", "status")?,
            latency_ms: small(row, "latency_ms")?,
            segments: small(row, "segments")?,
            cost_micro: row.try_get("", "cost_micro")?,
            notice: row.try_get("", "notice")?,
            verified: verified.is_some(),
            at: row.try_get("", "at")?,
        })
    })
    .await
}

/// Removes attempts from before a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("at").lt(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn small(row: &QueryResult, column: &str) -> Result<u32, DbError> {
    let value: i32 = row.try_get("", column)?;
    u32::try_from(value).map_err(|_| broken(column))
}

fn read(row: &QueryResult) -> Result<SmsRecord, DbError> {
    Ok(SmsRecord {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        transaction: row.try_get("", "transaction_id")?,
        provider: row.try_get("", "provider")?,
        attempt_no: small(row, "attempt_no")?,
        phone_masked: row.try_get("", "phone_masked")?,
        phone_hash: super::otp::bytes32(row.try_get("", "phone_hash")?)?,
        prefix_hash: super::otp::bytes32(row.try_get("", "prefix_hash")?)?,
        country: row.try_get("", "country")?,
        status: row.try_get("", "status")?,
        class: row.try_get("", "class")?,
        notice: row.try_get("", "notice")?,
        provider_code: row.try_get("", "provider_code")?,
        provider_message: row.try_get("", "provider_message")?,
        receipt_id: row.try_get("", "receipt_id")?,
        latency_ms: small(row, "latency_ms")?,
        segments: small(row, "segments")?,
        cost_micro: row.try_get("", "cost_micro")?,
        verified_at: row.try_get("", "verified_at")?,
        at: row.try_get("", "at")?,
    })
}
