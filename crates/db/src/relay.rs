//! Wake-ups between replicas by LISTEN and NOTIFY, for a scaled mode without Redis (SC-2).

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::db::{Db, Pools};
use crate::error::DbError;
use crate::options::Pooler;

const CHANNEL: &str = "portico_wake";
/// Wake-ups that wait to be sent; more are dropped, because followers poll as well.
const WAITING: usize = 1_024;
/// After so much silence the connection is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(15);
/// Pause after a failure, and longest wait for an answer.
const PAUSE: Duration = Duration::from_secs(1);

impl Db {
    /// Tells other replicas of this one's commits, and its followers of theirs, until `stop`. Returns at
    /// once on SQLite (there are no others) and behind pgBouncer (it has no LISTEN). Takes one connection
    /// of the pool.
    ///
    /// Nothing is promised for a single message: followers poll, so a lost one costs time only.
    pub async fn relay_wakes(&self, stop: &CancellationToken) {
        let Pools::Postgres(pool) = &self.inner().pools else {
            return;
        };
        if self.inner().pooler == Pooler::PgBouncer {
            return;
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let _subscription = self.on_commit(None, move |topic, seq| {
            let _ = sender.try_send((topic.to_owned(), seq));
        });
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.tell(receiver) => {}
            () = self.listen(pool) => {}
        }
    }

    async fn tell(&self, mut commits: mpsc::Receiver<(String, u64)>) {
        let mut batch = Vec::new();
        while commits.recv_many(&mut batch, WAITING).await > 0 {
            // Of several commits to a topic the last one says it all.
            let last: BTreeMap<String, u64> = batch.drain(..).collect();
            for (topic, seq) in last {
                let statement = Statement::from_sql_and_values(
                    DbBackend::Postgres,
                    "SELECT 1 AS one FROM pg_notify($1, $2)",
                    [CHANNEL.into(), format!("{seq} {topic}").into()],
                );
                if let Err(error) = self.reader().query_one_raw(statement).await {
                    tracing::debug!(topic, %error, "wake-up not sent");
                }
            }
        }
    }

    async fn listen(&self, pool: &PgPool) {
        loop {
            if let Err(error) = self.listen_once(pool).await {
                tracing::debug!(%error, "not listening for wake-ups");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen_once(&self, pool: &PgPool) -> Result<(), DbError> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        // Nobody told us of what was committed until now.
        self.inner().wakers.heard_all();
        loop {
            // Cancelling the wait loses nothing: the driver takes whole messages only.
            let Ok(heard) = timeout(SILENCE, listener.try_recv()).await else {
                let probe = sqlx::query("SELECT 1").execute(&mut listener);
                let answer = timeout(PAUSE, probe).await;
                answer.map_err(|_| DbError::Unavailable("no answer".to_owned()))??;
                continue;
            };
            match heard? {
                // Our own messages come back too; they wake followers that look and find nothing.
                Some(message) => {
                    if let Some((seq, topic)) = message.payload().split_once(' ') {
                        self.wake(topic, seq.parse().unwrap_or(0));
                    }
                }
                None => self.inner().wakers.heard_all(),
            }
        }
    }
}
