//! Transactions of login codes.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{broken, insert as insert_row, one};
use crate::domain::otp::{Otp, Purpose};

const TABLE: &str = "otp_transactions";
const COLUMNS: [&str; 16] = [
    "id",
    "tenant_id",
    "purpose",
    "phone_hash",
    "phone",
    "code_mac",
    "previous_mac",
    "device_client_id",
    "user_id",
    "ip",
    "tries",
    "resend_no",
    "created_at",
    "resend_at",
    "expires_at",
    "consumed_at",
];

/// Whose transaction is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub tenant: Uuid,
    pub purpose: Purpose,
    pub device: &'a str,
    pub user: Option<Uuid>,
}

/// Adds a transaction.
pub(crate) async fn insert(conn: &impl ConnectionTrait, o: &Otp) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            o.id.into(),
            o.tenant.into(),
            o.purpose.as_str().into(),
            o.phone_hash.to_vec().into(),
            o.phone.clone().into(),
            o.code_mac.to_vec().into(),
            o.previous_mac.map(|m| m.to_vec()).into(),
            o.device.clone().into(),
            o.user.into(),
            o.ip.clone().into(),
            count(o.tries).into(),
            count(o.resend_no).into(),
            o.created_at.into(),
            o.resend_at.into(),
            o.expires_at.into(),
            o.consumed_at.into(),
        ],
    )
    .await
}

/// Writes the new code of a transaction, whose tries begin again: how many guesses there are in an hour is
/// bounded by the codes that are sent in it.
pub(crate) async fn renew(conn: &impl ConnectionTrait, o: &Otp) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("code_mac", o.code_mac.to_vec())
        .value("previous_mac", o.previous_mac.map(|m| m.to_vec()))
        .value("tries", count(o.tries))
        .value("resend_no", count(o.resend_no))
        .value("resend_at", o.resend_at)
        .value("expires_at", o.expires_at)
        .and_where(Expr::col("id").eq(o.id))
        .and_where(Expr::col("tenant_id").eq(o.tenant));
    conn.execute(&update).await?;
    Ok(())
}

/// Lets a transaction be asked for a new code at once: nobody was touched by the last one.
pub(crate) async fn allow_resend(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("resend_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    conn.execute(&update).await?;
    Ok(())
}

/// The transaction of an owner, in whatever state.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    owner: Owner<'_>,
    id: Uuid,
) -> Result<Option<Otp>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(owner.tenant));
    let found = one(conn, &select, read).await?;
    Ok(found.filter(|o| is_of(o, owner)))
}

/// The newest transaction of an owner for a number that can still be used.
pub(crate) async fn live(
    conn: &impl ConnectionTrait,
    owner: Owner<'_>,
    phone_hash: [u8; 32],
    now: Timestamp,
) -> Result<Option<Otp>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("phone_hash").eq(phone_hash.to_vec()))
        .and_where(Expr::col("tenant_id").eq(owner.tenant))
        .and_where(Expr::col("purpose").eq(owner.purpose.as_str()))
        .and_where(Expr::col("device_client_id").eq(owner.device))
        .and_where(Expr::col("consumed_at").is_null())
        .and_where(Expr::col("expires_at").gt(now))
        .order_by("created_at", Order::Desc)
        .limit(1);
    let found = one(conn, &select, read).await?;
    Ok(found.filter(|o| is_of(o, owner)))
}

/// Takes one of a transaction's tries; nothing when none is left or the transaction cannot be used. The
/// database counts, so that guesses at the same moment cannot be more than the tries are.
pub(crate) async fn take_try(
    conn: &impl ConnectionTrait,
    owner: Owner<'_>,
    id: Uuid,
    most: u32,
    now: Timestamp,
) -> Result<Option<Otp>, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("tries", Expr::col("tries").add(1))
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(owner.tenant))
        .and_where(Expr::col("purpose").eq(owner.purpose.as_str()))
        .and_where(Expr::col("device_client_id").eq(owner.device))
        .and_where(Expr::col("tries").lt(count(most)))
        .and_where(Expr::col("consumed_at").is_null())
        .and_where(Expr::col("expires_at").gt(now))
        .returning(Query::returning().columns(COLUMNS));
    if let Some(user) = owner.user {
        update.and_where(Expr::col("user_id").eq(user));
    }
    one(conn, &update, read).await
}

/// Uses a transaction up; false when somebody was faster.
pub(crate) async fn consume(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("consumed_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("consumed_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() == 1)
}

/// Removes what expired before a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("expires_at").lt(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn is_of(o: &Otp, owner: Owner<'_>) -> bool {
    o.purpose == owner.purpose && o.device == owner.device && o.user == owner.user
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn read(row: &QueryResult) -> Result<Otp, DbError> {
    let purpose: String = row.try_get("", "purpose")?;
    let number = |column: &str| -> Result<u32, DbError> {
        let value: i32 = row.try_get("", column)?;
        u32::try_from(value).map_err(|_| broken(column))
    };
    let previous: Option<Vec<u8>> = row.try_get("", "previous_mac")?;
    Ok(Otp {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        purpose: [Purpose::Login, Purpose::Bind, Purpose::Reset]
            .into_iter()
            .find(|p| p.as_str() == purpose)
            .ok_or_else(|| broken("purpose"))?,
        phone_hash: bytes32(row.try_get("", "phone_hash")?)?,
        phone: row.try_get("", "phone")?,
        code_mac: bytes32(row.try_get("", "code_mac")?)?,
        previous_mac: previous.map(bytes32).transpose()?,
        device: row.try_get("", "device_client_id")?,
        user: row.try_get("", "user_id")?,
        ip: row.try_get("", "ip")?,
        tries: number("tries")?,
        resend_no: number("resend_no")?,
        created_at: row.try_get("", "created_at")?,
        resend_at: row.try_get("", "resend_at")?,
        expires_at: row.try_get("", "expires_at")?,
        consumed_at: row.try_get("", "consumed_at")?,
    })
}

pub(super) fn bytes32(bytes: Vec<u8>) -> Result<[u8; 32], DbError> {
    bytes.try_into().map_err(|_| broken("hash"))
}
