//! The jobs that this process holds: their leases, who wants them cancelled, and how far they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_db::DbError;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claims::{self, Claim};
use super::pairs::Pair;
use super::{Inner, PROGRESS, TABLE, is};

/// How often the last word of a run about its progress is written.
const SAY: Duration = Duration::from_secs(1);
/// Longest message about progress, in characters.
const MESSAGE: usize = 200;

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    done: u64,
    total: u64,
    message: String,
}

impl Progress {
    pub(crate) fn new(done: u64, total: u64, message: &str) -> Self {
        Self {
            done,
            total,
            message: message
                .chars()
                .filter(|c| *c != '\0')
                .take(MESSAGE)
                .collect(),
        }
    }

    fn json(&self) -> Value {
        json!({ "done": self.done, "total": self.total, "message": self.message })
    }
}

/// A job that runs here.
#[derive(Debug)]
pub(crate) struct Held {
    /// Somebody else has it.
    lost: CancellationToken,
    /// Somebody wants it cancelled.
    pub(crate) asked: CancellationToken,
    pair: Pair,
    kind: String,
    renewed: Mutex<Instant>,
    said: Mutex<Option<Progress>>,
}

impl Held {
    fn new(claim: &Claim) -> Self {
        let asked = CancellationToken::new();
        if claim.cancel_asked {
            asked.cancel();
        }
        Self {
            lost: CancellationToken::new(),
            asked,
            pair: claim.pair(),
            kind: claim.kind.clone(),
            renewed: Mutex::new(Instant::now()),
            said: Mutex::default(),
        }
    }

    /// Returns when the job is somebody else's, or might be soon because its lease was not renewed.
    pub(crate) async fn lost(&self, after: Duration) {
        loop {
            let end = *self.renewed.lock() + after;
            if Instant::now() >= end {
                return;
            }
            tokio::select! {
                () = self.lost.cancelled() => return,
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }

    /// It was not renewed for so long.
    pub(crate) fn is_overdue(&self, after: Duration) -> bool {
        self.lost.is_cancelled() || self.renewed.lock().elapsed() >= after
    }

    pub(crate) fn say(&self, progress: Progress) {
        *self.said.lock() = Some(progress);
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Hands(Mutex<HashMap<Uuid, Arc<Held>>>);

impl Hands {
    pub(crate) fn take(&self, claim: &Claim) -> Arc<Held> {
        let held = Arc::new(Held::new(claim));
        self.0.lock().insert(claim.id, Arc::clone(&held));
        held
    }

    /// Lets go, unless the job was taken anew meanwhile.
    pub(crate) fn let_go(&self, held: &Held) {
        let mut all = self.0.lock();
        if all.get(&held.pair.0).is_some_and(|h| h.pair == held.pair) {
            all.remove(&held.pair.0);
        }
    }

    pub(crate) fn cancel(&self, job: Uuid) {
        if let Some(held) = self.0.lock().get(&job) {
            held.asked.cancel();
        }
    }

    fn all(&self) -> Vec<Arc<Held>> {
        self.0.lock().values().cloned().collect()
    }
}

impl Inner {
    /// Renews the leases of everything that runs here and writes how far it is, until told to end.
    pub(super) async fn keep(&self, end: &CancellationToken) {
        let beat = self.timing.renew.min(SAY);
        let mut renew_at = Instant::now() + self.timing.renew;
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(beat) => {}
            }
            let all = self.hands.all();
            if Instant::now() >= renew_at {
                renew_at = Instant::now() + self.timing.renew;
                let renewed = tokio::time::timeout(self.timing.renew, self.renew(&all)).await;
                if !matches!(renewed, Ok(Ok(()))) {
                    renew_at = Instant::now() + self.timing.renew / 5;
                    tracing::warn!(jobs = all.len(), "leases of jobs were not renewed");
                }
            }
            let saying = self.write_progress(&all);
            if let Ok(Err(error)) = tokio::time::timeout(self.timing.renew, saying).await {
                tracing::debug!(err = %error, "progress of jobs was not written");
            }
        }
    }

    async fn renew(&self, all: &[Arc<Held>]) -> Result<(), DbError> {
        let old = self.timing.renew / 2;
        // What was taken just now has its lease.
        let due: Vec<&Arc<Held>> = all
            .iter()
            .filter(|held| held.renewed.lock().elapsed() >= old)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let pairs: Vec<Pair> = due.iter().map(|held| held.pair).collect();
        let sent = Instant::now();
        let mine = claims::renew(&self.db, &pairs, self.timing.ttl).await?;
        for held in due {
            match mine.iter().find(|(pair, _)| *pair == held.pair) {
                Some((_, asked)) => {
                    *held.renewed.lock() = sent;
                    if *asked {
                        held.asked.cancel();
                    }
                }
                // One that has just ended is gone from here, too, and nobody listens.
                None => held.lost.cancel(),
            }
        }
        Ok(())
    }

    async fn write_progress(&self, all: &[Arc<Held>]) -> Result<(), DbError> {
        for held in all {
            self.write_progress_of(held).await?;
        }
        Ok(())
    }

    /// Writes the last word of a run, if there is a new one.
    pub(super) async fn write_progress_of(&self, held: &Held) -> Result<(), DbError> {
        let Some(said) = held.said.lock().take() else {
            return Ok(());
        };
        let (id, fencing) = held.pair;
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("progress", said.json())
            .and_where(Expr::col("id").eq(id))
            .and_where(is("running"))
            .and_where(Expr::col("fencing").eq(fencing));
        let tx = self.db.begin().await?;
        if tx.execute(&update).await?.rows_affected() == 1 {
            let mut payload = said.json();
            payload["id"] = json!(id);
            payload["kind"] = json!(held.kind);
            tx.publish(PROGRESS, &id.to_string(), &payload)?;
        }
        tx.commit().await?;
        Ok(())
    }
}
