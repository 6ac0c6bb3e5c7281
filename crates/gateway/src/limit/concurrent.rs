//! Requests at the same time, counted by key in a fixed table without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Twice as many keys can be under way as connections are allowed.
const SLOTS: usize = 1 << 16;
/// Places that a key may be in.
const PROBES: usize = 8;

/// Each slot holds a key's upper 32 bits and its count; a count of 0 frees it.
#[derive(Debug)]
pub struct Concurrent(Box<[AtomicU64]>);

impl Default for Concurrent {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }
}

/// One request's place; dropping it frees the place.
#[derive(Debug)]
pub struct Seat {
    table: Arc<Concurrent>,
    slot: usize,
}

/// All places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Concurrent {
    /// Counts one request more. When a key finds no slot it is not counted: the table bounds memory, and a
    /// client cannot fill it without the connections that are limited elsewhere.
    ///
    /// # Errors
    /// When `most` are under way.
    pub fn sit(self: &Arc<Self>, key: u64, most: u32) -> Result<Option<Seat>, Full> {
        let mark = key >> 32 | 1;
        // Its own slot first, wherever it is, then the first free one.
        for free in [false, true] {
            for probe in 0..PROBES {
                let slot = key.wrapping_add(probe as u64) as usize % SLOTS;
                let mut full = false;
                let taken = self.0[slot].fetch_update(Relaxed, Relaxed, |word| {
                    let (have, count) = (word >> 32, word & u64::from(u32::MAX));
                    full = count > 0 && have == mark && count >= u64::from(most);
                    let fits = if free {
                        count == 0
                    } else {
                        count > 0 && have == mark
                    };
                    (fits && !full).then_some(mark << 32 | (count + 1))
                });
                if full {
                    return Err(Full);
                }
                if taken.is_ok() {
                    return Ok(Some(Seat {
                        table: Arc::clone(self),
                        slot,
                    }));
                }
            }
        }
        Ok(None)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.0[self.slot].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_by_key_and_given_back() {
        let table = Arc::new(Concurrent::default());
        let (a, b) = (7 | 1 << 40, 7 | 2 << 40);
        let first = table.sit(a, 2).unwrap();
        let second = table.sit(a, 2).unwrap();
        assert_eq!(table.sit(a, 2).err(), Some(Full));
        assert!(
            table.sit(b, 2).unwrap().is_some(),
            "another key in the same slot"
        );
        drop(first);
        assert!(table.sit(a, 2).is_ok());
        drop(second);
        assert!(
            table
                .0
                .iter()
                .all(|slot| slot.load(Relaxed) & u64::from(u32::MAX) == 0)
        );
    }

    #[test]
    fn many_threads_never_pass_the_limit() {
        let table = Arc::new(Concurrent::default());
        let most = AtomicU64::new(0);
        let under_way = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        if let Ok(Some(_seat)) = table.sit(99, 3) {
                            most.fetch_max(under_way.fetch_add(1, Relaxed) + 1, Relaxed);
                            under_way.fetch_sub(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Relaxed)));
    }
}
