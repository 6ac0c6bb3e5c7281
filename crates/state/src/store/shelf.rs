//! Values of one owner whose size together is bounded: what ends soonest leaves first.
//!
//! Redis has one bound for everything in it. Here the owner keeps two tables beside its values, of their sizes and
//! of their ends, and [`Shelf::trim`] takes values out until the rest fits. The tables are written before the value,
//! so that nothing lies there uncounted when a process dies in between; they may be lost without harm, because
//! every value ends by itself too.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::{Cmd, cmd};

use super::{Backend, SharedStore, millis, name};
use crate::error::StateError;
use crate::link::Link;
use crate::options::Deps;

/// Names handled with one command, and commands under way at once.
const CHUNK: usize = 500;
/// Nobody writes any more: the tables go after a week.
const TABLE_TTL_MS: u64 = 7 * 24 * 3600 * 1000;
/// Fixed cost of a value in Redis beyond its bytes and its name, about.
const OVERHEAD: u64 = 128;

/// Values with a bound on their total. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shelf {
    store: SharedStore,
    name: &'static str,
}

/// What a shelf holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShelfUse {
    /// Values.
    pub entries: u64,
    /// Bytes of values and names, with what each costs Redis beside.
    pub bytes: u64,
    /// Values taken out by this trim before their end.
    pub evicted: u64,
}

impl SharedStore {
    /// The values of an owner. Their keys are those of [`SharedStore::get`]: they must not meet others'.
    #[must_use]
    pub fn shelf(&self, name: &'static str) -> Shelf {
        Shelf {
            store: self.clone(),
            name,
        }
    }
}

impl Shelf {
    /// The value of a key that has not ended yet.
    ///
    /// # Errors
    /// As [`SharedStore::get`].
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        self.store.get(key).await
    }

    /// Keeps a value for a time.
    ///
    /// # Errors
    /// As [`SharedStore::put`].
    pub async fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), StateError> {
        if let Backend::Redis(link, deps) = &*self.store.0 {
            let size = (value.len() + key.len()) as u64 + OVERHEAD;
            let mut note = redis::pipe();
            note.cmd("HSET").arg(self.sizes(link)).arg(key).arg(size);
            note.ignore();
            let end = end_ms(deps, ttl);
            note.cmd("ZADD").arg(self.ends(link)).arg(end).arg(key);
            note.ignore();
            for table in [self.sizes(link), self.ends(link)] {
                note.cmd("PEXPIRE").arg(table).arg(TABLE_TTL_MS).ignore();
            }
            link.pipeline::<()>("shelf", &note).await?;
        }
        self.store.put(key, value, ttl).await
    }

    /// Forgets a key.
    ///
    /// # Errors
    /// As [`SharedStore::remove`].
    pub async fn remove(&self, key: &str) -> Result<(), StateError> {
        self.store.remove(key).await?;
        if let Backend::Redis(link, _) = &*self.store.0 {
            self.forget(link, &[key.to_owned()]).await?;
        }
        Ok(())
    }

    /// Takes out what ends soonest until at most nine tenths of `most` bytes are left, if there are more than
    /// `most`; says what is there. In the process alone the store has a bound of its own, and nothing is said.
    ///
    /// # Errors
    /// When Redis is away; what was taken out by then stays out.
    pub async fn trim(&self, most: u64) -> Result<ShelfUse, StateError> {
        let Backend::Redis(link, deps) = &*self.store.0 else {
            return Ok(ShelfUse::default());
        };
        self.forget_ended(link, deps.clock.unix_ms()).await?;
        let mut used = self.count(link).await?;
        if used.bytes <= most {
            return Ok(used);
        }
        let aim = most / 10 * 9;
        while used.bytes > aim {
            let mut range = cmd("ZRANGE");
            range.arg(self.ends(link)).arg(0).arg(CHUNK - 1);
            let names: Vec<String> = link.query("shelf", &range).await?;
            if names.is_empty() {
                break;
            }
            let mut ask = cmd("HMGET");
            ask.arg(self.sizes(link)).arg(&names);
            let sizes: Vec<Option<u64>> = link.query("shelf", &ask).await?;
            let mut victims = Vec::new();
            for (name, size) in names.into_iter().zip(sizes) {
                if used.bytes <= aim {
                    break;
                }
                used.bytes = used.bytes.saturating_sub(size.unwrap_or(0));
                used.entries = used.entries.saturating_sub(1);
                used.evicted += 1;
                victims.push(name);
            }
            try_join_all(victims.iter().map(|key| self.store.remove(key))).await?;
            self.forget(link, &victims).await?;
        }
        Ok(used)
    }

    /// Takes what has ended out of the tables.
    async fn forget_ended(&self, link: &Link, now_ms: i64) -> Result<(), StateError> {
        loop {
            let mut ended = cmd("ZRANGEBYSCORE");
            ended.arg(self.ends(link)).arg("-inf").arg(now_ms);
            ended.arg("LIMIT").arg(0).arg(CHUNK);
            let names: Vec<String> = link.query("shelf", &ended).await?;
            if names.is_empty() {
                return Ok(());
            }
            self.forget(link, &names).await?;
        }
    }

    /// Adds the sizes up, piece by piece: Redis must not stand still for it.
    async fn count(&self, link: &Link) -> Result<ShelfUse, StateError> {
        let mut used = ShelfUse::default();
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(self.sizes(link)).arg(cursor);
            scan.arg("COUNT").arg(CHUNK);
            let (next, pairs): (u64, Vec<(String, u64)>) = link.query("shelf", &scan).await?;
            used.entries += pairs.len() as u64;
            used.bytes += pairs.iter().map(|(_, size)| size).sum::<u64>();
            if next == 0 {
                return Ok(used);
            }
            cursor = next;
        }
    }

    async fn forget(&self, link: &Link, names: &[String]) -> Result<(), StateError> {
        if names.is_empty() {
            return Ok(());
        }
        let mut note = redis::pipe();
        note.add_command(of(self.sizes(link), "HDEL", names));
        note.ignore();
        note.add_command(of(self.ends(link), "ZREM", names));
        note.ignore();
        link.pipeline("shelf", &note).await
    }

    // The braces are a hash tag: in a cluster both tables lie together.
    fn sizes(&self, link: &Link) -> String {
        name(link, &format!("shelf:{{{}}}:sizes", self.name))
    }

    fn ends(&self, link: &Link) -> String {
        name(link, &format!("shelf:{{{}}}:ends", self.name))
    }
}

fn of(table: String, command: &str, names: &[String]) -> Cmd {
    let mut all = cmd(command);
    all.arg(table).arg(names);
    all
}

fn end_ms(deps: &Deps, ttl: Duration) -> i64 {
    let ttl = i64::try_from(millis(ttl)).unwrap_or(i64::MAX);
    deps.clock.unix_ms().saturating_add(ttl)
}
