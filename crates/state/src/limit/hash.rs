//! Keys of limits as one number, the same on every replica and not to be guessed from outside.

use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// Turns a limit's name and what it counts by into a key. All replicas must use the same seed, and it
/// must be a secret of the installation: who knows it can make two clients share one limit.
#[derive(Clone)]
pub struct KeyHasher {
    state: SeedableRandomState,
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher")
    }
}

impl KeyHasher {
    /// A hasher for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The shared part is fixed, because a random one would differ between replicas; it may live as
        // long as the process, so it is a constant of the program.
        static SHARED: SharedSeed = SharedSeed::from_u64(0x706f_7274_6963_6f01);
        Self {
            state: SeedableRandomState::with_seed(seed, &SHARED),
        }
    }

    /// The key of some parts, for instance the limit's name and the bytes of an address.
    #[must_use]
    pub fn key(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = self.state.build_hasher();
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_agree_and_parts_do_not_run_together() {
        let (a, b, c) = (KeyHasher::new(1), KeyHasher::new(1), KeyHasher::new(2));
        assert_eq!(a.key(&[b"x", b"yz"]), b.key(&[b"x", b"yz"]));
        assert_ne!(a.key(&[b"x", b"yz"]), a.key(&[b"xy", b"z"]));
        assert_ne!(a.key(&[b"x"]), c.key(&[b"x"]));
    }
}
