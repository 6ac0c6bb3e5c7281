//! Rows of Consul's sessions and events.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{delete_by, from_json, to_i64, to_json, to_u64, upsert};

const SESSIONS: &str = "consul_sessions";
const EVENTS: &str = "consul_events";
const COLUMNS: [&str; 14] = [
    "id",
    "tenant_id",
    "name",
    "node",
    "ttl",
    "ttl_ms",
    "lock_delay_ns",
    "behavior",
    "checks",
    "watched",
    "owner",
    "create_index",
    "modify_index",
    "expires_at",
];

/// The checks on which a session hangs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct SessionChecks {
    #[serde(default)]
    pub node: Vec<String>,
    /// Checks of services, by id.
    #[serde(default)]
    pub service: Option<Vec<ServiceCheck>>,
}

/// A check of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceCheck {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Namespace", default)]
    pub namespace: String,
}

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    pub id: Uuid,
    pub tenant: Uuid,
    pub name: String,
    pub node: String,
    /// As given, empty for none.
    pub ttl: String,
    pub ttl_ms: i64,
    pub lock_delay_ns: i64,
    /// Its keys are deleted with it, not only released.
    pub deletes: bool,
    pub checks: SessionChecks,
    /// It hangs on more than the agent's own node, so that it ends when checks do.
    pub watched: bool,
    /// Whoever made it, for the limit of each principal.
    pub owner: String,
    pub create_index: u64,
    pub modify_index: u64,
    pub expires_at: Option<Timestamp>,
}

/// Writes a session.
pub(crate) async fn put(conn: &impl ConnectionTrait, s: &Session) -> Result<(), DbError> {
    upsert(
        conn,
        SESSIONS,
        &["id"],
        COLUMNS,
        [
            s.id.into(),
            s.tenant.into(),
            s.name.clone().into(),
            s.node.clone().into(),
            s.ttl.clone().into(),
            s.ttl_ms.into(),
            s.lock_delay_ns.into(),
            if s.deletes { "delete" } else { "release" }.into(),
            to_json(&s.checks)?.into(),
            s.watched.into(),
            s.owner.clone().into(),
            to_i64(s.create_index).into(),
            to_i64(s.modify_index).into(),
            s.expires_at.into(),
        ],
    )
    .await
}

/// Moves the end of a session.
pub(crate) async fn renew(
    conn: &impl ConnectionTrait,
    id: Uuid,
    expires_at: Timestamp,
) -> Result<u64, DbError> {
    let mut update = Query::update();
    update
        .table(SESSIONS)
        .value("expires_at", expires_at)
        .and_where(Expr::col("id").eq(id));
    Ok(conn.execute(&update).await?.rows_affected())
}

/// Removes a session.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<u64, DbError> {
    delete_by(conn, SESSIONS, "id", id).await
}

/// One session of a tenant.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<Session>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(SESSIONS)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    conn.query_one(&select)
        .await?
        .as_ref()
        .map(session)
        .transpose()
}

/// Sessions of a tenant, in the order of their ids.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    node: Option<&str>,
) -> Result<Vec<Session>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(SESSIONS)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("id", Order::Asc);
    if let Some(node) = node {
        select.and_where(Expr::col("node").eq(node));
    }
    super::all(conn, &select, session).await
}

/// Sessions of everybody that hang on checks.
pub(crate) async fn watched(conn: &impl ConnectionTrait) -> Result<Vec<Session>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(SESSIONS)
        .and_where(Expr::col("watched").eq(true))
        .order_by("id", Order::Asc);
    super::all(conn, &select, session).await
}

/// Sessions whose time is over, at most `limit`.
pub(crate) async fn expired(
    conn: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Session>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(SESSIONS)
        .and_where(Expr::col("expires_at").lte(now))
        .order_by("expires_at", Order::Asc)
        .limit(limit);
    super::all(conn, &select, session).await
}

