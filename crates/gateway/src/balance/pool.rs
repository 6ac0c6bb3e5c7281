//! The instances of one version of a service, and the choice among them (GW-45…47, GW-56).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use smallvec::SmallVec;
use uuid::Uuid;

use super::breaker::{Admission, Change};
use super::dice::Dice;
use super::load::Load;
use super::ring::{Ring, bound};

/// Longest schedule of the weighted policy; weights are scaled down to fit.
const SCHEDULE: u32 = 1_024;

/// How an instance is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Two at random, the one of lower cost (latency, requests under way, weight) wins.
    #[default]
    Adaptive,
    RoundRobin,
    /// Smooth weighted round robin (nginx).
    Weighted,
    LeastInFlight,
    /// Two at random, the one with fewer requests under way wins (Mitzenmacher 2001).
    Random2,
    /// By a hash of the request, with bounded loads.
    Hash,
    /// The first that works, in order of weight.
    First,
}

/// One instance in a pool.
#[derive(Debug, Clone)]
pub struct Member {
    pub id: Uuid,
    /// 1 to 1000.
    pub weight: u16,
    pub load: Arc<Load>,
}

/// What a choice depends on besides the pool.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub now_ms: u64,
    pub dice: &'a Dice,
    /// For [`Policy::Hash`].
    pub hash: u64,
    /// Members that were tried already.
    pub tried: &'a [u16],
    pub slow_start_ms: u64,
    /// What a failure costs, in microseconds.
    pub timeout_us: f32,
}

/// A chosen member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub index: u16,
    /// Its outcome decides about a half-open breaker.
    pub trial: bool,
    /// More than half of the pool is ejected, so that all are used.
    pub panic: bool,
    pub change: Option<Change>,
}

/// Members that may get requests now: the ready ones, or the late ones when nobody is ready.
#[derive(Debug, Default)]
pub struct Pool {
    members: Box<[Member]>,
    all: Box<[u16]>,
    policy: Policy,
    /// For [`Policy::Weighted`]: who is next, smoothly spread.
    schedule: Box<[u16]>,
    ring: Ring,
    cursor: Arc<AtomicUsize>,
}

