//! Sessions: one row a login, rotated in place.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, JoinType, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, broken, from_json, insert as insert_row, to_json, to_u32};
use crate::domain::device::Fingerprint;
use crate::domain::rotation::Stored;
use crate::domain::session::Session;
use crate::domain::user::UserStatus;

const TABLE: &str = "sessions";
const COLUMNS: [&str; 21] = [
    "id",
    "tenant_id",
    "user_id",
    "device_id",
    "method",
    "amr",
    "aal",
    "auth_time",
    "ip",
    "user_agent",
    "cookie",
    "rt_kid",
    "rt_counter",
    "rt_rotated_at",
    "rt_retried",
    "idle_expires_at",
    "abs_expires_at",
    "created_at",
    "last_active_at",
    "revoked_at",
    "revoke_reason",
];

/// Adds a session. A device with a live one is a unique violation.
pub(crate) async fn insert(conn: &impl ConnectionTrait, s: &Session) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            s.id.into(),
            s.tenant.into(),
            s.user.into(),
            s.device.into(),
            s.method.clone().into(),
            to_json(&s.amr)?.into(),
            i32::from(s.aal).into(),
            s.auth_time.into(),
            s.ip.clone().into(),
            s.user_agent.clone().into(),
            s.cookie.into(),
            s.rt_kid.clone().into(),
            i64::from(s.rt_counter).into(),
            s.rt_rotated_at.into(),
            i32::from(s.rt_retried).into(),
            s.idle_expires_at.into(),
            s.abs_expires_at.into(),
            s.created_at.into(),
            s.last_active_at.into(),
            s.revoked_at.into(),
            s.revoke_reason.clone().into(),
        ],
    )
    .await
}

/// The session that a verified token names, live or not. Whoever asks compares user and tenant.
pub(crate) async fn get(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<Session>, DbError> {
    let mut select = select();
    select.and_where(Expr::col("id").eq(id));
    super::one(conn, &select, read).await
}

/// A session of a tenant, live or not.
pub(crate) async fn of_tenant(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<Session>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    super::one(conn, &select, read).await
}

/// The live session of a user's device.
pub(crate) async fn on_device(
    conn: &impl ConnectionTrait,
    user: Uuid,
    device: Uuid,
) -> Result<Option<Session>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("device_id").eq(device))
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("revoked_at").is_null());
    super::one(conn, &select, read).await
}

/// What a refresh needs to know, from one statement: the session, its user, its device, the user's roles.
#[derive(Debug)]
pub(crate) struct Standing {
    pub session: Session,
    pub status: UserStatus,
    pub tv: u32,
    pub client_id: String,
    pub secret_hash: [u8; 32],
    pub fingerprint: Fingerprint,
    pub device_revoked: bool,
    pub device_ip: Option<String>,
    pub device_active_at: Timestamp,
    /// Names, sorted.
    pub roles: Vec<String>,
}

/// How a session, live or not, stands. It is found by its id alone: whoever asks holds a token that names it.
pub(crate) async fn standing(
    conn: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<Standing>, DbError> {
    let rows = conn.query_all(&standing_statement(id)).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut roles: Vec<String> = Vec::with_capacity(rows.len());
    for row in &rows {
        roles.extend(row.try_get::<Option<String>>("", "r_name")?);
    }
    roles.sort_unstable();
    let status: String = row.try_get("", "u_status")?;
    let hash: Vec<u8> = row.try_get("", "d_secret_hash")?;
    Ok(Some(Standing {
        session: read(row)?,
        status: UserStatus::parse(&status).ok_or_else(|| broken("status"))?,
        tv: to_u32(row, "u_tv")?,
        client_id: row.try_get("", "d_client_id")?,
        secret_hash: hash.as_slice().try_into().map_err(|_| broken("hash"))?,
        fingerprint: from_json(row, "d_fingerprint")?,
        device_revoked: row
            .try_get::<Option<Timestamp>>("", "d_revoked_at")?
            .is_some(),
        device_ip: row.try_get("", "d_last_ip")?,
        device_active_at: row.try_get("", "d_last_active_at")?,
        roles,
    }))
}

/// The statement behind [`standing`].
pub(crate) fn standing_statement(id: Uuid) -> SelectStatement {
    let own = |table: &'static str, column: &'static str, of: &'static str| {
        Expr::col((table, column))
            .equals(("s", of))
            .and(Expr::col((table, "tenant_id")).equals(("s", "tenant_id")))
    };
    let mut select = Query::select();
    for column in COLUMNS {
        select.expr_as(Expr::col(("s", column)), column);
    }
    select
        .expr_as(Expr::col(("u", "status")), "u_status")
        .expr_as(Expr::col(("u", "tv")), "u_tv")
        .expr_as(Expr::col(("d", "client_id")), "d_client_id")
        .expr_as(Expr::col(("d", "secret_hash")), "d_secret_hash")
        .expr_as(Expr::col(("d", "fingerprint")), "d_fingerprint")
        .expr_as(Expr::col(("d", "revoked_at")), "d_revoked_at")
        .expr_as(Expr::col(("d", "last_ip")), "d_last_ip")
        .expr_as(Expr::col(("d", "last_active_at")), "d_last_active_at")
        .expr_as(Expr::col(("r", "name")), "r_name")
        .from_as(TABLE, "s")
        .join_as(JoinType::InnerJoin, "users", "u", own("u", "id", "user_id"))
        .join_as(
            JoinType::InnerJoin,
            "devices",
            "d",
            own("d", "id", "device_id"),
        )
        .join_as(
            JoinType::LeftJoin,
            "user_roles",
            "g",
            own("g", "user_id", "user_id"),
        )
        .join_as(
            JoinType::LeftJoin,
            "roles",
            "r",
            Expr::col(("r", "id")).equals(("g", "role_id")),
        )
        .and_where(Expr::col(("s", "id")).eq(id));
    select
}

