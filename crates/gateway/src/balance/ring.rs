//! Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2017; factor 1.25).

use super::dice::mix;

/// Points of an instance of weight 100; with 100 the largest share of five equals is about 1.2 × the mean.
const POINTS: u32 = 100;
const MAX_POINTS: u32 = 400;
/// No instance gets more than this times its fair share of the requests under way.
pub const BOUND: f32 = 1.25;

/// Points on a circle, each of one member.
#[derive(Debug, Default)]
pub struct Ring(Box<[(u64, u16)]>);

impl Ring {
    /// Places members by identity and weight; the same member always has the same points.
    #[must_use]
    pub fn new(members: impl Iterator<Item = (u128, u16)>) -> Self {
        let mut points: Vec<(u64, u16)> = Vec::new();
        for (index, (id, weight)) in members.enumerate() {
            let Ok(index) = u16::try_from(index) else {
                break;
            };
            let count = (u32::from(weight) * POINTS / 100).clamp(1, MAX_POINTS);
            let seed = mix(id as u64 ^ mix((id >> 64) as u64));
            points
                .extend((0..count).map(|n| (mix(seed.wrapping_add(mix(u64::from(n) + 1))), index)));
        }
        points.sort_unstable();
        Self(points.into())
    }

    /// Members from the key's place onwards, each once at least; stops where `accept` says yes.
    pub fn find(&self, key: u64, mut accept: impl FnMut(u16) -> bool) -> Option<u16> {
        let start = self.0.partition_point(|(at, _)| *at < key);
        let around = self.0[start..].iter().chain(&self.0[..start]);
        around
            .map(|(_, member)| *member)
            .find(|member| accept(*member))
    }
}

/// Most requests under way for a member of `weight` among `total_weight`, when one more comes.
#[must_use]
pub fn bound(in_flight: u32, weight: f32, total_weight: f32) -> u32 {
    let share = (in_flight + 1) as f32 * weight / total_weight.max(f32::MIN_POSITIVE);
    (BOUND * share).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(ring: &Ring, key: u64) -> u16 {
        ring.find(mix(key), |_| true)
            .expect("a ring with members has an owner")
    }

    #[test]
    fn one_member_more_moves_few_keys() {
        let ids = |n: u128| {
            (0..n).map(|i| {
                (
                    i.wrapping_mul(0x9e37_79b9_7f4a_7c15_1234_5678_9abc_def1),
                    100_u16,
                )
            })
        };
        let (ten, eleven) = (Ring::new(ids(10)), Ring::new(ids(11)));
        let moved = (0..10_000)
            .filter(|k| owner(&ten, *k) != owner(&eleven, *k))
            .count();
        assert!((500..1_500).contains(&moved), "{moved}");
        let to_old = (0..10_000)
            .filter(|k| owner(&ten, *k) != owner(&eleven, *k) && owner(&eleven, *k) != 10)
            .count();
        assert_eq!(to_old, 0, "keys only move to the new member");
        let mut shares = [0; 10];
        (0..10_000).for_each(|k| shares[usize::from(owner(&ten, k))] += 1);
        assert!(
            shares.iter().all(|n| (600..1_500).contains(n)),
            "{shares:?}"
        );
    }

    #[test]
    fn the_bound_is_a_quarter_above_the_share() {
        assert_eq!(bound(99, 1.0, 10.0), 13);
        assert_eq!(bound(0, 1.0, 2.0), 1);
        assert!(Ring::default().find(1, |_| true).is_none());
    }
}
