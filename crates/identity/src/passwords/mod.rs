//! Passwords: hashed off the async threads in a bounded pool, verified in every form that an import brings.

mod common_list;
mod phc;
pub(crate) mod policy;
pub(crate) mod pool;

use std::sync::Arc;
use std::time::Duration;

use argon2::Block;
use portico_base::{FieldFault, Random, Secret};
use portico_telemetry::metrics::Registry;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization as _;

use crate::error::{Error, Result, reason};
use phc::Stored;
use policy::{Known, Rules};
use pool::Pool;

/// Seconds after which a refused login may be tried again: a full queue is worked off in about so long.
const BUSY_RETRY_S: u32 = 2;
/// Longest password that is looked at, in bytes. The policy's 256 characters fit in any script.
const LONGEST: usize = 1_024;
/// Bytes of a salt (identity-protocols §12).
const SALT: usize = 16;

/// Cost of an Argon2id hash (`identity.password.argon2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cost {
    /// Memory in KiB.
    pub m_kib: u32,
    /// Passes.
    pub t: u32,
    /// Lanes.
    pub p: u32,
}

impl Cost {
    /// OWASP's and ASVS's choice.
    pub(crate) const DEFAULT: Self = Self {
        m_kib: 19_456,
        t: 2,
        p: 1,
    };

    /// The cost itself where it is in bounds, else the default.
    pub(crate) fn or_default(self) -> Self {
        if phc::in_bounds(self) {
            self
        } else {
            tracing::warn!("`identity.password.argon2` is out of bounds, the default holds");
            Self::DEFAULT
        }
    }
}

/// What verifying a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wrong,
    Right,
    /// Right, and the stored hash is of another kind or cost than new ones (ID-41).
    Outdated,
}

/// Working memory of one thread of the pool, kept from hash to hash.
pub(crate) type Memory = Vec<Block>;

/// Hashes and verifies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Passwords {
    pool: Arc<Pool>,
    random: Arc<dyn Random>,
}

impl Passwords {
    /// With as many threads as there are cores.
    pub(crate) fn new(registry: &Registry, random: Arc<dyn Random>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self::with_threads(registry, random, cores)
    }

    pub(crate) fn with_threads(
        registry: &Registry,
        random: Arc<dyn Random>,
        threads: usize,
    ) -> Self {
        Self {
            pool: Pool::start(threads, registry),
            random,
        }
    }

    /// The PHC string of a password (Argon2id, 16 bytes of salt, 32 of tag).
    pub(crate) async fn hash(
        &self,
        password: &Secret<String>,
        cost: Cost,
    ) -> Result<Secret<String>> {
        let text = normalised(password);
        let mut salt = [0; SALT];
        self.random.fill(&mut salt);
        let cost = cost.or_default();
        self.hashing(move |memory| phc::make(text.expose(), &salt, cost, memory))
            .await?
            .ok_or_else(|| Error::Internal("a password could not be hashed".to_owned()))
    }

    /// Compares a password with a stored hash. Without one, or with one that cannot be read, it does the
    /// same work and finds it wrong: nobody can tell by time that there is no such account (ID-33).
    pub(crate) async fn verify(
        &self,
        stored: Option<&Secret<String>>,
        password: &Secret<String>,
        cost: Cost,
    ) -> Result<Verdict> {
        if password.expose().len() > LONGEST {
            // Told by its length alone, which the caller knows.
            return Ok(Verdict::Wrong);
        }
        let cost = cost.or_default();
        let raw = password.clone();
        let text = normalised(password);
        let row = stored.and_then(|text| {
            let row = phc::parse(text.expose());
            if row.is_none() {
                tracing::error!("a stored password hash cannot be read");
            }
            row
        });
        self.hashing(move |memory| {
            let Some(row) = row else {
                phc::decoy(text.expose(), cost, memory);
                return Verdict::Wrong;
            };
            // Others hashed what was typed, byte for byte.
            let typed = if matches!(row, Stored::Argon2(_)) {
                &text
            } else {
                &raw
            };
            match row.verify(typed.expose(), memory) {
                false => Verdict::Wrong,
                true if row.is_current(cost) => Verdict::Right,
                true => Verdict::Outdated,
            }
        })
        .await
    }

    /// Judges a password by the policy, which costs too much for an async thread as well.
    pub(crate) async fn judge(
        &self,
        field: &'static str,
        password: &Secret<String>,
        rules: Rules,
        known: Known,
    ) -> Result<Vec<FieldFault>> {
        let text = normalised(password);
        self.work(move |_| policy::check(field, text.expose(), rules, &known))
            .await
    }

    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T> {
        let figures = self.pool.figures();
        self.work(move |memory| figures.time(|| work(memory))).await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T> {
        match self.pool.submit(work) {
            Ok(answer) => answer
                .await
                .map_err(|_| Error::Internal("work on a password panicked".to_owned())),
            Err(pool::Full) => Err(Error::Later(reason::HASH_BUSY, BUSY_RETRY_S)),
        }
    }

    /// Hashes done so far, decoys included.
    #[cfg(test)]
    pub(crate) fn done(&self) -> u64 {
        self.pool.figures().done()
    }

    /// Fills the pool until the guard is dropped: every thread waits, and the queue is full.
    #[cfg(test)]
    pub(crate) fn saturate(&self) -> pool::Saturated {
        self.pool.saturate()
    }
}

/// NFKC (RFC 8265 §4.2 asks for a fixed form): the same password from every keyboard.
pub(crate) fn normalised(password: &Secret<String>) -> Secret<String> {
    Secret::new(password.expose().nfkc().collect())
}

/// Time after which an idle thread gives its memory back.
const IDLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
