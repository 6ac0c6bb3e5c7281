//! Counters of one worker: written by it alone, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer: adding is a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(n),
            Ordering::Relaxed,
        );
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counted since it began.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open now.
    pub open: Counter,
    /// Connections refused by a limit.
    pub refused: Counter,
    /// Requests begun.
    pub requests: Counter,
    /// Tunnels (WebSocket) open now.
    pub tunnels: Counter,
    /// Connections to instances made.
    pub upstream_connects: Counter,
    /// Requests sent again on a new connection because a pooled one was dead.
    pub upstream_reconnects: Counter,
    /// Bytes relayed in tunnels, both ways.
    pub tunnel_bytes: Counter,
}

/// The sum over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeTotals {
    pub accepted: u64,
    pub open: u64,
    pub refused: u64,
    pub requests: u64,
    pub tunnels: u64,
    pub upstream_connects: u64,
    pub upstream_reconnects: u64,
    pub tunnel_bytes: u64,
}

impl ServeTotals {
    pub(crate) fn add(&mut self, worker: &WorkerStats) {
        self.accepted += worker.accepted.get();
        self.open += worker.open.get();
        self.refused += worker.refused.get();
        self.requests += worker.requests.get();
        self.tunnels += worker.tunnels.get();
        self.upstream_connects += worker.upstream_connects.get();
        self.upstream_reconnects += worker.upstream_reconnects.get();
        self.tunnel_bytes += worker.tunnel_bytes.get();
    }
}
