//! Balancing in simulated time: the figures of GW-48 and each trap of the facts' §9.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::pool::Ask;
use super::{Attempted, BreakerSettings, Dice, Load, Member, Policy, Pool};

const SET: BreakerSettings = BreakerSettings {
    failures: 5,
    ratio: 0.5,
    min_requests: 20,
    window_ms: 10_000,
    open_ms: 30_000,
};
const TIMEOUT_US: f32 = 30e6;

/// How a simulated instance answers.
#[derive(Clone, Copy)]
enum Kind {
    /// Mean service time in microseconds, exponential, one request after the other per slot.
    Works(f64),
    /// Answers 500 after so many microseconds.
    Errs(f64),
    /// Fails in a way that breakers count.
    Breaks(f64),
}

struct World {
    pool: Pool,
    kinds: Vec<Kind>,
    dice: Dice,
}

struct Outcome {
    /// Latencies of good answers in microseconds, sorted.
    latencies: Vec<u64>,
    shares: Vec<usize>,
    /// Shares in the second half.
    late_shares: Vec<usize>,
}

impl World {
    fn new(kinds: &[Kind], policy: Policy, seed: u64) -> Self {
        let members = (0..kinds.len()).map(|i| Member {
            id: Uuid::from_u128(i as u128 + 1),
            weight: 100,
            load: Arc::new(Load::default()),
        });
        Self {
            pool: Pool::new(members.collect(), policy, Arc::default()),
            kinds: kinds.to_vec(),
            dice: Dice::new(seed),
        }
    }

    /// Requests come every `gap_us`; each instance works on four at a time.
    fn run(&self, from_us: u64, requests: u64, gap_us: u64) -> Outcome {
        let n = self.kinds.len();
        let mut slots: Vec<[u64; 4]> = vec![[0; 4]; n];
        let mut ends: BinaryHeap<Reverse<(u64, u16, u64, bool)>> = BinaryHeap::new();
        let mut out = Outcome {
            latencies: Vec::new(),
            shares: vec![0; n],
            late_shares: vec![0; n],
        };
        for request in 0..requests {
            let now = from_us + request * gap_us;
            while ends.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
                let Some(Reverse((at, index, began, trial))) = ends.pop() else {
                    break;
                };
                self.end(at, index, at - began, trial, &mut out);
            }
            let ask = Ask {
                now_ms: now / 1000,
                dice: &self.dice,
                hash: self.dice.u64(),
                tried: &[],
                slow_start_ms: 15_000,
                timeout_us: TIMEOUT_US,
            };
            let choice = self.pool.pick(&ask).expect("somebody is always chosen");
            let index = usize::from(choice.index);
            self.pool.members()[index].load.begin();
            out.shares[index] += 1;
            if request * 2 >= requests {
                out.late_shares[index] += 1;
            }
            let time = match self.kinds[index] {
                Kind::Works(mean) => -mean * (1.0 - self.dice.unit()).ln(),
                Kind::Errs(time) | Kind::Breaks(time) => time,
            };
            let slot = slots[index].iter_mut().min().expect("four slots");
            *slot = (*slot).max(now) + (time as u64).max(1);
            ends.push(Reverse((*slot, choice.index, now, choice.trial)));
        }
        while let Some(Reverse((at, index, began, trial))) = ends.pop() {
            self.end(at, index, at - began, trial, &mut out);
        }
        out.latencies.sort_unstable();
        out
    }

    fn end(&self, at_us: u64, index: u16, micros: u64, trial: bool, out: &mut Outcome) {
        let index = usize::from(index);
        let load = &self.pool.members()[index].load;
        load.end();
        let what = match self.kinds[index] {
            Kind::Works(_) => {
                out.latencies.push(micros);
                Attempted::Answered {
                    micros: micros as f32,
                }
            }
            Kind::Errs(_) => Attempted::Erred {
                micros: micros as f32,
            },
            Kind::Breaks(_) => Attempted::Failed {
                penalty: TIMEOUT_US,
                why: "reset",
            },
        };
        load.tell(at_us / 1000, what, trial, &SET, self.dice.unit());
    }
}

impl Outcome {
    fn p99(&self) -> f64 {
        self.latencies[self.latencies.len() * 99 / 100] as f64
    }
}

