//! "Hit for miss": remembers for ten seconds that a key's answers cannot be stored, so that its requests go
//! straight to the origin instead of queueing for each other.

use std::sync::atomic::{AtomicU64, Ordering};

/// How long one uncacheable answer speaks for its key.
pub(super) const PASS_MS: u64 = 10_000;
const SLOTS: usize = 16_384;
/// Bits for the time; the rest is a fingerprint of the key.
const TIME_BITS: u32 = 42;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// A fixed table of marks. Keys that share a slot push each other out, which costs a queued request now and then.
pub(super) struct PassTable {
    slots: Box<[AtomicU64]>,
}

impl Default for PassTable {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl PassTable {
    /// Whether the key is marked.
    pub(super) fn active(&self, hash: u64, now_ms: u64) -> bool {
        let mark = self.slot(hash).load(Ordering::Relaxed);
        let until = mark & TIME_MASK;
        // A mark that reaches further than we ever write was made before the clock jumped back.
        mark >> TIME_BITS == hash >> TIME_BITS && until > now_ms && until - now_ms <= PASS_MS
    }

    /// Marks the key; repeated marks within the first half of their time cost no write.
    pub(super) fn mark(&self, hash: u64, now_ms: u64) {
        let slot = self.slot(hash);
        let until = now_ms.saturating_add(PASS_MS) & TIME_MASK;
        let had = slot.load(Ordering::Relaxed);
        let lasts = had >> TIME_BITS == hash >> TIME_BITS
            && (had & TIME_MASK).abs_diff(until) < PASS_MS / 2;
        if !lasts {
            slot.store((hash >> TIME_BITS) << TIME_BITS | until, Ordering::Relaxed);
        }
    }

    /// Takes a mark away: the key's answer has become storable.
    pub(super) fn clear(&self, hash: u64) {
        let slot = self.slot(hash);
        if slot.load(Ordering::Relaxed) >> TIME_BITS == hash >> TIME_BITS {
            slot.store(0, Ordering::Relaxed);
        }
    }

    fn slot(&self, hash: u64) -> &AtomicU64 {
        &self.slots[hash as usize & (SLOTS - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn marks_last_ten_seconds_and_slide() {
        let table = PassTable::default();
        assert!(!table.active(7, NOW));
        table.mark(7, NOW);
        assert!(table.active(7, NOW) && table.active(7, NOW + 9_999));
        assert!(!table.active(7, NOW + 10_000));
        table.mark(7, NOW + 8_000);
        assert!(table.active(7, NOW + 17_000));
        table.clear(7);
        assert!(!table.active(7, NOW + 8_000));
    }

    #[test]
    fn another_key_in_the_slot_is_not_marked() {
        let table = PassTable::default();
        let other = 7 | 1 << 60;
        table.mark(7, NOW);
        assert!(!table.active(other, NOW));
        table.clear(other);
        assert!(table.active(7, NOW));
    }

    #[test]
    fn a_clock_that_jumps_back_ends_the_mark() {
        let table = PassTable::default();
        table.mark(7, NOW);
        assert!(!table.active(7, NOW - 3_600_000));
    }
}
