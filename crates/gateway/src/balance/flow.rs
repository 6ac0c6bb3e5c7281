//! What flows to one place: requests, failures and latencies, counted by each worker in cells of its own.
//!
//! A data thread takes a seat once ([`take_seat`]); with a seat to itself it counts by a plain load and
//! store, about a nanosecond. Threads without a seat share one, and there counting is an atomic addition.
//! Nothing is allocated for a place that nobody visits.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Seats with cells of their own; the one behind them is shared.
const SEATS: usize = 16;
/// Latencies below 2^5 µs are one bucket.
const FIRST_OCTAVE: u32 = 5;
/// Octaves above it, up to 134 s.
const OCTAVES: usize = 22;
/// Buckets of an octave: a quantile is off by an eighth at most.
const PARTS: usize = 4;
/// Buckets of latency.
pub const BUCKETS: usize = 1 + OCTAVES * PARTS;

/// Where this thread counts.
#[derive(Clone, Copy)]
struct Seat {
    index: u8,
    /// No other thread has this seat.
    alone: bool,
}

thread_local! {
    // A thread's own number, set once: nothing is shared by it.
    static SEAT: Cell<Seat> = const { Cell::new(Seat { index: SEATS as u8, alone: false }) };
}

/// Gives this thread the seat of a worker. Each worker of a process has a different `index`; call it
/// before the worker serves.
pub fn take_seat(index: usize, workers: usize) {
    let seat = Seat {
        index: u8::try_from(index % SEATS).unwrap_or(0),
        alone: workers <= SEATS,
    };
    SEAT.set(seat);
}

/// How something ended that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Well,
    /// By a fault of the client, or a refusal.
    Refused,
    /// By a fault of ours or of the service.
    Failed,
}

/// Counts of one place. The cells wrap around; readers take differences.
#[derive(Debug, Default)]
pub struct Flow {
    cells: OnceLock<Box<[OnceLock<Box<Cells>>; SEATS + 1]>>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Cells {
    requests: AtomicU32,
    refused: AtomicU32,
    failed: AtomicU32,
    times: [AtomicU32; BUCKETS],
}

impl Flow {
    /// Counts one request.
    pub fn count(&self, ended: Ended) {
        let (cells, alone) = self.own();
        add(&cells.requests, alone);
        match ended {
            Ended::Well => {}
            Ended::Refused => add(&cells.refused, alone),
            Ended::Failed => add(&cells.failed, alone),
        }
    }

    /// Notes how long one took, in microseconds.
    pub fn time(&self, micros: u64) {
        let (cells, alone) = self.own();
        add(&cells.times[bucket(micros)], alone);
    }

    /// Everything counted so far.
    #[must_use]
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        let Some(all) = self.cells.get() else {
            return sum;
        };
        for cells in all.iter().filter_map(OnceLock::get) {
            let take = |cell: &AtomicU32| cell.load(Relaxed);
            sum.requests = sum.requests.wrapping_add(take(&cells.requests));
            sum.refused = sum.refused.wrapping_add(take(&cells.refused));
            sum.failed = sum.failed.wrapping_add(take(&cells.failed));
            for (total, cell) in sum.times.iter_mut().zip(&cells.times) {
                *total = total.wrapping_add(take(cell));
            }
        }
        sum
    }

    /// True when nobody ever came.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.cells.get().is_none()
    }

    fn own(&self) -> (&Cells, bool) {
        let seat = SEAT.get();
        let all = self.cells.get_or_init(Box::default);
        (
            all[usize::from(seat.index)].get_or_init(Box::default),
            seat.alone,
        )
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            requests: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            times: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }
}

/// A flow at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub requests: u32,
    pub refused: u32,
    pub failed: u32,
    pub times: [u32; BUCKETS],
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            requests: 0,
            refused: 0,
            failed: 0,
            times: [0; BUCKETS],
        }
    }
}

fn add(cell: &AtomicU32, alone: bool) {
    if alone {
        cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
    } else {
        cell.fetch_add(1, Relaxed);
    }
}

fn bucket(micros: u64) -> usize {
    if micros < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = micros.ilog2();
    let part = usize::try_from(micros >> (octave - 2) & 3).unwrap_or(0);
    let octaves = usize::try_from(octave - FIRST_OCTAVE).unwrap_or(OCTAVES);
    (1 + octaves * PARTS + part).min(BUCKETS - 1)
}

/// Bounds of a bucket in microseconds, the upper one excluded.
#[must_use]
pub fn bounds(bucket: usize) -> (f64, f64) {
    let lower = |bucket: usize| {
        if bucket == 0 {
            return 0.0;
        }
        let (octave, part) = ((bucket - 1) / PARTS, (bucket - 1) % PARTS);
        let step = 2_f64.powi(i32::try_from(octave).unwrap_or(0) + FIRST_OCTAVE.cast_signed() - 2);
        step * (PARTS + part) as f64
    };
    (lower(bucket), lower(bucket + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn threads_with_and_without_seats_lose_nothing() {
        let flow = Flow::default();
        assert!(flow.is_untouched());
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let flow = &flow;
                scope.spawn(move || {
                    if worker < 4 {
                        take_seat(worker, 4);
                    }
                    for i in 0..10_000 {
                        let ended = match i % 10 {
                            0 => Ended::Failed,
                            1 | 2 => Ended::Refused,
                            _ => Ended::Well,
                        };
                        flow.count(ended);
                        flow.time(i);
                    }
                });
            }
        });
        let sum = flow.sum();
        assert_eq!(
            (sum.requests, sum.refused, sum.failed),
            (80_000, 16_000, 8_000)
        );
        assert_eq!(sum.times.iter().sum::<u32>(), 80_000);
    }

    proptest! {
        #[test]
        fn every_time_lies_within_its_bucket(micros in 0_u64..1 << 27) {
            let (low, high) = bounds(bucket(micros));
            prop_assert!(low <= micros as f64 && (micros as f64) < high, "{micros} in {low}..{high}");
        }

        #[test]
        fn what_is_too_long_is_in_the_last(micros in 1_u64 << 27..u64::MAX) {
            prop_assert_eq!(bucket(micros), BUCKETS - 1);
        }
    }
}
