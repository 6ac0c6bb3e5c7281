//! Two counts over a sliding window of ten slices, shared by all workers without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SLICES: usize = 10;
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const EPOCH_MAX: u64 = (1 << 24) - 1;

/// Each slice packs its epoch (24 bits) and both counts (20 bits each) into one word, so that it is
/// reset and counted by one compare-and-swap.
#[derive(Debug, Default)]
pub struct Window {
    slices: [AtomicU64; SLICES],
}

/// Sums over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub all: u64,
    pub marked: u64,
}

impl Window {
    /// Counts one event at `now_ms` in a window of `window_ms`.
    pub fn count(&self, now_ms: u64, window_ms: u64, marked: bool) {
        self.add(now_ms, window_ms, 1, u64::from(marked));
    }

    /// Adds to both counts; each stops at a million a slice.
    pub fn add(&self, now_ms: u64, window_ms: u64, all: u64, marked: u64) {
        let epoch = epoch(now_ms, window_ms);
        let slice = &self.slices[slot(epoch)];
        let _ = slice.fetch_update(Relaxed, Relaxed, |word| {
            let (have, sums) = if word >> (2 * COUNT_BITS) == epoch {
                (epoch, unpack(word))
            } else {
                (epoch, Sums::default())
            };
            let all = (sums.all + all).min(COUNT_MAX);
            let marked = (sums.marked + marked).min(COUNT_MAX);
            Some(have << (2 * COUNT_BITS) | all << COUNT_BITS | marked)
        });
    }

    /// What was counted in the window that ends now.
    #[must_use]
    pub fn sums(&self, now_ms: u64, window_ms: u64) -> Sums {
        let now = epoch(now_ms, window_ms);
        let mut total = Sums::default();
        for slice in &self.slices {
            let word = slice.load(Relaxed);
            let age = now.wrapping_sub(word >> (2 * COUNT_BITS)) & EPOCH_MAX;
            if age < SLICES as u64 {
                let sums = unpack(word);
                total.all += sums.all;
                total.marked += sums.marked;
            }
        }
        total
    }

    pub fn clear(&self) {
        for slice in &self.slices {
            slice.store(0, Relaxed);
        }
    }
}

fn epoch(now_ms: u64, window_ms: u64) -> u64 {
    // One is added so that the empty word, epoch 0, is long ago at the beginning.
    (now_ms / (window_ms / SLICES as u64).max(1) + SLICES as u64) & EPOCH_MAX
}

fn slot(epoch: u64) -> usize {
    usize::try_from(epoch).unwrap_or(0) % SLICES
}

const fn unpack(word: u64) -> Sums {
    Sums {
        all: (word >> COUNT_BITS) & COUNT_MAX,
        marked: word & COUNT_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_slices_fall_out() {
        let window = Window::default();
        window.count(0, 10_000, true);
        window.count(4_000, 10_000, false);
        assert_eq!(window.sums(9_999, 10_000), Sums { all: 2, marked: 1 });
        assert_eq!(window.sums(10_000, 10_000), Sums { all: 1, marked: 0 });
        assert_eq!(window.sums(14_000, 10_000), Sums::default());
        window.count(100_000, 10_000, true);
        assert_eq!(window.sums(100_000, 10_000), Sums { all: 1, marked: 1 });
        window.clear();
        assert_eq!(window.sums(100_000, 10_000), Sums::default());
    }

    #[test]
    fn counts_of_many_threads_are_all_there() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|i| window.count(500, 10_000, i % 4 == 0)));
            }
        });
        assert_eq!(
            window.sums(500, 10_000),
            Sums {
                all: 40_000,
                marked: 10_000
            }
        );
    }
}