/// What a rotation writes.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    pub kid: String,
    pub stored: Stored,
    pub idle_expires_at: Timestamp,
    /// The session must authenticate again before anything strong.
    pub weakened: bool,
}

/// Rotates the refresh token of a live session whose counter still is `from`; false when somebody was faster
/// or the session has ended.
pub(crate) async fn rotate(
    conn: &impl ConnectionTrait,
    id: Uuid,
    from: u32,
    to: &Rotation,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("rt_kid", to.kid.as_str())
        .value("rt_counter", i64::from(to.stored.counter))
        .value("rt_rotated_at", to.stored.rotated_at)
        .value("rt_retried", i32::from(to.stored.retried))
        .value("idle_expires_at", to.idle_expires_at)
        .value("last_active_at", to.stored.rotated_at)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("rt_counter").eq(i64::from(from)))
        .and_where(Expr::col("revoked_at").is_null());
    if to.weakened {
        update
            .value("aal", 1)
            .value("auth_time", Timestamp::default());
    }
    Ok(conn.execute(&update).await?.rows_affected() == 1)
}

/// Marks a generation of refresh tokens as retried; false when it is over.
pub(crate) async fn retried(
    conn: &impl ConnectionTrait,
    id: Uuid,
    counter: u32,
    retried: u8,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("rt_retried", i32::from(retried))
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("rt_counter").eq(i64::from(counter)))
        .and_where(Expr::col("revoked_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() == 1)
}

/// Which sessions of a tenant are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub user: Option<Uuid>,
    pub method: Option<String>,
    /// Those that have ended, too.
    pub ended: bool,
    /// Behind this one.
    pub after: Option<(Timestamp, Uuid)>,
}

/// Sessions of a tenant, newest first.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    filter: &Filter,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Session>, DbError> {
    all(conn, &list_statement(tenant, filter, now, limit), read).await
}

/// The statement behind [`list`].
pub(crate) fn list_statement(
    tenant: Uuid,
    filter: &Filter,
    now: Timestamp,
    limit: u64,
) -> SelectStatement {
    let mut select = select();
    select
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("created_at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(limit);
    if let Some(user) = filter.user {
        select.and_where(Expr::col("user_id").eq(user));
    }
    if let Some(method) = &filter.method {
        select.and_where(Expr::col("method").eq(method.as_str()));
    }
    if !filter.ended {
        select
            .and_where(Expr::col("revoked_at").is_null())
            .and_where(Expr::col("idle_expires_at").gt(now))
            .and_where(Expr::col("abs_expires_at").gt(now));
    }
    if let Some((at, id)) = filter.after {
        let key = Expr::tuple([Expr::col("created_at"), Expr::col("id")]);
        select.and_where(key.lt(Expr::tuple([Expr::value(at), Expr::value(id)])));
    }
    select
}

/// Ends sessions whose time is over: their rows stay for a while, their devices take no slot.
pub(crate) async fn expire(
    conn: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<u64, DbError> {
    let mut over = Query::select();
    over.column("id")
        .from(TABLE)
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("idle_expires_at").lte(now))
        .limit(limit);
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .value("revoke_reason", "expired")
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("id").in_subquery(over));
    Ok(conn.execute(&update).await?.rows_affected())
}

