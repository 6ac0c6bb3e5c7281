//! The sequence: counter, events, history of states.

use std::sync::OnceLock;

use bytes::Bytes;
use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use serde_json::Value;
use uuid::Uuid;

use super::{CHUNK, to_i64, to_u64};
use crate::domain::event::{Event, EventKind};

const COUNTER: &str = "registry_counter";
const EVENTS: &str = "registry_events";
const HISTORY: &str = "instance_history";

/// The counters after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The installation's index (RG-42).
    pub index: u64,
    /// The sequence of events.
    pub seq: u64,
}

/// An event as it is stored, with what followers must read again besides service and instance.
pub(crate) struct StoredEvent {
    pub event: Event,
    pub subject: Option<Value>,
}

/// Raises both counters and keeps their row locked until the transaction ends, so that the order of
/// numbers is the order of commits.
pub(crate) async fn advance(
    conn: &impl ConnectionTrait,
    index: u64,
    seq: u64,
) -> Result<Position, DbError> {
    let mut update = Query::update();
    update
        .table(COUNTER)
        .value("index", Expr::col("index").add(to_i64(index)))
        .value("seq", Expr::col("seq").add(to_i64(seq)))
        .and_where(Expr::col("id").eq(1))
        .returning(Query::returning().columns(["index", "seq"]));
    position_of(conn.query_one(&update).await?)
}

/// The counters as they stand.
pub(crate) async fn position(conn: &impl ConnectionTrait) -> Result<Position, DbError> {
    let mut select = Query::select();
    select
        .columns(["index", "seq"])
        .from(COUNTER)
        .and_where(Expr::col("id").eq(1));
    position_of(conn.query_one(&select).await?)
}

fn position_of(row: Option<QueryResult>) -> Result<Position, DbError> {
    let row = row.ok_or_else(|| DbError::Other("the registry has no counter".to_owned()))?;
    Ok(Position {
        index: to_u64(&row, "index")?,
        seq: to_u64(&row, "seq")?,
    })
}

/// Writes events.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    events: &[StoredEvent],
) -> Result<(), DbError> {
    for chunk in events.chunks(CHUNK) {
        let mut insert = Query::insert();
        insert.into_table(EVENTS).columns([
            "seq",
            "kind",
            "tenant_id",
            "service_id",
            "instance_id",
            "subject",
            "data",
            "at",
        ]);
        for StoredEvent { event, subject } in chunk {
            insert.values_panic([
                to_i64(event.seq).into(),
                event.kind.as_str().into(),
                event.tenant.into(),
                event.service.into(),
                event.instance.into(),
                subject.clone().into(),
                String::from_utf8_lossy(&event.data).into_owned().into(),
                event.at.into(),
            ]);
        }
        conn.execute(&insert).await?;
    }
    Ok(())
}

/// Events behind `since`, in order, at most `limit`.
pub(crate) async fn read(
    conn: &impl ConnectionTrait,
    since: u64,
    limit: u64,
) -> Result<Vec<StoredEvent>, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "seq",
            "kind",
            "tenant_id",
            "service_id",
            "instance_id",
            "subject",
            "data",
            "at",
        ])
        .from(EVENTS)
        .and_where(Expr::col("seq").gt(to_i64(since)))
        .order_by("seq", Order::Asc)
        .limit(limit);
    let rows = conn.query_all(&select).await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let kind: String = row.try_get("", "kind")?;
        // A newer release may write kinds that this one does not know: its rows tell it nothing.
        let Some(kind) = EventKind::parse(&kind) else {
            continue;
        };
        let data: String = row.try_get("", "data")?;
        let event = Event {
            seq: to_u64(row, "seq")?,
            kind,
            tenant: row.try_get("", "tenant_id")?,
            service: row.try_get("", "service_id")?,
            instance: row.try_get("", "instance_id")?,
            at: row.try_get("", "at")?,
            data: Bytes::from(data),
            frame: OnceLock::new(),
        };
        events.push(StoredEvent {
            event,
            subject: row.try_get("", "subject")?,
        });
    }
    Ok(events)
}

