//! The active objects in memory: what the route table is compiled from, kept up to date by the outbox.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portico_db::{Db, DbError};
use tokio_util::sync::CancellationToken;

use super::doc::Objects;
use super::store;

/// Outbox topic of every change of an object.
pub(super) const TOPIC: &str = "gateway.object.changed";
/// Without a wake-up other replicas' changes are looked for this often.
const POLL: Duration = Duration::from_millis(500);

/// Called with the new objects, in order; must be quick or hand the work on.
pub(super) type Listener = Arc<dyn Fn(&Arc<Objects>) + Send + Sync>;

/// The active objects. Cheap to clone.
#[derive(Clone)]
pub struct Book(Arc<Inner>);

struct Inner {
    db: Db,
    current: ArcSwap<Objects>,
    listeners: Mutex<Vec<Listener>>,
    /// One reading at a time, so that an older one never replaces a newer one.
    reading: tokio::sync::Mutex<u64>,
}

impl Book {
    /// Reads everything.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn load(db: &Db) -> Result<Self, DbError> {
        let book = Self(Arc::new(Inner {
            db: db.clone(),
            current: ArcSwap::default(),
            listeners: Mutex::default(),
            reading: tokio::sync::Mutex::new(0),
        }));
        book.refresh().await?;
        Ok(book)
    }

    /// The newest objects.
    #[must_use]
    pub fn current(&self) -> Arc<Objects> {
        self.0.current.load_full()
    }

    /// Adds a listener; it is called at once with the newest objects.
    pub fn subscribe(&self, listener: Listener) {
        listener(&self.current());
        self.0.listeners.lock().push(listener);
    }

    /// Reads everything anew and tells the listeners. Objects are few and change rarely, so that
    /// reading all of them is simpler than following each, and as right.
    ///
    /// # Errors
    /// When the database cannot be read; the present objects stay.
    pub async fn refresh(&self) -> Result<(), DbError> {
        let mut version = self.0.reading.lock().await;
        let rows = store::active(self.0.db.reader()).await?;
        *version += 1;
        let mut objects = Objects {
            version: *version,
            ..Objects::default()
        };
        for row in &rows {
            row.kind.add(&mut objects, row);
        }
        let objects = Arc::new(objects);
        self.0.current.store(Arc::clone(&objects));
        let listeners = self.0.listeners.lock().clone();
        for listener in listeners {
            listener(&objects);
        }
        Ok(())
    }

    /// Follows the changes of other replicas until told to stop.
    pub async fn follow(self, stop: CancellationToken) {
        let head = loop {
            match self.0.db.outbox().head().await {
                Ok(head) => break head,
                Err(error) => tracing::debug!(err = %error, "the outbox could not be read"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        };
        let mut follower = self.0.db.follow(&[TOPIC], head, POLL);
        // What changed between the loading and the taking of the head.
        self.refresh_or_log().await;
        loop {
            let news = tokio::select! {
                () = stop.cancelled() => return,
                news = follower.next() => news,
            };
            match news {
                Ok(_) => self.refresh_or_log().await,
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn refresh_or_log(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(err = %error, "the gateway's objects could not be read, the last ones hold");
        }
    }
}
