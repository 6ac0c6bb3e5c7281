//! Rows of the table `backups`. They are the installation's, of no tenant.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query, Value as DbValue};
use serde_json::Value;
use uuid::Uuid;

const TABLE: &str = "backups";
const COLUMNS: [&str; 18] = [
    "id",
    "kind",
    "state",
    "location",
    "node",
    "objects",
    "bytes",
    "rows",
    "sha256",
    "key_id",
    "db_version",
    "verified_at",
    "restored_at",
    "report",
    "error",
    "asked_by",
    "at",
    "ended_at",
];

/// A backup as it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub id: Uuid,
    pub kind: String,
    pub state: String,
    pub location: String,
    pub node: Option<String>,
    pub objects: String,
    pub bytes: Option<i64>,
    pub rows: Option<i64>,
    pub sha256: Option<String>,
    pub key_id: Option<String>,
    pub db_version: Option<String>,
    pub verified_at: Option<Timestamp>,
    pub restored_at: Option<Timestamp>,
    pub report: Option<Value>,
    pub error: Option<String>,
    pub asked_by: String,
    pub at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// Adds a backup; false when it is there already.
pub(crate) async fn insert(conn: &impl ConnectionTrait, row: &Row) -> Result<bool, DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS)
        .values_panic([
            row.id.into(),
            row.kind.as_str().into(),
            row.state.as_str().into(),
            row.location.as_str().into(),
            row.node.clone().into(),
            row.objects.as_str().into(),
            row.bytes.into(),
            row.rows.into(),
            row.sha256.clone().into(),
            row.key_id.clone().into(),
            row.db_version.clone().into(),
            row.verified_at.into(),
            row.restored_at.into(),
            row.report.clone().into(),
            row.error.clone().into(),
            row.asked_by.as_str().into(),
            row.at.into(),
            row.ended_at.into(),
        ])
        .on_conflict(OnConflict::new().do_nothing().to_owned());
    Ok(conn.execute(&insert).await?.rows_affected() > 0)
}

/// One backup.
pub(crate) async fn get(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<Row>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("id").eq(id));
    conn.query_one(&select)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// Backups, the newest first, behind `after`.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<Row>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .order_by("id", Order::Desc)
        .limit(limit);
    if let Some(after) = after {
        select.and_where(Expr::col("id").lt(after));
    }
    let rows = conn.query_all(&select).await?;
    rows.iter().map(read).collect()
}

/// The newest backup that ended well.
pub(crate) async fn newest(conn: &impl ConnectionTrait) -> Result<Option<Row>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("state").is_in(["done", "verifying"]))
        .order_by("at", Order::Desc)
        .limit(1);
    conn.query_one(&select)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// Changes columns of a backup whose state is one of `from`; false when it is not.
pub(crate) async fn set(
    conn: &impl ConnectionTrait,
    id: Uuid,
    from: &[&'static str],
    values: impl IntoIterator<Item = (&'static str, DbValue)>,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    let values = values.into_iter().map(|(name, value)| (name, value.into()));
    update
        .table(TABLE)
        .values::<&'static str, _>(values)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("state").is_in(from.iter().copied()));
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Removes a backup's row.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbError> {
    let mut delete = Query::delete();
    delete.from_table(TABLE).and_where(Expr::col("id").eq(id));
    Ok(conn.execute(&delete).await?.rows_affected() > 0)
}

fn read(row: &QueryResult) -> Result<Row, DbError> {
    Ok(Row {
        id: row.try_get("", "id")?,
        kind: row.try_get("", "kind")?,
        state: row.try_get("", "state")?,
        location: row.try_get("", "location")?,
        node: row.try_get("", "node")?,
        objects: row.try_get("", "objects")?,
        bytes: row.try_get("", "bytes")?,
        rows: row.try_get("", "rows")?,
        sha256: row.try_get("", "sha256")?,
        key_id: row.try_get("", "key_id")?,
        db_version: row.try_get("", "db_version")?,
        verified_at: row.try_get("", "verified_at")?,
        restored_at: row.try_get("", "restored_at")?,
        report: row.try_get("", "report")?,
        error: row.try_get("", "error")?,
        asked_by: row.try_get("", "asked_by")?,
        at: row.try_get("", "at")?,
        ended_at: row.try_get("", "ended_at")?,
    })
}

#[cfg(test)]
mod tests {
    use portico_db::testing::{START_MS, each_backend};
    use portico_db::{Db, Migrations};

    use super::*;

    fn row(number: u128) -> Row {
        Row {
            id: Uuid::from_u128(number),
            kind: "manual".to_owned(),
            state: "waiting".to_owned(),
            location: format!("{number}.pbk"),
            node: None,
            objects: "names".to_owned(),
            bytes: None,
            rows: None,
            sha256: None,
            key_id: None,
            db_version: None,
            verified_at: None,
            restored_at: None,
            report: None,
            error: None,
            asked_by: "somebody".to_owned(),
            at: portico_base::clock::from_unix_ms(START_MS),
            ended_at: None,
        }
    }

    async fn change(db: &Db, from: &[&'static str], values: Vec<(&'static str, DbValue)>) -> bool {
        let tx = db.begin().await.unwrap();
        let changed = set(&tx, Uuid::from_u128(2), from, values).await.unwrap();
        tx.commit().await.unwrap();
        changed
    }

    #[tokio::test]
    async fn rows_come_and_go_and_change_only_from_the_state_that_is_meant() {
        each_backend(async |test| {
            let steps = Migrations::new([super::super::step()]);
            test.db.migrate(&[("control", steps)]).await.unwrap();
            let db = &test.db;
            let tx = db.begin().await.unwrap();
            for number in 1..=3 {
                assert!(insert(&tx, &row(number)).await.unwrap());
            }
            assert!(!insert(&tx, &row(2)).await.unwrap(), "it is there already");
            tx.commit().await.unwrap();
            assert_eq!(newest(db.reader()).await.unwrap(), None);
            let report = serde_json::json!({ "good": true });
            let done = || {
                vec![
                    ("state", "done".into()),
                    ("bytes", 7_i64.into()),
                    ("report", report.clone().into()),
                ]
            };
            assert!(!change(db, &["running"], done()).await);
            assert!(change(db, &["waiting", "running"], done()).await);
            let two = newest(db.reader()).await.unwrap().unwrap();
            assert_eq!((two.bytes, &two.report), (Some(7), &Some(report.clone())));
            let page = list(db.reader(), Some(Uuid::from_u128(3)), 1)
                .await
                .unwrap();
            assert_eq!(page, [two]);
            let tx = db.begin().await.unwrap();
            assert!(delete(&tx, Uuid::from_u128(2)).await.unwrap());
            assert!(!delete(&tx, Uuid::from_u128(2)).await.unwrap());
            tx.commit().await.unwrap();
            assert_eq!(list(db.reader(), None, 10).await.unwrap().len(), 2);
        })
        .await;
    }
}
