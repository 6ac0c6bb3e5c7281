//! Group commit for SQLite: one fsync of the write-ahead log serves all transactions committed before it.
//!
//! The writer commits with `synchronous=NORMAL`, which leaves the log to the system's cache. A durable
//! transaction then waits for an fsync that began after its commit; whoever waits meanwhile shares the
//! next one. A checkpoint syncs the log before and the database after it, so that what it moved is safe
//! as well (sqlite.org/pragma.html#pragma_synchronous).

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Mutex;

type SyncFn = dyn Fn() -> io::Result<()> + Send + Sync;

/// Hands out tickets for commits and makes them durable together.
pub(crate) struct GroupSync {
    committed: AtomicU64,
    synced: Mutex<u64>,
    broken: AtomicBool,
    sync: Arc<SyncFn>,
}

/// The number of a commit in the order of commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket(u64);

impl GroupSync {
    /// Syncs the write-ahead log beside a database file.
    pub(crate) fn of_log(log: PathBuf) -> Self {
        Self::new(Arc::new(move || match File::open(&log) {
            // Opened every time: the log may have been removed and made anew, and an old handle would
            // sync the removed one. No log at all means that everything was checkpointed.
            Ok(file) => file.sync_data(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }))
    }

    fn new(sync: Arc<SyncFn>) -> Self {
        Self {
            committed: AtomicU64::new(0),
            synced: Mutex::new(0),
            broken: AtomicBool::new(false),
            sync,
        }
    }

    /// To be taken after the commit has returned.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.committed.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Waits until everything up to the ticket is on the disk.
    pub(crate) async fn wait(&self, ticket: Ticket) -> io::Result<()> {
        let mut synced = self.synced.lock().await;
        if *synced >= ticket.0 {
            return Ok(());
        }
        // After a failed fsync the system may have dropped the pages and report success the next time,
        // so nothing may be promised any more until a restart has recovered the log.
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other(
                "an earlier fsync failed; durable writes need a restart",
            ));
        }
        let upto = self.committed.load(Ordering::SeqCst);
        let sync = Arc::clone(&self.sync);
        let result = tokio::task::spawn_blocking(move || sync())
            .await
            .unwrap_or_else(|e| Err(io::Error::other(e)));
        match result {
            Ok(()) => {
                *synced = upto;
                Ok(())
            }
            Err(e) => {
                self.broken.store(true, Ordering::SeqCst);
                Err(e)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[tokio::test]
    async fn one_fsync_serves_all_that_committed_before_it() {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let group = GroupSync::new(Arc::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }));
        let tickets: Vec<_> = (0..10).map(|_| group.ticket()).collect();
        for ticket in tickets {
            assert!(group.wait(ticket).await.is_ok());
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(group.wait(group.ticket()).await.is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn after_a_failed_fsync_nothing_is_promised() {
        let fail = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&fail);
        let group = GroupSync::new(Arc::new(move || {
            if flag.load(Ordering::SeqCst) {
                Err(io::Error::other("bad sector"))
            } else {
                Ok(())
            }
        }));
        assert!(group.wait(group.ticket()).await.is_err());
        fail.store(false, Ordering::SeqCst);
        assert!(group.wait(group.ticket()).await.is_err());
    }
}
