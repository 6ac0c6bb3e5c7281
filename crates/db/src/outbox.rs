//! The outbox: events written with the change that they tell of, read by followers in their order.

use chrono::Duration;
use portico_base::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use sea_orm::{ConnectionTrait, QueryResult};
use serde::de::DeserializeOwned;

use crate::db::Db;
use crate::error::DbError;
use crate::seq::{self, to_i64, to_u64};
use crate::tx::WriteTx;

const TABLE: &str = "outbox";
const COUNTER: &str = "outbox";
const TRIMMED: &str = "outbox.trimmed";
/// Rows of one INSERT; six values each stay far below the limits of both databases.
const CHUNK: usize = 500;

/// How long events are kept: whoever was away longer reads everything anew.
pub const KEPT: Duration = Duration::hours(24);

/// An event on its way into the outbox.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) topic: String,
    pub(crate) key: String,
    pub(crate) payload: serde_json::Value,
    pub(crate) trace: Option<String>,
}

/// An event as followers read it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Position in the order of commits, over all topics.
    pub seq: u64,
    /// What kind of thing happened, `registry.instance.changed`.
    pub topic: String,
    /// The thing that it happened to.
    pub key: String,
    /// The event itself.
    pub payload: serde_json::Value,
    /// W3C trace id of the cause.
    pub trace: Option<String>,
    /// When it was committed.
    pub created_at: Timestamp,
}

impl OutboxRow {
    /// The payload as a type; fields that it does not know are ignored.
    ///
    /// # Errors
    /// When the payload does not fit.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DbError> {
        Ok(serde_json::from_value(self.payload.clone())?)
    }
}

/// Reads and trims the outbox; writing is [`WriteTx::publish`].
#[derive(Clone)]
pub struct Outbox(pub(crate) Db);

impl Outbox {
    /// The events of some topics (all, when none is named) behind `since`, in order, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read(
        &self,
        topics: &[String],
        since: u64,
        limit: u64,
    ) -> Result<Vec<OutboxRow>, DbError> {
        let rows = self
            .0
            .reader()
            .query_all(&select(topics, since, limit))
            .await?;
        rows.iter().map(from_row).collect()
    }

    /// Position of the last event; a follower that has read the present state starts from here, taken
    /// before it reads that state.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn head(&self) -> Result<u64, DbError> {
        seq::current(self.0.reader(), COUNTER).await
    }

    /// Position up to which events were removed: a follower behind it has missed some for good.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn trimmed(&self) -> Result<u64, DbError> {
        seq::current(self.0.reader(), TRIMMED).await
    }

    /// When the last event was written, by the clock of its writer; nothing when there is none.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn newest_at(&self) -> Result<Option<Timestamp>, DbError> {
        let mut newest = Query::select();
        newest
            .column("created_at")
            .from(TABLE)
            .order_by("seq", Order::Desc)
            .limit(1);
        let row = self.0.reader().query_one(&newest).await?;
        Ok(row.map(|row| row.try_get("", "created_at")).transpose()?)
    }

    /// Removes the events from before `before`, and gives their number.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn trim(&self, before: Timestamp) -> Result<u64, DbError> {
        let tx = self.0.begin().await?;
        // Clocks of replicas differ a little, so `created_at` is only nearly in the order of `seq`:
        // what is cut is a prefix, up to the last event that is old enough.
        let mut last = Query::select();
        last.expr_as(Expr::col("seq").max(), "seq")
            .from(TABLE)
            .and_where(Expr::col("created_at").lt(before));
        let upto: Option<i64> = match tx.query_one(&last).await? {
            Some(row) => row.try_get("", "seq")?,
            None => None,
        };
        let Some(upto) = upto else { return Ok(0) };
        let mut delete = Query::delete();
        delete
            .from_table(TABLE)
            .and_where(Expr::col("seq").lte(upto));
        let gone = tx.execute(&delete).await?.rows_affected();
        seq::raise(&tx, TRIMMED, to_u64(upto)).await?;
        tx.commit().await?;
        Ok(gone)
    }
}

/// Writes events with numbers from the locked counter; gives each topic with its last number.
pub(crate) async fn write(
    tx: &WriteTx,
    events: Vec<Event>,
    now: Timestamp,
) -> Result<Vec<(String, u64)>, DbError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let count = u32::try_from(events.len())
        .map_err(|_| DbError::Other("too many events in one transaction".to_owned()))?;
    let last = seq::advance(tx, COUNTER, count).await?;
    let mut next = last - u64::from(count);
    let mut topics: Vec<(String, u64)> = Vec::new();
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let mut insert = Query::insert();
        insert
            .into_table(TABLE)
            .columns(["seq", "topic", "key", "payload", "trace", "created_at"]);
        for event in events.by_ref().take(CHUNK) {
            next += 1;
            match topics.iter_mut().find(|(topic, _)| *topic == event.topic) {
                Some((_, seq)) => *seq = next,
                None => topics.push((event.topic.clone(), next)),
            }
            insert.values_panic([
                to_i64(next).into(),
                event.topic.into(),
                event.key.into(),
                event.payload.into(),
                event.trace.into(),
                now.into(),
            ]);
        }
        tx.execute(&insert).await?;
    }
    Ok(topics)
}

fn select(topics: &[String], since: u64, limit: u64) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(["seq", "topic", "key", "payload", "trace", "created_at"])
        .from(TABLE)
        .and_where(Expr::col("seq").gt(to_i64(since)))
        .order_by("seq", Order::Asc)
        .limit(limit);
    if !topics.is_empty() {
        select.and_where(Expr::col("topic").is_in(topics.iter().cloned()));
    }
    select
}

fn from_row(row: &QueryResult) -> Result<OutboxRow, DbError> {
    Ok(OutboxRow {
        seq: to_u64(row.try_get("", "seq")?),
        topic: row.try_get("", "topic")?,
        key: row.try_get("", "key")?,
        payload: row.try_get("", "payload")?,
        trace: row.try_get("", "trace")?,
        created_at: row.try_get("", "created_at")?,
    })
}
