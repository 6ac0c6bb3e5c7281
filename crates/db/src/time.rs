//! The time that all replicas share: the server's on PostgreSQL, the process's clock on SQLite.

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Clock, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::error::DbError;

/// The present moment.
pub(crate) async fn now(
    conn: &impl ConnectionTrait,
    clock: &Arc<dyn Clock>,
) -> Result<Timestamp, DbError> {
    if conn.get_database_backend() != DbBackend::Postgres {
        return Ok(clock.now());
    }
    let statement = Statement::from_string(DbBackend::Postgres, "SELECT clock_timestamp() AS now");
    let row = conn
        .query_one_raw(statement)
        .await?
        .ok_or_else(|| DbError::Other("the server did not tell the time".to_owned()))?;
    Ok(row.try_get("", "now")?)
}

/// The present moment as an expression inside a statement.
pub(crate) fn now_expr(backend: DbBackend, clock: &Arc<dyn Clock>) -> Expr {
    match backend {
        DbBackend::Postgres => Expr::cust("clock_timestamp()"),
        _ => Expr::value(clock.now()),
    }
}

/// The moment `ahead` from now, as an expression inside a statement.
pub(crate) fn ahead_expr(backend: DbBackend, clock: &Arc<dyn Clock>, ahead: Duration) -> Expr {
    let ms = i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX);
    match backend {
        DbBackend::Postgres => {
            Expr::cust(format!("clock_timestamp() + interval '{ms} milliseconds'"))
        }
        _ => Expr::value(clock.now() + chrono::Duration::milliseconds(ms)),
    }
}

/// The moment `back` ago, as an expression inside a statement.
pub(crate) fn back_expr(backend: DbBackend, clock: &Arc<dyn Clock>, back: Duration) -> Expr {
    let ms = i64::try_from(back.as_millis()).unwrap_or(i64::MAX);
    match backend {
        DbBackend::Postgres => {
            Expr::cust(format!("clock_timestamp() - interval '{ms} milliseconds'"))
        }
        _ => Expr::value(clock.now() - chrono::Duration::milliseconds(ms)),
    }
}