#[test]
fn one_slow_instance_of_five_hardly_shows_with_adaptive_and_does_with_turns() {
    let healthy = World::new(&[Kind::Works(2_000.0); 4], Policy::Adaptive, 1)
        .run(1_000_000, 60_000, 500)
        .p99();
    let mut kinds = [Kind::Works(2_000.0); 5];
    kinds[2] = Kind::Works(20_000.0);
    let adaptive = World::new(&kinds, Policy::Adaptive, 2)
        .run(1_000_000, 60_000, 500)
        .p99();
    let turns = World::new(&kinds, Policy::RoundRobin, 3)
        .run(1_000_000, 60_000, 500)
        .p99();
    assert!(
        adaptive <= 1.5 * healthy,
        "adaptive {adaptive} healthy {healthy}"
    );
    assert!(turns >= 8.0 * healthy, "turns {turns} healthy {healthy}");
}

#[test]
fn an_instance_that_fails_fast_does_not_look_fast() {
    let mut kinds = [Kind::Works(2_000.0); 5];
    kinds[0] = Kind::Errs(100.0);
    let world = World::new(&kinds, Policy::Adaptive, 4);
    world.run(1_000_000, 4_000, 500);
    let after = world.run(3_000_000, 20_000, 500);
    let share = after.shares[0] as f64 / 20_000.0;
    assert!(share < 0.02, "{share}");
}

#[test]
fn a_broken_instance_is_ejected_and_tried_again_later() {
    let mut kinds = vec![Kind::Works(2_000.0); 4];
    kinds[1] = Kind::Breaks(100.0);
    let mut world = World::new(&kinds, Policy::RoundRobin, 5);
    let broken = world.run(1_000_000, 10_000, 1_000);
    assert!(broken.shares[1] <= 10, "{:?}", broken.shares);
    world.kinds[1] = Kind::Works(2_000.0);
    let mended = world.run(60_000_000, 60_000, 1_000);
    let share = mended.late_shares[1] as f64 / 30_000.0;
    assert!((0.2..0.3).contains(&share), "{share}");
}

#[test]
fn with_adaptive_a_mended_instance_comes_back_too() {
    let mut kinds = vec![Kind::Works(2_000.0); 3];
    kinds[0] = Kind::Breaks(100.0);
    let mut world = World::new(&kinds, Policy::Adaptive, 6);
    world.run(1_000_000, 10_000, 1_000);
    world.kinds[0] = Kind::Works(2_000.0);
    let mended = world.run(60_000_000, 60_000, 1_000);
    assert!(mended.late_shares[0] > 6_000, "{:?}", mended.late_shares);
}

#[test]
fn a_new_instance_without_samples_does_not_attract_everything() {
    let world = World::new(&[Kind::Works(5_000.0); 5], Policy::Adaptive, 7);
    for member in &world.pool.members()[..4] {
        member.load.seed(1_000, 5_000.0);
    }
    world.pool.members()[4].load.ramp(1_000);
    let out = world.run(1_000_000, 2_000, 500);
    assert!(
        out.shares[4] < 200,
        "a new one gets less than its fifth at first: {:?}",
        out.shares
    );
    let later = world.run(20_000_000, 20_000, 500);
    assert!(
        (3_000..5_500).contains(&later.shares[4]),
        "and its share after the slow start: {:?}",
        later.shares
    );
}

#[test]
fn long_streams_count_as_load_and_not_as_latency() {
    let world = World::new(&[Kind::Works(2_000.0); 2], Policy::Adaptive, 8);
    let streaming = &world.pool.members()[0].load;
    for _ in 0..50 {
        streaming.begin();
        streaming.tell(
            1_000,
            Attempted::Answered { micros: 2_000.0 },
            false,
            &SET,
            0.5,
        );
    }
    world.pool.members()[1].load.seed(1_000, 2_000.0);
    let busy = world.run(1_000_000, 2_000, 1_000);
    assert!(busy.shares[0] < 100, "{:?}", busy.shares);
    for _ in 0..50 {
        streaming.end();
    }
    let free = world.run(10_000_000, 4_000, 1_000);
    assert!(
        free.shares[0] > 1_000,
        "an hour-long stream leaves no trace: {:?}",
        free.shares
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Broken instances get nothing while they are at most half of the pool; when they are more, all are used.
    #[test]
    fn never_more_than_half_are_ejected(broken in proptest::collection::vec(any::<bool>(), 1..9), seed: u64) {
        let kinds: Vec<Kind> = broken.iter().map(|b| if *b { Kind::Breaks(50.0) } else { Kind::Works(500.0) }).collect();
        let out = World::new(&kinds, Policy::Random2, seed).run(1_000_000, 4_000, 200);
        let many = broken.iter().filter(|b| **b).count() * 2 > broken.len();
        for (i, _) in broken.iter().enumerate().filter(|(_, b)| **b) {
            prop_assert_eq!(out.late_shares[i] > 0, many, "{} of {:?}", i, out.late_shares);
        }
    }
}
