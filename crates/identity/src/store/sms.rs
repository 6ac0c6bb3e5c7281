//! Messages: sends that were let through, blocks. Attempts at providers are in [`super::sms_records`].

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Cond, Expr, ExprTrait as _, Func, OnConflict, Order, Query};
use uuid::Uuid;

use super::{all, insert as insert_row, one};
use crate::domain::sms::{Conversion, SendStatus, SmsBlock, SmsSend};

const SENDS: &str = "sms_sends";
const BLOCKS: &str = "sms_blocks";
const BLOCK_COLUMNS: [&str; 6] = ["subject", "reason", "sent", "verified", "at", "until"];

/// What sends are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// A number, for codes.
    Phone([u8; 32]),
    /// A number with all that it gets.
    Told([u8; 32]),
    Prefix([u8; 32]),
    Country(String),
    Device([u8; 32]),
    Ip(String),
    Net(String),
    Tenant(Uuid),
    /// The installation.
    All,
}

impl Dimension {
    fn condition(&self) -> Cond {
        let is = |column: &'static str, value: Expr| Cond::all().add(Expr::col(column).eq(value));
        match self {
            Self::Phone(hash) | Self::Told(hash) => is("phone_hash", hash.to_vec().into()),
            Self::Prefix(hash) => is("prefix_hash", hash.to_vec().into()),
            Self::Country(code) => is("country", code.clone().into()),
            Self::Device(hash) => is("device_hash", hash.to_vec().into()),
            Self::Ip(ip) => is("ip", ip.clone().into()),
            Self::Net(net) => is("net", net.clone().into()),
            Self::Tenant(tenant) => is("tenant_id", (*tenant).into()),
            Self::All => Cond::all(),
        }
    }

    /// Who asks is counted for asking; what is paid for and who is bothered, for what left.
    const fn uncounted(&self) -> &'static [&'static str] {
        match self {
            Self::Device(_) | Self::Ip(_) | Self::Net(_) => &[],
            // Nobody's login waits for news of the account.
            Self::Phone(_) => &["failed", "notice"],
            Self::Told(_) => &["failed"],
            _ => &["failed", "test"],
        }
    }
}

/// Adds a send.
pub(crate) async fn insert(conn: &impl ConnectionTrait, s: &SmsSend) -> Result<(), DbError> {
    insert_row(
        conn,
        SENDS,
        [
            "id",
            "tenant_id",
            "transaction_id",
            "phone_hash",
            "prefix_hash",
            "country",
            "device_hash",
            "ip",
            "net",
            "status",
            "at",
        ],
        [
            s.id.into(),
            s.tenant.into(),
            s.transaction.into(),
            s.phone_hash.to_vec().into(),
            s.prefix_hash.to_vec().into(),
            s.country.clone().into(),
            s.device_hash.map(|h| h.to_vec()).into(),
            s.ip.clone().into(),
            s.net.clone().into(),
            s.status.as_str().into(),
            s.at.into(),
        ],
    )
    .await
}

/// Writes how a send ended.
pub(crate) async fn end(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
    status: SendStatus,
    provider: Option<&str>,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(SENDS)
        .value("status", status.as_str())
        .value("provider", provider.map(str::to_owned))
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    conn.execute(&update).await?;
    Ok(())
}

/// When the `nth` newest send of a dimension after `since` was; nothing when there are fewer. So many are
/// read of the index and no more.
pub(crate) async fn nth_newest(
    conn: &impl ConnectionTrait,
    dimension: &Dimension,
    since: Timestamp,
    nth: u32,
) -> Result<Option<Timestamp>, DbError> {
    let mut select = Query::select();
    select
        .column("at")
        .from(SENDS)
        .cond_where(dimension.condition())
        .and_where(Expr::col("at").gt(since))
        .order_by("at", Order::Desc)
        .limit(1)
        .offset(u64::from(nth.saturating_sub(1)));
    let uncounted = dimension.uncounted();
    if !uncounted.is_empty() {
        select.and_where(Expr::col("status").is_not_in(uncounted.iter().copied()));
    }
    one(conn, &select, |row| Ok(row.try_get("", "at")?)).await
}

