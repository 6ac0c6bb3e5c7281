//! Which actions a tenant has records of.

use portico_db::DbError;
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query};
use uuid::Uuid;

use super::{all, escaped, like};

const TABLE: &str = "audit_actions";

/// Notes actions; those that are known already stay.
pub(crate) async fn note(
    conn: &impl ConnectionTrait,
    actions: &[(Uuid, String)],
) -> Result<(), DbError> {
    if actions.is_empty() {
        return Ok(());
    }
    let mut insert = Query::insert();
    insert.into_table(TABLE).columns(["tenant_id", "action"]);
    for (tenant, action) in actions {
        insert.values_panic([(*tenant).into(), action.as_str().into()]);
    }
    insert.on_conflict(
        OnConflict::columns(["tenant_id", "action"])
            .do_nothing()
            .to_owned(),
    );
    conn.execute(&insert).await?;
    Ok(())
}

/// The actions of a tenant, or of all, that begin with `prefix`, in order; at most `limit`.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    tenant: Option<Uuid>,
    prefix: &str,
    limit: u64,
) -> Result<Vec<String>, DbError> {
    let mut select = Query::select();
    select
        .distinct()
        .column("action")
        .from(TABLE)
        .order_by("action", Order::Asc)
        .limit(limit);
    if let Some(tenant) = tenant {
        select.and_where(Expr::col("tenant_id").eq(tenant));
    }
    if !prefix.is_empty() {
        // Not a range: what lies behind a prefix depends on the server's collation. The table is small.
        select.and_where(like("action", &format!("{}%", escaped(prefix))));
    }
    all(conn, &select, |row| Ok(row.try_get("", "action")?)).await
}
