//! Devices of users.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, broken, from_json, insert as insert_row, one, to_json};
use crate::domain::device::{Device, Fingerprint, Platform};

const TABLE: &str = "devices";
const COLUMNS: [&str; 16] = [
    "id",
    "tenant_id",
    "user_id",
    "client_id",
    "secret_hash",
    "platform",
    "name",
    "model",
    "app_version",
    "os_version",
    "fingerprint",
    "last_ip",
    "last_place",
    "first_seen_at",
    "last_active_at",
    "revoked_at",
];

/// Adds a device.
pub(crate) async fn insert(conn: &impl ConnectionTrait, d: &Device) -> Result<(), DbError> {
    insert_row(conn, TABLE, COLUMNS, values(d)?).await
}

/// Writes a device whole.
pub(crate) async fn put(conn: &impl ConnectionTrait, d: &Device) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .and_where(Expr::col("id").eq(d.id))
        .and_where(Expr::col("user_id").eq(d.user));
    for (column, value) in COLUMNS.into_iter().zip(values(d)?).skip(3) {
        if column != "first_seen_at" {
            update.value(column, value);
        }
    }
    conn.execute(&update).await?;
    Ok(())
}

fn values(d: &Device) -> Result<[Expr; 16], DbError> {
    Ok([
        d.id.into(),
        d.tenant.into(),
        d.user.into(),
        d.client_id.clone().into(),
        d.secret_hash.to_vec().into(),
        d.platform.as_str().into(),
        d.name.clone().into(),
        d.model.clone().into(),
        d.app_version.clone().into(),
        d.os_version.clone().into(),
        to_json(&d.fingerprint)?.into(),
        d.last_ip.clone().into(),
        d.last_place.clone().into(),
        d.first_seen_at.into(),
        d.last_active_at.into(),
        d.revoked_at.into(),
    ])
}

/// A device of a user by the client's own name for it.
pub(crate) async fn by_client(
    conn: &impl ConnectionTrait,
    user: Uuid,
    client_id: &str,
) -> Result<Option<Device>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("client_id").eq(client_id));
    one(conn, &select, read).await
}

/// A device of a user.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    user: Uuid,
    id: Uuid,
) -> Result<Option<Device>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("id").eq(id));
    one(conn, &select, read).await
}

/// Most devices that are read at once; a user has no more than this.
pub(crate) const MOST: u64 = 200;

/// The devices of a user that were not kicked, last active first.
pub(crate) async fn of_user(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
) -> Result<Vec<Device>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("revoked_at").is_null())
        .order_by("last_active_at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(MOST);
    all(conn, &select, read).await
}

/// Some devices of a user.
pub(crate) async fn some(
    conn: &impl ConnectionTrait,
    user: Uuid,
    ids: &[Uuid],
) -> Result<Vec<Device>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("id").is_in(ids.iter().copied()));
    all(conn, &select, read).await
}

/// Writes where and when a device was seen last, and its fingerprint when that changed.
pub(crate) async fn seen(
    conn: &impl ConnectionTrait,
    id: Uuid,
    ip: Option<String>,
    now: Timestamp,
    fingerprint: Option<&Fingerprint>,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("last_ip", ip)
        .value("last_active_at", now)
        .and_where(Expr::col("id").eq(id));
    if let Some(fingerprint) = fingerprint {
        update.value("fingerprint", to_json(fingerprint)?);
    }
    conn.execute(&update).await?;
    Ok(())
}

/// Gives a device a name.
pub(crate) async fn rename(
    conn: &impl ConnectionTrait,
    user: Uuid,
    id: Uuid,
    name: &str,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("name", name)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("revoked_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Takes a device's trust away; false when it had none.
pub(crate) async fn revoke(
    conn: &impl ConnectionTrait,
    user: Uuid,
    id: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("revoked_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Removes the devices of a user that were active least recently and have no live session, all but [`MOST`].
pub(crate) async fn crowd(conn: &impl ConnectionTrait, user: Uuid) -> Result<u64, DbError> {
    let mut latest = Query::select();
    latest
        .column("id")
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .order_by("last_active_at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(MOST);
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("id").not_in_subquery(latest))
        .and_where(Expr::exists(live()).not());
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// Removes devices that were not active since `before` and have no live session, at most `limit`.
pub(crate) async fn trim(
    conn: &impl ConnectionTrait,
    before: Timestamp,
    limit: u64,
) -> Result<u64, DbError> {
    let mut over = Query::select();
    over.column("id")
        .from(TABLE)
        .and_where(Expr::col("last_active_at").lt(before))
        .and_where(Expr::exists(live()).not())
        .limit(limit);
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("id").in_subquery(over));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// The live session of a device of the outer statement.
fn live() -> SelectStatement {
    Query::select()
        .column(("sessions", "id"))
        .from("sessions")
        .and_where(Expr::col(("sessions", "device_id")).equals((TABLE, "id")))
        .and_where(Expr::col(("sessions", "revoked_at")).is_null())
        .take()
}

fn read(row: &QueryResult) -> Result<Device, DbError> {
    let hash: Vec<u8> = row.try_get("", "secret_hash")?;
    let platform: String = row.try_get("", "platform")?;
    Ok(Device {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        user: row.try_get("", "user_id")?,
        client_id: row.try_get("", "client_id")?,
        secret_hash: hash.as_slice().try_into().map_err(|_| broken("hash"))?,
        platform: Platform::parse(&platform).ok_or_else(|| broken("platform"))?,
        name: row.try_get("", "name")?,
        model: row.try_get("", "model")?,
        app_version: row.try_get("", "app_version")?,
        os_version: row.try_get("", "os_version")?,
        fingerprint: from_json(row, "fingerprint")?,
        last_ip: row.try_get("", "last_ip")?,
        last_place: row.try_get("", "last_place")?,
        first_seen_at: row.try_get("", "first_seen_at")?,
        last_active_at: row.try_get("", "last_active_at")?,
        revoked_at: row.try_get("", "revoked_at")?,
    })
}
