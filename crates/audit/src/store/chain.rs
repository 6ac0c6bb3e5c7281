//! The chain and its checkpoints.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query};
use uuid::Uuid;

use super::records::{COLUMNS, TABLE as RECORDS, read as read_record};
use super::{all, one, signed, unsigned};
use crate::domain::chain::{Found, Head, Row};
use crate::domain::checkpoint::Checkpoint;
use crate::domain::record::Hash;

const TABLE: &str = "audit_chain";
const CHECKPOINTS: &str = "audit_checkpoints";
const PENDING: &str = "audit_pending";
const CHECKPOINT_COLUMNS: [&str; 6] = ["seq", "link", "count", "at", "key_id", "signature"];

/// A link to write.
pub(crate) struct NewLink {
    pub seq: u64,
    pub record: Uuid,
    pub record_hash: Hash,
    pub link: Hash,
}

/// The last link; nothing when there is none.
pub(crate) async fn last(conn: &impl ConnectionTrait) -> Result<Option<Head>, DbError> {
    let mut select = Query::select();
    select
        .columns(["seq", "link"])
        .from(TABLE)
        .order_by("seq", Order::Desc)
        .limit(1);
    one(conn, &select, read_head).await
}

/// The link with a number.
pub(crate) async fn at(conn: &impl ConnectionTrait, seq: u64) -> Result<Option<Head>, DbError> {
    let mut select = Query::select();
    select
        .columns(["seq", "link"])
        .from(TABLE)
        .and_where(Expr::col("seq").eq(signed(seq)));
    one(conn, &select, read_head).await
}

/// Number of the first link that is still there.
pub(crate) async fn first(conn: &impl ConnectionTrait) -> Result<Option<u64>, DbError> {
    let mut select = Query::select();
    select
        .column("seq")
        .from(TABLE)
        .order_by("seq", Order::Asc)
        .limit(1);
    one(conn, &select, |row| unsigned(row, "seq")).await
}

/// Adds links, and takes their records from those that wait.
pub(crate) async fn append(conn: &impl ConnectionTrait, links: &[NewLink]) -> Result<(), DbError> {
    let (Some(first), Some(last)) = (links.first(), links.last()) else {
        return Ok(());
    };
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(["seq", "record_id", "record_hash", "link"]);
    for link in links {
        insert.values_panic([
            signed(link.seq).into(),
            link.record.into(),
            link.record_hash.to_vec().into(),
            link.link.to_vec().into(),
        ]);
    }
    conn.execute(&insert).await?;
    let mut sealed = Query::select();
    sealed
        .column("record_id")
        .from(TABLE)
        .and_where(Expr::col("seq").between(signed(first.seq), signed(last.seq)));
    let mut delete = Query::delete();
    delete
        .from_table(PENDING)
        .and_where(Expr::col("record_id").in_subquery(sealed));
    conn.execute(&delete).await?;
    Ok(())
}

/// Links from `from` to `to` with their records, in order.
pub(crate) async fn rows(
    conn: &impl ConnectionTrait,
    from: u64,
    to: u64,
    limit: u64,
) -> Result<Vec<Row>, DbError> {
    let mut select = Query::select();
    select
        .columns(["seq", "record_id", "record_hash", "link"].map(|c| (TABLE, c)))
        .columns(COLUMNS.map(|c| (RECORDS, c)))
        .from(TABLE)
        .left_join(
            RECORDS,
            Expr::col((RECORDS, "id")).equals((TABLE, "record_id")),
        )
        .and_where(Expr::col((TABLE, "seq")).between(signed(from), signed(to)))
        .order_by((TABLE, "seq"), Order::Asc)
        .limit(limit);
    all(conn, &select, |row| {
        // What somebody changed by hand may not even be of its type: that is for the verifier to say.
        Ok(Row {
            seq: unsigned(row, "seq")?,
            record_id: row.try_get("", "record_id").unwrap_or_default(),
            record_hash: row.try_get("", "record_hash").unwrap_or_default(),
            link: row.try_get("", "link").unwrap_or_default(),
            record: match row.try_get::<Option<Uuid>>("", "id") {
                Ok(None) => Found::Nothing,
                _ => match read_record(row) {
                    Ok(record) => Found::Record(Box::new(record)),
                    Err(error) => Found::Unreadable(format!("a column cannot be read: {error}")),
                },
            },
        })
    })
    .await
}