/// How many sessions there are: of one owner, or of everybody.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    owner: Option<(Uuid, &str)>,
) -> Result<i64, DbError> {
    let mut select = Query::select();
    select.expr_as(Expr::col("id").count(), "n").from(SESSIONS);
    if let Some((tenant, owner)) = owner {
        select
            .and_where(Expr::col("tenant_id").eq(tenant))
            .and_where(Expr::col("owner").eq(owner));
    }
    let Some(row) = conn.query_one(&select).await? else {
        return Ok(0);
    };
    Ok(row.try_get("", "n")?)
}

fn session(row: &QueryResult) -> Result<Session, DbError> {
    let behavior: String = row.try_get("", "behavior")?;
    Ok(Session {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        name: row.try_get("", "name")?,
        node: row.try_get("", "node")?,
        ttl: row.try_get("", "ttl")?,
        ttl_ms: row.try_get("", "ttl_ms")?,
        lock_delay_ns: row.try_get("", "lock_delay_ns")?,
        deletes: behavior == "delete",
        checks: from_json(row, "checks")?,
        watched: row.try_get("", "watched")?,
        owner: row.try_get("", "owner")?,
        create_index: to_u64(row, "create_index")?,
        modify_index: to_u64(row, "modify_index")?,
        expires_at: row.try_get("", "expires_at")?,
    })
}

/// For whom an event is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct EventFilters {
    #[serde(default)]
    pub node: String,
    #[serde(default)]
    pub service: String,
    #[serde(default)]
    pub tag: String,
}

/// An event that somebody fired.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UserEvent {
    pub id: Uuid,
    pub tenant: Uuid,
    pub ltime: u64,
    pub name: String,
    pub payload: Option<Vec<u8>>,
    pub filters: EventFilters,
    pub owner: String,
}

/// Writes an event.
pub(crate) async fn put_event(conn: &impl ConnectionTrait, e: &UserEvent) -> Result<(), DbError> {
    upsert(
        conn,
        EVENTS,
        &["id"],
        [
            "id",
            "tenant_id",
            "ltime",
            "name",
            "payload",
            "filters",
            "owner",
        ],
        [
            e.id.into(),
            e.tenant.into(),
            to_i64(e.ltime).into(),
            e.name.clone().into(),
            e.payload.clone().into(),
            to_json(&e.filters)?.into(),
            e.owner.clone().into(),
        ],
    )
    .await
}

/// Events of a tenant, oldest first.
pub(crate) async fn events(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
) -> Result<Vec<UserEvent>, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "id",
            "tenant_id",
            "ltime",
            "name",
            "payload",
            "filters",
            "owner",
        ])
        .from(EVENTS)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("ltime", Order::Asc);
    super::all(conn, &select, |row| {
        Ok(UserEvent {
            id: row.try_get("", "id")?,
            tenant: row.try_get("", "tenant_id")?,
            ltime: to_u64(row, "ltime")?,
            name: row.try_get("", "name")?,
            payload: row.try_get("", "payload")?,
            filters: from_json(row, "filters")?,
            owner: row.try_get("", "owner")?,
        })
    })
    .await
}

/// Removes all but the newest `keep` events of an owner.
pub(crate) async fn trim_events(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    owner: &str,
    keep: u64,
) -> Result<(), DbError> {
    let mut oldest = Query::select();
    oldest
        .column("ltime")
        .from(EVENTS)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("owner").eq(owner))
        .order_by("ltime", Order::Desc)
        .offset(keep)
        .limit(1);
    let Some(row) = conn.query_one(&oldest).await? else {
        return Ok(());
    };
    let upto: i64 = row.try_get("", "ltime")?;
    let mut delete = Query::delete();
    delete
        .from_table(EVENTS)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("owner").eq(owner))
        .and_where(Expr::col("ltime").lte(upto));
    conn.execute(&delete).await?;
    Ok(())
}