/// Removes sessions that ended before a moment, at most `limit`.
pub(crate) async fn trim(
    conn: &impl ConnectionTrait,
    before: Timestamp,
    limit: u64,
) -> Result<u64, DbError> {
    let mut over = Query::select();
    over.column("id")
        .from(TABLE)
        .and_where(Expr::col("revoked_at").lt(before))
        .limit(limit);
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("id").in_subquery(over));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// How many sessions are live.
pub(crate) async fn count_live(
    conn: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<i64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id").count(), "n")
        .from(TABLE)
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("idle_expires_at").gt(now));
    let count = super::one(conn, &select, |row| Ok(row.try_get("", "n")?)).await?;
    Ok(count.unwrap_or(0))
}

/// Live sessions of a user, oldest activity first.
pub(crate) async fn live(conn: &impl ConnectionTrait, user: Uuid) -> Result<Vec<Session>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("revoked_at").is_null())
        .order_by("last_active_at", Order::Asc)
        .order_by("id", Order::Asc);
    all(conn, &select, read).await
}

/// Remembers that the user of a live session authenticated again: when, with what in all, and how strongly.
/// False when it has ended.
pub(crate) async fn raise_aal(
    conn: &impl ConnectionTrait,
    id: Uuid,
    auth_time: Timestamp,
    amr: &[String],
    aal: u8,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("auth_time", auth_time)
        .value("amr", to_json(&amr)?)
        .value("aal", i32::from(aal))
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("revoked_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Ends a live session; false when it had ended before.
pub(crate) async fn end(
    conn: &impl ConnectionTrait,
    id: Uuid,
    reason: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .value("revoke_reason", reason)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("revoked_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Ends all live sessions of a user, but perhaps one, and returns their ids.
pub(crate) async fn end_all(
    conn: &impl ConnectionTrait,
    user: Uuid,
    except: Option<Uuid>,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<Uuid>, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .value("revoke_reason", reason)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("revoked_at").is_null())
        .returning_col("id");
    if let Some(id) = except {
        update.and_where(Expr::col("id").ne(id));
    }
    let rows = conn.query_all(&update).await?;
    rows.iter().map(|r| Ok(r.try_get("", "id")?)).collect()
}

/// Ends all live sessions of a tenant, or of the installation.
pub(crate) async fn end_everywhere(
    conn: &impl ConnectionTrait,
    tenant: Option<Uuid>,
    reason: &str,
    now: Timestamp,
) -> Result<u64, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .value("revoke_reason", reason)
        .and_where(Expr::col("revoked_at").is_null());
    if let Some(tenant) = tenant {
        update.and_where(Expr::col("tenant_id").eq(tenant));
    }
    Ok(conn.execute(&update).await?.rows_affected())
}

/// A select over all columns of sessions.
pub(crate) fn select() -> SelectStatement {
    Query::select().columns(COLUMNS).from(TABLE).take()
}

/// A row as a session.
pub(crate) fn read(row: &QueryResult) -> Result<Session, DbError> {
    let aal: i32 = row.try_get("", "aal")?;
    let retried: i32 = row.try_get("", "rt_retried")?;
    Ok(Session {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        user: row.try_get("", "user_id")?,
        device: row.try_get("", "device_id")?,
        method: row.try_get("", "method")?,
        amr: from_json(row, "amr")?,
        aal: u8::try_from(aal).unwrap_or(0),
        auth_time: row.try_get("", "auth_time")?,
        ip: row.try_get("", "ip")?,
        user_agent: row.try_get("", "user_agent")?,
        cookie: row.try_get("", "cookie")?,
        rt_kid: row.try_get("", "rt_kid")?,
        rt_counter: to_u32(row, "rt_counter")?,
        rt_rotated_at: row.try_get("", "rt_rotated_at")?,
        rt_retried: u8::try_from(retried).unwrap_or(0),
        idle_expires_at: row.try_get("", "idle_expires_at")?,
        abs_expires_at: row.try_get("", "abs_expires_at")?,
        created_at: row.try_get("", "created_at")?,
        last_active_at: row.try_get("", "last_active_at")?,
        revoked_at: row.try_get("", "revoked_at")?,
        revoke_reason: row.try_get("", "revoke_reason")?,
    })
}
