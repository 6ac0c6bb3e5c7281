//! Followers: read the outbox from a position on, woken by commits, with a poll as safety net.
//!
//! A wake-up is only a hint. What counts is the position, so a lost wake-up costs time, never truth.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::db::Db;
use crate::error::DbError;
use crate::outbox::OutboxRow;
use crate::wake::Subscription;

/// Most events of one batch.
const BATCH: u64 = 500;

/// What a follower hears.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Events in their order, at least one.
    Events(Vec<OutboxRow>),
    /// Events were removed before they were read (the follower was away for longer than
    /// [`crate::KEPT`], or the database was restored): read the present state anew. The follower goes
    /// on from its head at this moment.
    Reset,
}

/// Reads the events of some topics from a position on.
pub struct Follower {
    db: Db,
    topics: Vec<String>,
    position: u64,
    poll: Duration,
    woken: Arc<Notify>,
    _subscriptions: Vec<Subscription>,
}

impl Db {
    /// Follows topics (all, when none is named) from behind `position`, which is usually [`crate::Outbox::head`] taken before the
    /// present state was read. Without wake-ups it looks every `poll`.
    #[must_use]
    pub fn follow(&self, topics: &[&str], position: u64, poll: Duration) -> Follower {
        let woken = Arc::new(Notify::new());
        let listen = |topic: Option<&str>| {
            let woken = Arc::clone(&woken);
            self.on_news(topic, move |_, _| woken.notify_one())
        };
        let subscriptions = if topics.is_empty() {
            vec![listen(None)]
        } else {
            topics.iter().map(|topic| listen(Some(topic))).collect()
        };
        Follower {
            db: self.clone(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            position,
            poll,
            woken,
            _subscriptions: subscriptions,
        }
    }
}

impl Follower {
    /// Position of the last event that was given out.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Waits for the next events. May be cancelled; nothing is lost then.
    ///
    /// # Errors
    /// When the database cannot be reached; calling again waits for the next wake-up or poll.
    pub async fn next(&mut self) -> Result<News, DbError> {
        loop {
            let until = Instant::now() + self.poll;
            if let Some(news) = self.poll().await? {
                return Ok(news);
            }
            // A commit between the look and here has left its permit in `woken`.
            let _ = timeout_at(until, self.woken.notified()).await;
        }
    }

    /// Looks once, without waiting.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn poll(&mut self) -> Result<Option<News>, DbError> {
        let outbox = self.db.outbox();
        let head = outbox.head().await?;
        if head == self.position {
            return Ok(None);
        }
        let since = self.position;
        let rows = outbox.read(&self.topics, since, BATCH).await?;
        // The order matters: what is removed after the reading was read; what was removed before shows
        // in the mark that is looked at afterwards.
        let trimmed = outbox.trimmed().await?;
        if head < since || trimmed > since {
            self.position = outbox.head().await?;
            return Ok(Some(News::Reset));
        }
        let full = rows.len() as u64 == BATCH;
        let last = rows.last().map_or(0, |row| row.seq);
        // Everything up to the head was committed when it was read, so a quiet topic moves on as well
        // and is not taken for a late one when old events are removed.
        self.position = if full { last } else { last.max(head) };
        Ok((!rows.is_empty()).then_some(News::Events(rows)))
    }
}
