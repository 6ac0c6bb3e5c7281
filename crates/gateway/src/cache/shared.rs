//! L2: the tier that all replicas share. A small trait stands for it; the writer behind a bounded queue keeps
//! requests from waiting for it.
//!
//! Faults of the tier are never faults of a request: a read that fails or is late is a miss, a write that does not
//! fit into the queue is left out. Both are counted.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use tokio::sync::mpsc;

use super::key::{RequestView, VaryRule, secondary, shared_name};
use super::object::Stored;
use super::stats::Stats;

/// First bytes of a record that tells by which fields a resource varies.
const VARY_MAGIC: &[u8; 4] = b"PGV1";
/// Writes that may wait, and bytes in them.
const QUEUE: usize = 1024;
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// A future of the shared tier.
pub type TierFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The shared tier is out of reach, or said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shared cache tier: {0}")]
pub struct TierError(pub String);

/// A store that all replicas reach: Redis through the state crate, a map in tests.
pub trait SharedTier: Send + Sync + 'static {
    fn get<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<Option<Bytes>, TierError>>;

    /// Keeps a value for so many milliseconds.
    fn put<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        ttl_ms: u64,
    ) -> TierFuture<'a, Result<(), TierError>>;

    fn remove<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<(), TierError>>;

    /// Appends to a list that keeps its last `most` values for so many milliseconds.
    fn append<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        most: usize,
        ttl_ms: u64,
    ) -> TierFuture<'a, Result<(), TierError>>;

    /// All values of a list, oldest first.
    fn list<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<Vec<Bytes>, TierError>>;

    /// Takes values out until at most `most_bytes` are left, what ends soonest first; says what is there. One
    /// replica at a time does the work, the others learn what it counted.
    fn trim(&self, most_bytes: u64) -> TierFuture<'_, Result<TierUse, TierError>>;
}

/// What the shared tier holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TierUse {
    pub entries: u64,
    pub bytes: u64,
    /// Taken out for the bound by this call.
    #[serde(skip)]
    pub evicted: u64,
}

/// The cache's end of the shared tier.
pub(super) struct SharedLink {
    tier: Arc<dyn SharedTier>,
    queue: mpsc::Sender<Write>,
    queued_bytes: Arc<AtomicUsize>,
    stats: Arc<Stats>,
    timeout: Duration,
    object_bytes: u64,
}

enum Write {
    Put {
        name: String,
        value: Bytes,
        ttl_ms: u64,
    },
    Remove {
        name: String,
    },
}

/// Carries out the queued writes; the host runs it as a tracked task.
pub struct SharedWriter {
    tier: Arc<dyn SharedTier>,
    queue: mpsc::Receiver<Write>,
    queued_bytes: Arc<AtomicUsize>,
    stats: Arc<Stats>,
    timeout: Duration,
}

impl SharedLink {
    /// Connects a tier; reads and writes take at most `timeout`.
    pub(super) fn new(
        tier: Arc<dyn SharedTier>,
        stats: Arc<Stats>,
        timeout: Duration,
        object_bytes: u64,
    ) -> (Self, SharedWriter) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let writer = SharedWriter {
            tier: Arc::clone(&tier),
            queue: receiver,
            queued_bytes: Arc::clone(&queued_bytes),
            stats: Arc::clone(&stats),
            timeout,
        };
        (
            Self {
                tier,
                queue: sender,
                queued_bytes,
                stats,
                timeout,
                object_bytes,
            },
            writer,
        )
    }

    /// The object for a request, and by which fields its resource varies.
    pub(super) async fn find(
        &self,
        primary: &[u8],
        view: &RequestView<'_>,
        now_ms: u64,
    ) -> Option<Stored> {
        let record = self.read(&shared_name(primary)).await?;
        match read_vary(&record) {
            Some(vary) => self.load(&secondary(primary, &vary, view), now_ms).await,
            None => Stored::decode(&record, primary, now_ms),
        }
    }

    /// The object of a whole key.
    pub(super) async fn load(&self, key: &[u8], now_ms: u64) -> Option<Stored> {
        let record = self.read(&shared_name(key)).await?;
        Stored::decode(&record, key, now_ms)
    }

    /// Queues an object for writing.
    pub(super) fn keep(&self, object: &Stored) {
        if object.body.len() as u64 > self.object_bytes {
            return;
        }
        let ttl_ms = object.useful_ms();
        if !object.vary.is_empty() {
            self.queue(Write::Put {
                name: shared_name(object.primary()),
                value: write_vary(&object.vary),
                ttl_ms,
            });
        }
        self.queue(Write::Put {
            name: shared_name(&object.key),
            value: object.encode(),
            ttl_ms,
        });
    }

    /// Queues a removal.
    pub(super) fn forget(&self, key: &[u8]) {
        self.queue(Write::Remove {
            name: shared_name(key),
        });
    }

    /// The tier itself, for the ledger and the list of hot keys.
    pub(super) fn tier(&self) -> &Arc<dyn SharedTier> {
        &self.tier
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        match tokio::time::timeout(self.timeout, self.tier.get(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => {
                self.stats.shared_errors.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn queue(&self, write: Write) {
        let size = write.size();
        let fits = self.queued_bytes.fetch_add(size, Ordering::AcqRel) + size <= QUEUE_BYTES;
        if !fits || self.queue.try_send(write).is_err() {
            self.queued_bytes.fetch_sub(size, Ordering::AcqRel);
            self.stats.shared_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl SharedWriter {
    /// Runs until the cache is gone; what is queued by then is still written.
    pub async fn run(mut self) {
        while let Some(write) = self.queue.recv().await {
            self.queued_bytes.fetch_sub(write.size(), Ordering::AcqRel);
            let done = match write {
                Write::Put {
                    name,
                    value,
                    ttl_ms,
                } => tokio::time::timeout(self.timeout, self.tier.put(&name, value, ttl_ms)).await,
                Write::Remove { name } => {
                    tokio::time::timeout(self.timeout, self.tier.remove(&name)).await
                }
            };
            if !matches!(done, Ok(Ok(()))) {
                self.stats.shared_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Write {
    fn size(&self) -> usize {
        match self {
            Self::Put { name, value, .. } => name.len() + value.len(),
            Self::Remove { name } => name.len(),
        }
    }
}

fn write_vary(vary: &VaryRule) -> Bytes {
    let names: Vec<&str> = vary.names().iter().map(HeaderName::as_str).collect();
    [VARY_MAGIC.as_slice(), names.join(",").as_bytes()]
        .concat()
        .into()
}

fn read_vary(record: &[u8]) -> Option<VaryRule> {
    let names = record.strip_prefix(VARY_MAGIC.as_slice())?;
    let names = names
        .split(|b| *b == b',')
        .map(HeaderName::from_bytes)
        .collect::<Result<_, _>>()
        .ok()?;
    VaryRule::from_names(names).ok()
}
