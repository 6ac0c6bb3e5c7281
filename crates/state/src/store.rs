//! Small shared values: the second level of response caches, nonces, generations, heartbeats.

mod heartbeats;
mod local;
mod shelf;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::StateError;
use crate::link::Link;
use crate::options::Deps;

pub(crate) use heartbeats::FLUSH_EVERY;
pub use heartbeats::{Beat, Heartbeats};
pub(crate) use local::LocalStore;
pub use shelf::{Shelf, ShelfUse};

/// Longest value.
const MAX_VALUE: usize = 16 << 20;
/// A generation that nobody asks for is forgotten after this; so is what hangs on it.
const GENERATION_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Bytes by key, with an end. Cheap to clone.
#[derive(Clone)]
pub struct SharedStore(Arc<Backend>);

enum Backend {
    Local(Arc<LocalStore>),
    Redis(Arc<Link>, Deps),
}

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &*self.0 {
            Backend::Local(_) => "SharedStore(local)",
            Backend::Redis(..) => "SharedStore(redis)",
        })
    }
}

impl SharedStore {
    pub(crate) fn local(store: Arc<LocalStore>) -> Self {
        Self(Arc::new(Backend::Local(store)))
    }

    pub(crate) fn redis(link: Arc<Link>, deps: Deps) -> Self {
        Self(Arc::new(Backend::Redis(link, deps)))
    }

    /// The value of a key that has not ended yet.
    ///
    /// # Errors
    /// When Redis is away: go on as if there were none.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        match &*self.0 {
            Backend::Local(store) => Ok(store.get(key)),
            Backend::Redis(link, _) => {
                let found: Option<Vec<u8>> = link
                    .query("get", redis::cmd("GET").arg(name(link, key)))
                    .await?;
                Ok(found.map(Bytes::from))
            }
        }
    }

    /// Keeps a value for a time (at least a millisecond). In the process the total is bounded by 64 MiB,
    /// the least used leave first.
    ///
    /// # Errors
    /// When Redis is away, or the value is longer than 16 MiB.
    pub async fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), StateError> {
        if value.len() > MAX_VALUE {
            return Err(StateError::Refused(
                "the value is longer than 16 MiB".to_owned(),
            ));
        }
        match &*self.0 {
            Backend::Local(store) => {
                store.put(key, value, ttl);
                Ok(())
            }
            Backend::Redis(link, _) => {
                let mut set = redis::cmd("SET");
                set.arg(name(link, key))
                    .arg(&value[..])
                    .arg("PX")
                    .arg(millis(ttl));
                link.query("set", &set).await
            }
        }
    }

    /// Forgets a key.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn remove(&self, key: &str) -> Result<(), StateError> {
        match &*self.0 {
            Backend::Local(store) => {
                store.remove(key);
                Ok(())
            }
            Backend::Redis(link, _) => {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(name(link, key));
                link.query::<i64>("unlink", &unlink).await.map(|_| ())
            }
        }
    }

    /// Takes a key for itself: true for the first who asks within the time, on all replicas. This is a
    /// nonce ("seen before?"), and a lease that nothing depends on but cost.
    ///
    /// # Errors
    /// When Redis is away or the table of the process is full: whoever needs the answer must refuse (SC-3).
    pub async fn claim(&self, key: &str, ttl: Duration) -> Result<bool, StateError> {
        match &*self.0 {
            Backend::Local(store) => store.claim(key, ttl),
            Backend::Redis(link, _) => {
                let mut set = redis::cmd("SET");
                set.arg(name(link, key))
                    .arg(1)
                    .arg("NX")
                    .arg("PX")
                    .arg(millis(ttl));
                let answer: Option<String> = link.query("claim", &set).await?;
                Ok(answer.is_some())
            }
        }
    }

    /// The generation of a namespace. Keys that hold it are all gone, as it were, once somebody bumps it;
    /// that is how many values are removed at once. Never repeats, even when Redis was flushed.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn generation(&self, namespace: &str) -> Result<u64, StateError> {
        match &*self.0 {
            Backend::Local(store) => Ok(store.generation(namespace)),
            Backend::Redis(link, deps) => {
                let key = generation_name(link, namespace);
                let mut get = redis::pipe();
                get.cmd("SET").arg(&key).arg(fresh(deps)).arg("NX").ignore();
                get.cmd("PEXPIRE")
                    .arg(&key)
                    .arg(millis(GENERATION_TTL))
                    .ignore();
                get.cmd("GET").arg(&key);
                let (generation,): (u64,) = link.pipeline("generation", &get).await?;
                Ok(generation)
            }
        }
    }

    /// Gives a namespace a new generation.
    ///
    /// # Errors
    /// When Redis is away: the old values live until their time ends.
    pub async fn bump(&self, namespace: &str) -> Result<u64, StateError> {
        match &*self.0 {
            Backend::Local(store) => Ok(store.bump(namespace)),
            Backend::Redis(link, deps) => {
                let mut set = redis::cmd("SET");
                let next = fresh(deps);
                set.arg(generation_name(link, namespace)).arg(next);
                set.arg("PX").arg(millis(GENERATION_TTL));
                let _: String = link.query("bump", &set).await?;
                Ok(next)
            }
        }
    }
}

/// A number that no earlier generation had. 53 bits, so that every client reads it.
fn fresh(deps: &Deps) -> u64 {
    deps.random.u64() >> 11
}

fn name(link: &Link, key: &str) -> String {
    format!("{}kv:{key}", link.prefix)
}

fn generation_name(link: &Link, namespace: &str) -> String {
    format!("{}gen:{namespace}", link.prefix)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, i64::MAX as u64)
}
