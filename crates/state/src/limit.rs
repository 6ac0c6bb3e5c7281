//! Rate limits by GCRA (GW-62): per process without waiting for anybody, or shared through leases of tokens.

mod gcra;
mod hash;
mod shared;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub use gcra::{Decision, Limit};
pub use hash::KeyHasher;
use table::LocalLimiter;

pub(crate) use shared::{FAMILIES, Orders, Shared};

/// The limits of one process. Cheap to clone.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    local: LocalLimiter,
    shared: Option<Arc<Shared>>,
    /// Processes that share the limits; what each may give out alone is its part.
    replicas: AtomicU32,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter")
            .field("shared", &self.is_shared())
            .finish_non_exhaustive()
    }
}

impl Limiter {
    pub(crate) fn new(shared: Option<Arc<Shared>>) -> Self {
        Self(Arc::new(Inner {
            local: LocalLimiter::default(),
            shared,
            replicas: AtomicU32::new(1),
        }))
    }

    /// Tells how many processes answer requests at present, so that each can take its part when Redis
    /// is away.
    pub fn set_replicas(&self, replicas: u32) {
        self.0.replicas.store(replicas.max(1), Relaxed);
    }

    /// True while [`Limiter::check`] counts with the other replicas. False without Redis and while it is
    /// away: then every process enforces its part of the limit.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.shared.as_ref().is_some_and(|s| s.is_up())
    }

    /// Asks for one request of `key` under a limit of all replicas together. Never waits.
    ///
    /// `key` must be the same number on every replica ([`KeyHasher`] with one seed); `now_ns` is any
    /// clock that does not go back.
    #[must_use]
    pub fn check(&self, key: u64, limit: Limit, now_ns: u64) -> Decision {
        let replicas = self.0.replicas.load(Relaxed);
        match &self.0.shared {
            Some(shared) if shared.is_up() => shared.check(key, limit, replicas, now_ns),
            // Nobody to count with: Redis is away, or up to two replicas run without it (SC-2).
            _ => self.0.local.check(key, limit.part(replicas), now_ns),
        }
    }

    /// Asks for one request of `key` under a limit of this process alone.
    #[must_use]
    pub fn check_local(&self, key: u64, limit: Limit, now_ns: u64) -> Decision {
        self.0.local.check(key, limit, now_ns)
    }
}