/// Removes links up to `to` with their records, and the checkpoints before it.
pub(crate) async fn remove_to(conn: &impl ConnectionTrait, to: u64) -> Result<u64, DbError> {
    let below = || Expr::col("seq").lte(signed(to));
    let mut sealed = Query::select();
    sealed.column("record_id").from(TABLE).and_where(below());
    let mut delete = Query::delete();
    delete
        .from_table(RECORDS)
        .and_where(Expr::col("id").in_subquery(sealed));
    let removed = conn.execute(&delete).await?.rows_affected();
    let mut delete = Query::delete();
    delete.from_table(TABLE).and_where(below());
    conn.execute(&delete).await?;
    let mut delete = Query::delete();
    delete
        .from_table(CHECKPOINTS)
        .and_where(Expr::col("seq").lt(signed(to)));
    conn.execute(&delete).await?;
    Ok(removed)
}

/// Adds a checkpoint; false when there is one at this number already.
pub(crate) async fn add_checkpoint(
    conn: &impl ConnectionTrait,
    c: &Checkpoint,
) -> Result<bool, DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(CHECKPOINTS)
        .columns(CHECKPOINT_COLUMNS)
        .values_panic([
            signed(c.seq).into(),
            c.link.clone().into(),
            signed(c.count).into(),
            c.at.into(),
            c.key_id.as_str().into(),
            c.signature.clone().into(),
        ])
        .on_conflict(OnConflict::column("seq").do_nothing().to_owned());
    Ok(conn.execute(&insert).await?.rows_affected() > 0)
}

/// The newest checkpoint, or the newest before a moment.
pub(crate) async fn last_checkpoint(
    conn: &impl ConnectionTrait,
    before: Option<Timestamp>,
) -> Result<Option<Checkpoint>, DbError> {
    let mut select = checkpoints();
    select.order_by("seq", Order::Desc).limit(1);
    if let Some(before) = before {
        select.and_where(Expr::col("at").lt(before));
    }
    one(conn, &select, read_checkpoint).await
}

/// The checkpoint at a number.
pub(crate) async fn checkpoint_at(
    conn: &impl ConnectionTrait,
    seq: u64,
) -> Result<Option<Checkpoint>, DbError> {
    let mut select = checkpoints();
    select.and_where(Expr::col("seq").eq(signed(seq)));
    one(conn, &select, read_checkpoint).await
}

/// Checkpoints from `from` to `to`, in order, at most `limit`.
pub(crate) async fn checkpoints_between(
    conn: &impl ConnectionTrait,
    from: u64,
    to: u64,
    limit: u64,
) -> Result<Vec<Checkpoint>, DbError> {
    let mut select = checkpoints();
    select
        .and_where(Expr::col("seq").between(signed(from), signed(to)))
        .order_by("seq", Order::Asc)
        .limit(limit);
    all(conn, &select, read_checkpoint).await
}

/// Checkpoints below `before`, newest first.
pub(crate) async fn checkpoint_page(
    conn: &impl ConnectionTrait,
    before: Option<u64>,
    limit: u64,
) -> Result<Vec<Checkpoint>, DbError> {
    let mut select = checkpoints();
    select.order_by("seq", Order::Desc).limit(limit);
    if let Some(before) = before {
        select.and_where(Expr::col("seq").lt(signed(before)));
    }
    all(conn, &select, read_checkpoint).await
}

fn checkpoints() -> portico_db::sea_query::SelectStatement {
    let mut select = Query::select();
    select.columns(CHECKPOINT_COLUMNS).from(CHECKPOINTS);
    select
}

fn read_head(row: &QueryResult) -> Result<Head, DbError> {
    let link: Vec<u8> = row.try_get("", "link")?;
    Ok(Head {
        seq: unsigned(row, "seq")?,
        // A link of another length was altered; zeros make the next look at it say so.
        link: Hash::try_from(link).unwrap_or_default(),
    })
}

fn read_checkpoint(row: &QueryResult) -> Result<Checkpoint, DbError> {
    Ok(Checkpoint {
        seq: unsigned(row, "seq")?,
        // What cannot be read was not signed so: the signature will say it.
        link: row.try_get("", "link").unwrap_or_default(),
        count: unsigned(row, "count")?,
        at: row.try_get("", "at").unwrap_or_default(),
        key_id: row.try_get("", "key_id").unwrap_or_default(),
        signature: row.try_get("", "signature").unwrap_or_default(),
    })
}
