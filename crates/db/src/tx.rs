//! Write transactions: the only way to change rows.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::Tx;
use portico_telemetry::logs::{carried, current};
use portico_telemetry::trace::{self, OpenSpan, SpanKind};
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use serde::Serialize;

use crate::db::Inner;
use crate::error::DbError;
use crate::metrics::Op;
use crate::outbox::{self, Event};
use crate::seq;
use crate::session::{self, Answer, Ask, Session};

type Callback = Box<dyn FnOnce() + Send>;

/// An open write transaction; rolled back when dropped.
///
/// On SQLite there is one at a time in the process (`BEGIN IMMEDIATE` on the only writing connection),
/// so whoever holds it must not wait for anything but the database.
pub struct WriteTx {
    inner: Arc<Inner>,
    session: tokio::sync::Mutex<Session>,
    durable: bool,
    /// Longest run of one statement.
    limit: Duration,
    pending: Mutex<Pending>,
    span: OpenSpan,
}

#[derive(Default)]
struct Pending {
    events: Vec<Event>,
    callbacks: Vec<Callback>,
    trace: Option<String>,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Sequence number of the last event that the transaction published.
    pub last_seq: Option<u64>,
}

impl WriteTx {
    pub(crate) fn new(
        inner: Arc<Inner>,
        session: Session,
        durable: bool,
        limit: Duration,
        span: OpenSpan,
    ) -> Self {
        Self {
            inner,
            session: tokio::sync::Mutex::new(session),
            durable,
            limit,
            pending: Mutex::default(),
            span,
        }
    }

    /// The transaction behind a contract's [`Tx`].
    ///
    /// # Errors
    /// Only when the transaction was made by something else than this crate.
    pub fn of(tx: &dyn Tx) -> Result<&Self, DbError> {
        tx.as_any()
            .downcast_ref()
            .ok_or_else(|| DbError::Other("the transaction is not one of the database".to_owned()))
    }

    /// The database itself, for reading what was there before the transaction.
    #[must_use]
    pub fn db(&self) -> crate::Db {
        crate::Db::of(&self.inner)
    }

    /// Publishes an event with the transaction: a row in the outbox, seen by followers of `topic` after
    /// the commit. `key` names the thing that changed; `payload` should be small.
    ///
    /// The rows are written as the last step of the commit, because their sequence numbers come from one
    /// counter row that stays locked until then: so the order of numbers is the order of commits (no
    /// follower can skip one), and the lock is short and always the last one taken.
    ///
    /// # Errors
    /// When the payload cannot be written as JSON.
    pub fn publish<P: Serialize + ?Sized>(
        &self,
        topic: &str,
        key: &str,
        payload: &P,
    ) -> Result<(), DbError> {
        let payload = serde_json::to_value(payload)?;
        let mut pending = self.pending.lock();
        let event = Event {
            topic: topic.to_owned(),
            key: key.to_owned(),
            payload,
            trace: pending.trace.clone().or_else(trace_here),
        };
        pending.events.push(event);
        Ok(())
    }

    /// Names the trace that events from now on belong to; without it, that of the present request.
    pub fn set_trace(&self, trace: Option<&str>) {
        self.pending.lock().trace = trace.map(str::to_owned);
    }

    /// Runs `f` once the transaction has been committed; never when it is rolled back.
    pub fn after_commit(&self, f: Callback) {
        self.pending.lock().callbacks.push(f);
    }

