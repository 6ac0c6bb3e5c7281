//! Wrong passwords in a row, by a keyed hash of whom they were for.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Query};

use super::{one, to_u32};
use crate::domain::lock::Lock;

const TABLE: &str = "account_locks";
const COLUMNS: [&str; 4] = ["subject", "failures", "first_failure_at", "locked_until"];

/// The lock of a subject.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    subject: [u8; 32],
) -> Result<Option<Lock>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("subject").eq(subject.to_vec()));
    one(conn, &select, read).await
}

/// Counts a failure and answers what stands there now; the row stays locked until the transaction ends, so
/// that of many failures at once none is lost.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    subject: [u8; 32],
    now: Timestamp,
) -> Result<Option<Lock>, DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS)
        .values_panic([
            subject.to_vec().into(),
            1_i64.into(),
            now.into(),
            None::<Timestamp>.into(),
        ])
        .on_conflict(
            OnConflict::column("subject")
                .value("failures", Expr::col((TABLE, "failures")).add(1))
                .to_owned(),
        )
        .returning(Query::returning().columns(COLUMNS));
    one(conn, &insert, read).await
}

/// Writes a lock that is there.
pub(crate) async fn put(
    conn: &impl ConnectionTrait,
    subject: [u8; 32],
    lock: &Lock,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("failures", i64::from(lock.failures))
        .value("first_failure_at", lock.first_failure_at)
        .value("locked_until", lock.locked_until)
        .and_where(Expr::col("subject").eq(subject.to_vec()));
    conn.execute(&update).await?;
    Ok(())
}

/// Forgets the failures of subjects; how many there were.
pub(crate) async fn forget(
    conn: &impl ConnectionTrait,
    subjects: &[[u8; 32]],
) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("subject").is_in(subjects.iter().map(|s| s.to_vec())));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// Removes rows that began and ended before a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("first_failure_at").lt(before))
        .and_where(
            Expr::col("locked_until")
                .is_null()
                .or(Expr::col("locked_until").lt(before)),
        );
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn read(row: &QueryResult) -> Result<Lock, DbError> {
    Ok(Lock {
        failures: to_u32(row, "failures")?,
        first_failure_at: row.try_get("", "first_failure_at")?,
        locked_until: row.try_get("", "locked_until")?,
    })
}