impl Pool {
    /// A pool; members of weight 0 get nothing. `cursor` lives on in the service.
    #[must_use]
    pub fn new(mut members: Vec<Member>, policy: Policy, cursor: Arc<AtomicUsize>) -> Self {
        members.retain(|m| m.weight > 0);
        members.truncate(usize::from(u16::MAX));
        match policy {
            Policy::First => members.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.id.cmp(&b.id))),
            _ => members.sort_by_key(|m| m.id),
        }
        let schedule = if policy == Policy::Weighted {
            smooth(&members)
        } else {
            Box::default()
        };
        let ring = match policy {
            Policy::Hash => Ring::new(members.iter().map(|m| (m.id.as_u128(), m.weight))),
            _ => Ring::default(),
        };
        let all = (0..members.len())
            .filter_map(|i| u16::try_from(i).ok())
            .collect();
        Self {
            members: members.into(),
            all,
            policy,
            schedule,
            ring,
            cursor,
        }
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many members' breakers refuse now by themselves.
    #[must_use]
    pub fn ejected(&self, now_ms: u64) -> usize {
        self.willing(now_ms)
            .filter(|m| m.load.breaker.is_open(now_ms))
            .count()
    }

    /// True when so many are ejected that all are used instead. Those that an operator closed off are not
    /// counted, and not used either: the decision was a person's.
    #[must_use]
    pub fn panics(&self, now_ms: u64) -> bool {
        self.ejected(now_ms) * 2 > self.willing(now_ms).count()
    }

    /// Members that no operator closed off.
    fn willing(&self, now_ms: u64) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(move |m| !m.load.breaker.is_forced_open(now_ms))
    }

    /// Chooses a member; nothing when all were tried.
    #[must_use]
    pub fn pick(&self, ask: &Ask<'_>) -> Option<Choice> {
        if ask.tried.is_empty()
            && let Some(index) = self.choose(&self.all, ask)
        {
            let (admission, change) = self.members[usize::from(index)]
                .load
                .breaker
                .admit(ask.now_ms);
            match admission {
                Admission::Pass => {
                    return Some(Choice {
                        index,
                        trial: false,
                        panic: false,
                        change,
                    });
                }
                Admission::Trial => {
                    return Some(Choice {
                        index,
                        trial: true,
                        panic: false,
                        change,
                    });
                }
                Admission::Refuse { .. } => {}
            }
        }
        self.pick_carefully(ask)
    }

    /// The way for pools in which somebody is ejected or was tried.
    fn pick_carefully(&self, ask: &Ask<'_>) -> Option<Choice> {
        let panic = self.panics(ask.now_ms);
        let fits = |i: &u16| {
            let breaker = &self.members[usize::from(*i)].load.breaker;
            let shut = if panic {
                breaker.is_forced_open(ask.now_ms)
            } else {
                breaker.is_open(ask.now_ms)
            };
            !ask.tried.contains(i) && !shut
        };
        let mut left: SmallVec<[u16; 32]> = self.all.iter().copied().filter(fits).collect();
        // An attempt is lost only when a trial was taken by another worker in between.
        while !left.is_empty() {
            let index = self.choose(&left, ask)?;
            let (admission, change) = self.members[usize::from(index)]
                .load
                .breaker
                .admit(ask.now_ms);
            let trial = admission == Admission::Trial;
            if trial || admission == Admission::Pass || panic {
                return Some(Choice {
                    index,
                    trial,
                    panic,
                    change,
                });
            }
            left.retain(|i| *i != index);
        }
        None
    }

    fn choose(&self, among: &[u16], ask: &Ask<'_>) -> Option<u16> {
        match among {
            [] => return None,
            [one] => return Some(*one),
            _ => {}
        }
        match self.policy {
            Policy::Adaptive => Some(self.better_of_two(among, ask, |m, unknown| {
                m.load
                    .cost(ask.now_ms, weight(m, ask), unknown, ask.timeout_us)
            })),
            Policy::Random2 => Some(self.better_of_two(among, ask, |m, _| under_way(m, ask))),
            Policy::RoundRobin => Some(self.next_in_turn(among, ask)),
            Policy::Weighted => Some(self.next_scheduled(among, ask)),
            Policy::LeastInFlight => Some(self.least(among, ask)),
            Policy::Hash => self.by_hash(among, ask),
            Policy::First => among.first().copied(),
        }
    }

    fn better_of_two(
        &self,
        among: &[u16],
        ask: &Ask<'_>,
        cost: impl Fn(&Member, f32) -> f32,
    ) -> u16 {
        let first = ask.dice.below(among.len());
        // Drawn from one fewer and shifted, so that the two differ.
        let second = (first + 1 + ask.dice.below(among.len() - 1)) % among.len();
        let (a, b) = (among[first], among[second]);
        let (left, right) = (&self.members[usize::from(a)], &self.members[usize::from(b)]);
        // Whose trial is due would lose for ever against peers that never failed.
        for (index, member) in [(a, left), (b, right)] {
            if member.load.breaker.is_due(ask.now_ms) {
                return index;
            }
        }
        // One without samples is as good as the other until it is known better.
        let known = |m: &Member| m.load.latency(ask.now_ms);
        let (unknown_left, unknown_right) =
            (known(right).unwrap_or(1.0), known(left).unwrap_or(1.0));
        if cost(left, unknown_left) <= cost(right, unknown_right) {
            a
        } else {
            b
        }
    }

    fn next_in_turn(&self, among: &[u16], ask: &Ask<'_>) -> u16 {
        let turn = || among[self.cursor.fetch_add(1, Relaxed) % among.len()];
        let index = turn();
        if self.is_held_back(index, ask) {
            turn()
        } else {
            index
        }
    }

    fn next_scheduled(&self, among: &[u16], ask: &Ask<'_>) -> u16 {
        let length = self.schedule.len().max(1);
        for _ in 0..length {
            let at = self.cursor.fetch_add(1, Relaxed) % length;
            let Some(index) = self.schedule.get(at) else {
                break;
            };
            let here = among.len() == self.all.len() || among.contains(index);
            if here && !self.is_held_back(*index, ask) {
                return *index;
            }
        }
        among[ask.dice.below(among.len())]
    }

    /// True for the turns that a member in its slow start lets pass.
    fn is_held_back(&self, index: u16, ask: &Ask<'_>) -> bool {
        let share = self.members[usize::from(index)]
            .load
            .ramped(ask.now_ms, ask.slow_start_ms);
        share < 1.0 && ask.dice.unit() > f64::from(share)
    }

    fn least(&self, among: &[u16], ask: &Ask<'_>) -> u16 {
        let start = ask.dice.below(among.len());
        let turned = among[start..].iter().chain(&among[..start]);
        let load = |i: &u16| under_way(&self.members[usize::from(*i)], ask);
        turned
            .copied()
            .min_by(|a, b| load(a).total_cmp(&load(b)))
            .unwrap_or(among[0])
    }

    fn by_hash(&self, among: &[u16], ask: &Ask<'_>) -> Option<u16> {
        let sums = among.iter().fold((0_u32, 0.0_f32), |(flight, total), i| {
            let member = &self.members[usize::from(*i)];
            (
                flight + member.load.in_flight(),
                total + weight(member, ask),
            )
        });
        let here = |i: u16| among.len() == self.all.len() || among.contains(&i);
        let fits = |i: u16| {
            let member = &self.members[usize::from(i)];
            here(i) && member.load.in_flight() < bound(sums.0, weight(member, ask), sums.1)
        };
        self.ring
            .find(ask.hash, fits)
            .or_else(|| self.ring.find(ask.hash, here))
    }
}