    /// The next value of a counter, starting with 1. The counter's row stays locked until the end of
    /// the transaction, so that values become visible in their order and without gaps.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn next_seq(&self, counter: &str) -> Result<u64, DbError> {
        seq::advance(self, counter, 1).await
    }

    /// Lets only one transaction at a time pass for a name, until this one ends. For checks over many
    /// rows that no unique key expresses; a no-op on SQLite, where writers are alone anyway.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn serialise(&self, name: &str) -> Result<(), DbError> {
        if self.get_database_backend() == DbBackend::Postgres {
            crate::migrate::lock_for_transaction(self, name).await?;
        }
        Ok(())
    }

    /// Writes and keeps everything. With [`crate::Db::begin_durable`] it is on the disk before this
    /// returns. Cancelling the caller does not interrupt a commit that has begun.
    ///
    /// # Errors
    /// When the database refuses; nothing is kept then, unless the connection broke during the commit
    /// itself, when only the database knows.
    pub async fn commit(self) -> Result<Committed, DbError> {
        let events = std::mem::take(&mut self.pending.lock().events);
        let now = self.inner.clock.now();
        let topics = outbox::write(&self, events, now).await?;
        let Self {
            inner,
            session,
            durable,
            pending,
            mut span,
            ..
        } = self;
        let callbacks = pending.into_inner().callbacks;
        let task = {
            let inner = Arc::clone(&inner);
            let session = session.into_inner();
            async move {
                let work = finish(&inner, session, durable, callbacks, topics);
                let done = span.around(work).await;
                match &done {
                    Ok(_) => span.set("portico.db.outcome", "committed"),
                    Err(error) => span.fail(error.label()),
                }
                done
            }
        };
        // A task of its own: a client that goes away must not separate the commit from its callbacks.
        // The tracker lets `Db::close` wait for it.
        inner
            .commits
            .spawn(carried(task))
            .await
            .unwrap_or_else(|e| Err(DbError::Other(format!("the commit was cut off: {e}"))))
    }

    /// Gives up the changes and waits for it. Dropping the transaction does the same in the background.
    ///
    /// # Errors
    /// When the database cannot be reached any more, which ends the transaction as well.
    pub async fn rollback(mut self) -> Result<(), DbError> {
        self.span.set("portico.db.outcome", "rolled back");
        Ok(self.session.into_inner().rollback().await?)
    }

    async fn ask(&self, statement: &Statement, ask: Ask) -> Result<Answer, DbErr> {
        let mut session = self.session.lock().await;
        let run = session::run(&self.inner, session.conn(), statement, ask, self.limit);
        self.span.around(run).await
    }
}

async fn finish(
    inner: &Inner,
    session: Session,
    durable: bool,
    callbacks: Vec<Callback>,
    topics: Vec<(String, u64)>,
) -> Result<Committed, DbError> {
    let start = std::time::Instant::now();
    let mut span = trace::start("db", Op::Commit.as_str(), SpanKind::Client);
    span.set("db.system.name", inner.system());
    span.set("portico.db.durable", durable);
    let committed = session::answered(inner, inner.statement_timeout, session.commit());
    committed.await.map_err(|e| {
        let error = DbError::from(e);
        inner.metrics.error(&error);
        span.fail(error.label());
        error
    })?;
    let promise = match &inner.log_sync {
        Some(sync) if durable => sync.wait(sync.ticket()).await.map_err(|e| {
            let error = DbError::Unavailable(format!("the write is not safe on the disk: {e}"));
            inner.metrics.error(&error);
            error
        }),
        _ => Ok(()),
    };
    inner.metrics.query(Op::Commit, start.elapsed());
    if let Err(error) = &promise {
        span.fail(DbError::label(error));
    }
    drop(span);
    // The rows can be seen now, whether or not the promise holds, so everybody else must hear of them.
    for callback in callbacks {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(callback)).is_err() {
            tracing::error!("a callback after a commit panicked");
        }
    }
    for (topic, seq) in &topics {
        inner.wakers.committed(topic, *seq);
    }
    promise?;
    Ok(Committed {
        last_seq: topics.iter().map(|(_, seq)| *seq).max(),
    })
}

/// The trace of the request that this code works for.
fn trace_here() -> Option<String> {
    Some(current()?.trace_id?.to_string())
}

impl Tx for WriteTx {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn after_commit(&self, f: Callback) {
        Self::after_commit(self, f);
    }
}

#[async_trait]
impl ConnectionTrait for WriteTx {
    fn get_database_backend(&self) -> DbBackend {
        self.inner.sea_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.ask(&stmt, Ask::Execute).await?.done()
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut session = self.session.lock().await;
        let run = session::run_raw(&self.inner, session.conn(), sql, self.limit);
        self.span.around(run).await?.done()
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.ask(&stmt, Ask::One).await?.row()
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.ask(&stmt, Ask::All).await?.all()
    }
}