/// Number of the oldest event that is kept.
pub(crate) async fn oldest(conn: &impl ConnectionTrait) -> Result<Option<u64>, DbError> {
    let mut select = Query::select();
    select.expr_as(Expr::col("seq").min(), "seq").from(EVENTS);
    let Some(row) = conn.query_one(&select).await? else {
        return Ok(None);
    };
    let seq: Option<i64> = row.try_get("", "seq")?;
    Ok(seq.and_then(|s| u64::try_from(s).ok()))
}

/// Removes events from before `before` and all but the newest `keep`.
pub(crate) async fn trim(
    conn: &impl ConnectionTrait,
    before: Timestamp,
    upto: u64,
) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete.from_table(EVENTS).cond_where(
        Expr::col("at")
            .lt(before)
            .or(Expr::col("seq").lte(to_i64(upto))),
    );
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// One step of an instance's life.
#[derive(Debug, Clone)]
pub(crate) struct HistoryRow {
    pub id: Uuid,
    pub instance: Uuid,
    pub at: Timestamp,
    /// Order of steps at the same moment.
    pub seq: u64,
    pub from: String,
    pub to: String,
    pub reason: String,
}

/// Writes steps.
pub(crate) async fn insert_history(
    conn: &impl ConnectionTrait,
    rows: &[HistoryRow],
) -> Result<(), DbError> {
    for chunk in rows.chunks(CHUNK) {
        let mut insert = Query::insert();
        insert.into_table(HISTORY).columns([
            "id",
            "instance_id",
            "at",
            "seq",
            "from_state",
            "to_state",
            "reason",
        ]);
        for row in chunk {
            insert.values_panic([
                row.id.into(),
                row.instance.into(),
                row.at.into(),
                to_i64(row.seq).into(),
                row.from.clone().into(),
                row.to.clone().into(),
                row.reason.clone().into(),
            ]);
        }
        conn.execute(&insert).await?;
    }
    Ok(())
}

/// The newest steps of an instance, newest first.
pub(crate) async fn history(
    conn: &impl ConnectionTrait,
    instance: Uuid,
    limit: u64,
) -> Result<Vec<HistoryRow>, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "id",
            "instance_id",
            "at",
            "seq",
            "from_state",
            "to_state",
            "reason",
        ])
        .from(HISTORY)
        .and_where(Expr::col("instance_id").eq(instance))
        .order_by("at", Order::Desc)
        .order_by("seq", Order::Desc)
        .limit(limit);
    super::all(conn, &select, |row| {
        Ok(HistoryRow {
            id: row.try_get("", "id")?,
            instance: row.try_get("", "instance_id")?,
            at: row.try_get("", "at")?,
            seq: to_u64(row, "seq")?,
            from: row.try_get("", "from_state")?,
            to: row.try_get("", "to_state")?,
            reason: row.try_get("", "reason")?,
        })
    })
    .await
}

/// Removes steps from before `before`.
pub(crate) async fn trim_history(
    conn: &impl ConnectionTrait,
    before: Timestamp,
) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(HISTORY)
        .and_where(Expr::col("at").lt(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// Instances with more than `keep` steps, and the moment of the oldest step to keep.
pub(crate) async fn crowded(conn: &impl ConnectionTrait, keep: u64) -> Result<Vec<Uuid>, DbError> {
    let mut select = Query::select();
    select
        .column("instance_id")
        .from(HISTORY)
        .group_by_col("instance_id")
        .and_having(Expr::col("id").count().gt(to_i64(keep)))
        .limit(500);
    super::all(conn, &select, |row| Ok(row.try_get("", "instance_id")?)).await
}

/// Removes all but the newest `keep` steps of an instance.
pub(crate) async fn trim_history_of(
    conn: &impl ConnectionTrait,
    instance: Uuid,
    keep: u64,
) -> Result<u64, DbError> {
    let Some(oldest) = history(conn, instance, keep).await?.pop() else {
        return Ok(0);
    };
    let mut delete = Query::delete();
    delete
        .from_table(HISTORY)
        .and_where(Expr::col("instance_id").eq(instance))
        .and_where(Expr::col("at").lt(oldest.at));
    Ok(conn.execute(&delete).await?.rows_affected())
}
