//! Erasures: which have begun, and how far each service's part is.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query};
use uuid::Uuid;

use super::{all, broken, insert as insert_row, one};
use crate::domain::personal::{Cause, Erasure, Task, TaskState};
use crate::domain::user::UserStatus;

const TABLE: &str = "erasures";
const COLUMNS: [&str; 6] = [
    "user_id",
    "tenant_id",
    "cause",
    "reason",
    "started_at",
    "finished_at",
];
const TASKS: &str = "erasure_tasks";
const TASK_COLUMNS: [&str; 7] = [
    "user_id",
    "service",
    "tenant_id",
    "state",
    "tries",
    "last_error",
    "updated_at",
];

/// Begins one.
pub(crate) async fn insert(conn: &impl ConnectionTrait, e: &Erasure) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            e.user.into(),
            e.tenant.into(),
            e.cause.as_str().into(),
            e.reason.clone().into(),
            e.started_at.into(),
            e.finished_at.into(),
        ],
    )
    .await
}

/// The erasure of a user of a tenant.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
) -> Result<Option<Erasure>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("tenant_id").eq(tenant));
    one(conn, &select, read).await
}

/// All its parts are done; false when that was known.
pub(crate) async fn finish(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("finished_at", now)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("finished_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Users whose erasure is not finished, of all tenants, the oldest first.
pub(crate) async fn open(
    conn: &impl ConnectionTrait,
    limit: u64,
) -> Result<Vec<(Uuid, Uuid)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["tenant_id", "user_id"])
        .from(TABLE)
        .and_where(Expr::col("finished_at").is_null())
        .order_by("started_at", Order::Asc)
        .limit(limit);
    all(conn, &select, |row| {
        Ok((row.try_get("", "tenant_id")?, row.try_get("", "user_id")?))
    })
    .await
}

/// Users whose days of grace are over and who are under no legal hold, of all tenants.
pub(crate) async fn due(
    conn: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<(Uuid, Uuid)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["tenant_id", "id"])
        .from("users")
        .and_where(Expr::col("delete_at").lte(now))
        .and_where(Expr::col("status").ne(UserStatus::Deleted.as_str()))
        .and_where(Expr::col("legal_hold").eq(false))
        .order_by("delete_at", Order::Asc)
        .limit(limit);
    pairs(conn, &select).await
}

/// Users who were deleted up to a moment and whose erasure has not begun, of all tenants.
pub(crate) async fn deleted(
    conn: &impl ConnectionTrait,
    until: Timestamp,
    limit: u64,
) -> Result<Vec<(Uuid, Uuid)>, DbError> {
    let begun = Query::select()
        .column("user_id")
        .from(TABLE)
        .and_where(Expr::col((TABLE, "user_id")).equals(("users", "id")))
        .take();
    let mut select = Query::select();
    select
        .columns(["tenant_id", "id"])
        .from("users")
        .and_where(Expr::col("deleted_at").lte(until))
        .and_where(Expr::col("status").eq(UserStatus::Deleted.as_str()))
        .and_where(Expr::exists(begun).not())
        .order_by("deleted_at", Order::Asc)
        .limit(limit);
    pairs(conn, &select).await
}

async fn pairs(
    conn: &impl ConnectionTrait,
    select: &portico_db::sea_query::SelectStatement,
) -> Result<Vec<(Uuid, Uuid)>, DbError> {
    all(conn, select, |row| {
        Ok((row.try_get("", "tenant_id")?, row.try_get("", "id")?))
    })
    .await
}

/// Adds a part that waits, unless it is there.
pub(crate) async fn add_task(
    conn: &impl ConnectionTrait,
    e: &Erasure,
    service: &str,
) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TASKS)
        .columns(TASK_COLUMNS)
        .values_panic([
            e.user.into(),
            service.into(),
            e.tenant.into(),
            TaskState::Waiting.as_str().into(),
            0.into(),
            Option::<String>::None.into(),
            e.started_at.into(),
        ])
        .on_conflict(
            OnConflict::columns(["user_id", "service"])
                .do_nothing()
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// The parts of a user's erasure, by service.
pub(crate) async fn tasks(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
) -> Result<Vec<Task>, DbError> {
    let mut select = Query::select();
    select
        .columns(TASK_COLUMNS)
        .from(TASKS)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("service", Order::Asc);
    all(conn, &select, |row| {
        let state: String = row.try_get("", "state")?;
        let tries: i32 = row.try_get("", "tries")?;
        Ok(Task {
            service: row.try_get("", "service")?,
            state: TaskState::parse(&state).ok_or_else(|| broken("state"))?,
            tries: u32::try_from(tries).map_err(|_| broken("tries"))?,
            last_error: row.try_get("", "last_error")?,
            updated_at: row.try_get("", "updated_at")?,
        })
    })
    .await
}

/// Notes how a run of a part ended.
pub(crate) async fn note(
    conn: &impl ConnectionTrait,
    (tenant, user): (Uuid, Uuid),
    service: &str,
    error: Option<&str>,
    now: Timestamp,
) -> Result<(), DbError> {
    let state = match error {
        None => TaskState::Done,
        Some(_) => TaskState::Failed,
    };
    let mut update = Query::update();
    update
        .table(TASKS)
        .value("state", state.as_str())
        .value("tries", Expr::col("tries").add(1))
        .value("last_error", error.map(str::to_owned))
        .value("updated_at", now)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("service").eq(service));
    conn.execute(&update).await?;
    Ok(())
}

fn read(row: &QueryResult) -> Result<Erasure, DbError> {
    let cause: String = row.try_get("", "cause")?;
    Ok(Erasure {
        user: row.try_get("", "user_id")?,
        tenant: row.try_get("", "tenant_id")?,
        cause: Cause::parse(&cause).ok_or_else(|| broken("cause"))?,
        reason: row.try_get("", "reason")?,
        started_at: row.try_get("", "started_at")?,
        finished_at: row.try_get("", "finished_at")?,
    })
}
