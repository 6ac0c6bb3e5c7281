//! Shared values when there is only one process: bounded tables with ends.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use portico_base::Clock;

use super::millis;
use crate::error::StateError;

const VALUE_BYTES: u64 = 64 << 20;
/// Nonces must not leave before their time: beyond this new ones are refused.
const CLAIMS: usize = 1_000_000;
const GENERATIONS: usize = 100_000;

pub(crate) struct LocalStore {
    values: moka::sync::Cache<Arc<str>, Value>,
    claims: Mutex<Claims>,
    generations: Mutex<HashMap<String, u64>>,
    next: AtomicU64,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Value {
    bytes: Bytes,
    ends_ms: i64,
}

#[derive(Default)]
struct Claims {
    ends: HashMap<Arc<str>, i64>,
    order: BTreeSet<(i64, Arc<str>)>,
}

impl LocalStore {
    pub(crate) fn new(clock: Arc<dyn Clock>, first_generation: u64) -> Self {
        let weigh = |key: &Arc<str>, value: &Value| {
            u32::try_from(key.len() + value.bytes.len() + 64).unwrap_or(u32::MAX)
        };
        Self {
            values: moka::sync::Cache::builder()
                .max_capacity(VALUE_BYTES)
                .weigher(weigh)
                .build(),
            claims: Mutex::default(),
            generations: Mutex::default(),
            next: AtomicU64::new(first_generation),
            clock,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Bytes> {
        let value = self.values.get(key)?;
        if value.ends_ms <= self.clock.unix_ms() {
            self.values.invalidate(key);
            return None;
        }
        Some(value.bytes)
    }

    pub(super) fn put(&self, key: &str, bytes: Bytes, ttl: Duration) {
        let ends_ms = self.end(ttl);
        self.values.insert(Arc::from(key), Value { bytes, ends_ms });
    }

    pub(super) fn remove(&self, key: &str) {
        self.values.invalidate(key);
        let mut claims = self.claims.lock();
        if let Some((key, ends)) = claims.ends.remove_entry(key) {
            claims.order.remove(&(ends, key));
        }
    }

    pub(super) fn claim(&self, key: &str, ttl: Duration) -> Result<bool, StateError> {
        let now = self.clock.unix_ms();
        let mut claims = self.claims.lock();
        claims.forget_until(now);
        if claims.ends.contains_key(key) {
            return Ok(false);
        }
        if claims.ends.len() >= CLAIMS {
            return Err(StateError::Full("nonces"));
        }
        let (key, ends): (Arc<str>, i64) = (Arc::from(key), self.end(ttl));
        claims.ends.insert(Arc::clone(&key), ends);
        claims.order.insert((ends, key));
        Ok(true)
    }

    pub(super) fn generation(&self, namespace: &str) -> u64 {
        let mut generations = self.generations.lock();
        if generations.len() >= GENERATIONS && !generations.contains_key(namespace) {
            // Forgetting them all is legal (it removes everything), and bounded.
            generations.clear();
        }
        *generations
            .entry(namespace.to_owned())
            .or_insert_with(|| self.next.fetch_add(1, Relaxed))
    }

    pub(super) fn bump(&self, namespace: &str) -> u64 {
        self.generations.lock().remove(namespace);
        self.generation(namespace)
    }

    fn end(&self, ttl: Duration) -> i64 {
        let ttl = i64::try_from(millis(ttl)).unwrap_or(i64::MAX);
        self.clock.unix_ms().saturating_add(ttl)
    }
}

impl Claims {
    fn forget_until(&mut self, now: i64) {
        while let Some((ends, _)) = self.order.first() {
            if *ends > now {
                break;
            }
            if let Some((_, key)) = self.order.pop_first() {
                self.ends.remove(&key);
            }
        }
    }
}