fn weight(member: &Member, ask: &Ask<'_>) -> f32 {
    f32::from(member.weight) * member.load.ramped(ask.now_ms, ask.slow_start_ms)
}

fn under_way(member: &Member, ask: &Ask<'_>) -> f32 {
    (member.load.in_flight() + 1) as f32 / weight(member, ask)
}

/// Nginx's smooth weighted round robin, worked out beforehand.
fn smooth(members: &[Member]) -> Box<[u16]> {
    let total: u32 = members.iter().map(|m| u32::from(m.weight)).sum();
    let divisor = members
        .iter()
        .fold(0, |d, m| gcd(d, u32::from(m.weight)))
        .max(1);
    let length = (total / divisor).min(SCHEDULE);
    let mut credit = vec![0_i64; members.len()];
    let mut schedule = Vec::new();
    for _ in 0..length {
        for (have, member) in credit.iter_mut().zip(members) {
            *have += i64::from(member.weight);
        }
        let Some(next) = (0..credit.len()).rev().max_by_key(|i| credit[*i]) else {
            break;
        };
        credit[next] -= i64::from(total);
        schedule.extend(u16::try_from(next));
    }
    schedule.into()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::{Attempted, BreakerSettings};
    use super::*;

    fn pool(weights: &[u16], policy: Policy) -> Pool {
        let members = weights.iter().enumerate().map(|(i, weight)| Member {
            id: Uuid::from_u128(i as u128 + 1),
            weight: *weight,
            load: Arc::default(),
        });
        Pool::new(members.collect(), policy, Arc::default())
    }

    fn ask<'a>(dice: &'a Dice, tried: &'a [u16]) -> Ask<'a> {
        Ask {
            now_ms: 1_000,
            dice,
            hash: 7,
            tried,
            slow_start_ms: 15_000,
            timeout_us: 30e6,
        }
    }

    fn shares(pool: &Pool, dice: &Dice, n: usize) -> Vec<usize> {
        let mut shares = vec![0; pool.members().len()];
        for _ in 0..n {
            shares[usize::from(pool.pick(&ask(dice, &[])).unwrap().index)] += 1;
        }
        shares
    }

    fn open(pool: &Pool, index: usize) {
        for _ in 0..5 {
            let failed = Attempted::Failed {
                penalty: 1.0,
                why: "reset",
            };
            pool.members()[index]
                .load
                .tell(900, failed, false, &BreakerSettings::default(), 0.5);
        }
    }

    #[test]
    fn turns_are_shared_by_weight_and_smoothly() {
        let dice = Dice::new(1);
        assert_eq!(
            shares(&pool(&[100, 100, 100], Policy::RoundRobin), &dice, 300),
            [100, 100, 100]
        );
        let weighted = pool(&[500, 100, 100], Policy::Weighted);
        assert_eq!(
            weighted.schedule.iter().map(|i| i + 1).collect::<Vec<_>>(),
            [1, 1, 2, 1, 3, 1, 1]
        );
        assert_eq!(shares(&weighted, &dice, 700), [500, 100, 100]);
        assert_eq!(
            pool(&[0, 5], Policy::Weighted).members().len(),
            1,
            "weight 0 gets nothing"
        );
    }

    #[test]
    fn fewer_requests_under_way_win() {
        let dice = Dice::new(2);
        for policy in [Policy::LeastInFlight, Policy::Adaptive] {
            let pool = pool(&[100, 100], policy);
            pool.members()[0].load.begin();
            pool.members()[0].load.begin();
            assert_eq!(shares(&pool, &dice, 100), [0, 100], "{policy:?}");
        }
        let pool = pool(&[100, 300, 100], Policy::First);
        assert_eq!(pool.members()[0].weight, 300);
        assert_eq!(shares(&pool, &dice, 10), [10, 0, 0]);
    }

    #[test]
    fn a_hash_stays_with_its_instance_until_that_is_too_busy() {
        let dice = Dice::new(3);
        let pool = pool(&[100; 5], Policy::Hash);
        let home = usize::from(pool.pick(&ask(&dice, &[])).unwrap().index);
        assert_eq!(shares(&pool, &dice, 50)[home], 50);
        for _ in 0..4 {
            pool.members()[home].load.begin();
        }
        let other = usize::from(pool.pick(&ask(&dice, &[])).unwrap().index);
        assert_ne!(
            other, home,
            "4 of 4 under way are more than 1.25 times its share"
        );
    }

    #[test]
    fn ejected_members_get_nothing_but_never_more_than_half_are_ejected() {
        let dice = Dice::new(4);
        for policy in [
            Policy::Adaptive,
            Policy::RoundRobin,
            Policy::Weighted,
            Policy::LeastInFlight,
            Policy::Random2,
            Policy::Hash,
            Policy::First,
        ] {
            let pool = pool(&[100; 4], policy);
            open(&pool, 0);
            open(&pool, 1);
            let got = shares(&pool, &dice, 400);
            assert_eq!((got[0], got[1]), (0, 0), "{policy:?}");
            open(&pool, 2);
            assert!(pool.panics(1_000));
            let choice = pool.pick(&ask(&dice, &[3])).unwrap();
            assert!(choice.panic && choice.index != 3, "{policy:?}");
        }
        let alone = pool(&[100], Policy::Adaptive);
        open(&alone, 0);
        assert!(
            alone.pick(&ask(&dice, &[])).unwrap().panic,
            "the only instance is always used"
        );
    }

    #[test]
    fn what_an_operator_closed_off_gets_nothing_even_in_panic() {
        let dice = Dice::new(6);
        let pool = pool(&[100; 3], Policy::Adaptive);
        let forced = Some(super::super::Forced::Open);
        pool.members()[0].load.breaker.force(forced, 5_000);
        let got = shares(&pool, &dice, 300);
        assert!(got[0] == 0 && got[1] > 0 && got[2] > 0, "{got:?}");
        assert!(!pool.panics(1_000), "a person's decision is no panic");
        open(&pool, 1);
        open(&pool, 2);
        assert!(pool.panics(1_000));
        assert_eq!(shares(&pool, &dice, 300)[0], 0);
        for member in pool.members() {
            member.load.breaker.force(forced, 5_000);
        }
        assert_eq!(pool.pick(&ask(&dice, &[])), None, "nobody is left");
        pool.members()[0].load.breaker.force(None, 0);
        assert_eq!(pool.pick(&ask(&dice, &[])).map(|c| c.index), Some(0));
    }

    #[test]
    fn tried_members_are_not_tried_again() {
        let dice = Dice::new(5);
        let pool = pool(&[100, 100], Policy::Adaptive);
        assert_eq!(pool.pick(&ask(&dice, &[0])).unwrap().index, 1);
        assert_eq!(pool.pick(&ask(&dice, &[0, 1])), None);
    }
}
