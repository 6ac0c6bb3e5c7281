//! The memory against replays: which signed requests were seen in the last minute.

use std::collections::BTreeSet;

/// Digests of signed texts, ordered by their timestamp.
///
/// Bounded without a gap: when it is full, the oldest entry is forgotten and everything signed at or
/// before its time is refused from then on.
#[derive(Debug)]
pub(crate) struct Replays {
    seen: BTreeSet<(u64, [u8; 32])>,
    most: usize,
    floor: Option<u64>,
}

impl Replays {
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            seen: BTreeSet::new(),
            most,
            floor: None,
        }
    }

    /// Remembers a request; false when it was seen before or is too old to tell.
    pub(crate) fn admit(
        &mut self,
        stamp_ms: u64,
        digest: [u8; 32],
        now_ms: u64,
        window_ms: u64,
    ) -> bool {
        let oldest = now_ms.saturating_sub(window_ms);
        while self.seen.first().is_some_and(|(stamp, _)| *stamp < oldest) {
            self.seen.pop_first();
        }
        if self.floor.is_some_and(|floor| stamp_ms <= floor)
            || self.seen.contains(&(stamp_ms, digest))
        {
            return false;
        }
        if self.seen.len() >= self.most
            && let Some((stamp, _)) = self.seen.pop_first()
        {
            self.floor = Some(stamp);
        }
        // The one that made room may be older than what is asked: then it is this one that is too old.
        if self.floor.is_some_and(|floor| stamp_ms <= floor) {
            return false;
        }
        self.seen.insert((stamp_ms, digest))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_MS: u64 = 60_000;

    fn digest(n: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_be_bytes());
        digest
    }

    #[test]
    fn is_bounded_and_never_lets_a_replay_through() {
        let mut replays = Replays::new(3);
        for n in 0..10 {
            assert!(replays.admit(100_000 + n as u64, digest(n), 100_500, WINDOW_MS));
            assert!(replays.len() <= 3);
        }
        for n in 0..10 {
            assert!(
                !replays.admit(100_000 + n as u64, digest(n), 100_500, WINDOW_MS),
                "{n}"
            );
        }
        assert!(
            replays.admit(100_009, digest(99), 100_500, WINDOW_MS),
            "newer than what was forgotten"
        );
    }

    #[test]
    fn forgets_what_is_too_old_to_be_replayed() {
        let mut replays = Replays::new(10);
        assert!(replays.admit(1_000, digest(1), 1_000, WINDOW_MS));
        assert!(
            !replays.admit(1_000, digest(1), 61_000, WINDOW_MS),
            "the last moment in which it is fresh"
        );
        assert!(replays.admit(61_001, digest(2), 61_001, WINDOW_MS));
        assert_eq!(replays.len(), 1);
    }

    #[test]
    fn the_same_moment_holds_many() {
        let mut replays = Replays::new(2);
        assert!(replays.admit(5, digest(1), 5, WINDOW_MS));
        assert!(replays.admit(5, digest(2), 5, WINDOW_MS));
        assert!(
            !replays.admit(5, digest(3), 5, WINDOW_MS),
            "full within one moment: refused, not forgotten"
        );
        assert!(!replays.admit(5, digest(1), 5, WINDOW_MS));
        assert!(replays.admit(6, digest(4), 6, WINDOW_MS));
    }
}