/// Sends of a dimension after `since`, and how many of their codes came back. A send after `settled` that
/// has not come back is not counted: its code may be on the way.
pub(crate) async fn conversion(
    conn: &impl ConnectionTrait,
    dimension: &Dimension,
    since: Timestamp,
    settled: Timestamp,
) -> Result<Conversion, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Func::count(Expr::col("id")), "sent")
        .expr_as(Func::count(Expr::col("verified_at")), "verified")
        .from(SENDS)
        .cond_where(dimension.condition())
        .and_where(Expr::col("at").gt(since))
        .and_where(Expr::col("status").is_in(["sent", "ambiguous"]))
        .cond_where(
            Cond::any()
                .add(Expr::col("verified_at").is_not_null())
                .add(Expr::col("at").lte(settled)),
        );
    let found = one(conn, &select, |row| {
        Ok(Conversion {
            sent: count(row, "sent")?,
            verified: count(row, "verified")?,
        })
    })
    .await?;
    Ok(found.unwrap_or_default())
}

/// Prefixes and countries with at least `least` sends after `since`.
pub(crate) async fn busy(
    conn: &impl ConnectionTrait,
    column: &'static str,
    since: Timestamp,
    least: u32,
) -> Result<Vec<Dimension>, DbError> {
    let mut select = Query::select();
    select
        .column(column)
        .from(SENDS)
        .and_where(Expr::col("at").gt(since))
        .group_by_col(column)
        .and_having(Func::count(Expr::col("id")).gte(least))
        .limit(1_000);
    all(conn, &select, |row| {
        if column == "country" {
            return Ok(Dimension::Country(row.try_get("", column)?));
        }
        let hash: Vec<u8> = row.try_get("", column)?;
        Ok(Dimension::Prefix(super::otp::bytes32(hash)?))
    })
    .await
}

/// Provider and country of the last message of a transaction.
pub(crate) async fn last_of(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    transaction: Uuid,
) -> Result<Option<(Uuid, Option<String>, String)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["id", "provider", "country"])
        .from(SENDS)
        .and_where(Expr::col("transaction_id").eq(transaction))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("at", Order::Desc)
        .limit(1);
    one(conn, &select, |row| {
        Ok((
            row.try_get("", "id")?,
            row.try_get("", "provider")?,
            row.try_get("", "country")?,
        ))
    })
    .await
}

/// Notes that a send's code came back.
pub(crate) async fn verified(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(SENDS)
        .value("verified_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    conn.execute(&update).await?;
    Ok(())
}

/// Removes sends from before a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(SENDS)
        .and_where(Expr::col("at").lt(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// Blocks a subject, or prolongs its block.
pub(crate) async fn block(conn: &impl ConnectionTrait, b: &SmsBlock) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(BLOCKS)
        .columns(BLOCK_COLUMNS)
        .values_panic([
            b.subject.clone().into(),
            b.reason.clone().into(),
            i32::try_from(b.sent).unwrap_or(i32::MAX).into(),
            i32::try_from(b.verified).unwrap_or(i32::MAX).into(),
            b.at.into(),
            b.until.into(),
        ])
        .on_conflict(
            OnConflict::column("subject")
                .update_columns(["reason", "sent", "verified", "at", "until"])
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// The block of one of the subjects that holds now, the one that ends last.
pub(crate) async fn blocked(
    conn: &impl ConnectionTrait,
    subjects: &[String],
    now: Timestamp,
) -> Result<Option<SmsBlock>, DbError> {
    let mut select = Query::select();
    select
        .columns(BLOCK_COLUMNS)
        .from(BLOCKS)
        .and_where(Expr::col("subject").is_in(subjects.iter().cloned()))
        .and_where(Expr::col("until").gt(now))
        .order_by("until", Order::Desc)
        .limit(1);
    one(conn, &select, read_block).await
}

/// All blocks that hold now.
pub(crate) async fn blocks(
    conn: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<SmsBlock>, DbError> {
    let mut select = Query::select();
    select
        .columns(BLOCK_COLUMNS)
        .from(BLOCKS)
        .and_where(Expr::col("until").gt(now))
        .order_by("until", Order::Desc)
        .limit(limit);
    all(conn, &select, read_block).await
}

/// Removes blocks that ended before a moment.
pub(crate) async fn trim_blocks(
    conn: &impl ConnectionTrait,
    before: Timestamp,
) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(BLOCKS)
        .and_where(Expr::col("until").lt(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn read_block(row: &QueryResult) -> Result<SmsBlock, DbError> {
    let number = |column: &str| -> Result<u32, DbError> {
        let value: i32 = row.try_get("", column)?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    Ok(SmsBlock {
        subject: row.try_get("", "subject")?,
        reason: row.try_get("", "reason")?,
        sent: number("sent")?,
        verified: number("verified")?,
        at: row.try_get("", "at")?,
        until: row.try_get("", "until")?,
    })
}

fn count(row: &QueryResult, column: &str) -> Result<u32, DbError> {
    let value: i64 = row.try_get("", column)?;
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}
