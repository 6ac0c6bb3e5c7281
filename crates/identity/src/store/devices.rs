//! Devices of users.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{all, broken, from_json, insert as insert_row, one, to_json};
use crate::domain::device::{Device, Platform};

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

/// All devices of a user, last active first.
pub(crate) async fn of_user(
    conn: &impl ConnectionTrait,
    user: Uuid,
) -> Result<Vec<Device>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .order_by("last_active_at", Order::Desc)
        .order_by("id", Order::Desc);
    all(conn, &select, read).await
}

/// Removes devices that were not active since `before` and have no live session.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut live = Query::select();
    live.column("device_id")
        .from("sessions")
        .and_where(Expr::col("revoked_at").is_null());
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("last_active_at").lt(before))
        .and_where(Expr::col("id").not_in_subquery(live.take()));
    Ok(conn.execute(&delete).await?.rows_affected())
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
