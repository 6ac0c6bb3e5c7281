//! Limits of all replicas together: blocks of tokens are leased from Redis ahead of need, so that no
//! request waits for it (GW-62).
//!
//! Redis keeps the arrival time of a key. A replica leases 5 to 20 % of the burst at a time and gives
//! them out. While an answer is on its way a key may run into debt: at first within half of the
//! replica's part of the burst, then of what Redis had left at its last answer. Debt is charged in
//! full, so that the long run is exact. After a refusal nothing passes before a new grant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use portico_telemetry::metrics::{Counter, CounterFamily, Family};
use redis::Script;
use tokio::sync::mpsc;

use super::gcra::{Decision, Limit};
use crate::link::Link;
use crate::options::Deps;

static LEASES: CounterFamily = CounterFamily::new(
    "portico_state_limit_leases_total",
    "Blocks of tokens asked from Redis by outcome: granted, refused, failed.",
    &["outcome"],
    3,
);

pub(crate) static FAMILIES: [&Family; 1] = [LEASES.family()];

const SHARDS: usize = 64;
/// Keys that are followed at once, over all shards.
const KEYS: usize = 200_000;
/// Orders that wait for the driver.
const ORDERS: usize = 16_384;
/// Orders under way to Redis at once.
const IN_FLIGHT: usize = 64;
/// What a caller is told when only the answer of Redis is missing.
const SOON_NS: u64 = 2_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// KEYS: key. ARGV: interval in µs, burst, wanted tokens, debt. The clock is the server's own, so the
/// replicas' clocks do not matter.
const LEASE: &str = r"
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local want, debt = tonumber(ARGV[3]), tonumber(ARGV[4])
local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
if tat < now then tat = now end
tat = tat + debt * interval
local free = math.floor((burst * interval - (tat - now)) / interval + 0.000001)
local grant = math.max(0, math.min(want, free))
tat = tat + grant * interval
if grant > 0 or debt > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
end
local wait = 0
if grant == 0 then wait = math.max(0, tat + interval - burst * interval - now) end
return {grant, math.max(0, free - grant), math.ceil(wait)}
";

pub(crate) type Orders = mpsc::Receiver<Order>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    key: u64,
    limit: Limit,
    replicas: u32,
    /// When, by the clock of whoever asked.
    at: u64,
}

pub(crate) struct Shared {
    link: Arc<Link>,
    shards: Box<[Mutex<Leases>]>,
    orders: mpsc::Sender<Order>,
    script: Script,
    granted: Counter,
    refused: Counter,
    failed: Counter,
}

type Leases = HashMap<u64, Lease, foldhash::fast::RandomState>;

#[derive(Debug, Clone, Copy)]
struct Lease {
    /// Tokens in hand; below zero what was given out on debt.
    tokens: i64,
    /// Size of a block.
    block: i64,
    /// Tokens that Redis had left at the last answer.
    left: u32,
    /// An order is on its way.
    pending: bool,
    /// Tokens that may be owed until the next answer; 0 after a refusal.
    credit: i64,
    blocked_until: u64,
    granted_at: u64,
}

impl Shared {
    pub(crate) fn new(link: Arc<Link>, deps: &Deps) -> (Arc<Self>, Orders) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let leases = deps.registry.counter(&LEASES);
        let shared = Arc::new(Self {
            link,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            orders,
            script: Script::new(LEASE),
            granted: leases.with(&["granted"]),
            refused: leases.with(&["refused"]),
            failed: leases.with(&["failed"]),
        });
        (shared, receiver)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    pub(crate) fn check(&self, key: u64, limit: Limit, replicas: u32, now: u64) -> Decision {
        let Some(interval) = limit.interval_ns() else {
            return Decision::UNLIMITED;
        };
        if interval == u64::MAX {
            return super::gcra::step(0, limit, now).0;
        }
        let burst = i64::from(limit.burst.max(1));
        let mut leases = self.shard(key).lock();
        make_room(&mut leases, now);
        let lease = leases
            .entry(key)
            .or_insert_with(|| Lease::new(burst, replicas));
        lease.age(now, interval, burst, replicas);
        let decision = lease.take(burst, interval, now);
        let order = lease.wants_more(decision.allowed, now);
        if order {
            lease.pending = true;
        }
        drop(leases);
        if order
            && self
                .orders
                .try_send(order_of(key, limit, replicas, now))
                .is_err()
        {
            self.with(key, |lease| lease.pending = false);
        }
        decision
    }

    /// Carries orders to Redis; ends only with the process.
    pub(crate) async fn serve(&self, mut orders: Orders) {
        stream::poll_fn(|cx| orders.poll_recv(cx))
            .for_each_concurrent(IN_FLIGHT, |order| self.lease(order))
            .await;
        std::future::pending().await
    }

    async fn lease(&self, order: Order) {
        let mut ask = (0, 0);
        self.with(order.key, |lease| {
            ask = (lease.block, (-lease.tokens).max(0))
        });
        let (block, debt) = ask;
        if block == 0 {
            return;
        }
        let interval_us = order.limit.interval_ns().unwrap_or(1) as f64 / 1e3;
        let key = format!("{}limit:{:016x}", self.link.prefix, order.key);
        let mut call = self.script.prepare_invoke();
        call.key(key)
            .arg(interval_us)
            .arg(order.limit.burst())
            .arg(block)
            .arg(debt);
        let begin = Instant::now();
        let answer: Result<(i64, u32, u64), _> = self.link.script("limit", &call).await;
        // The callers' clock is theirs: the time of the order and what has passed since.
        let passed = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = order.at.saturating_add(passed);
        self.with(order.key, |lease| match answer {
            Ok((grant, left, wait_us)) => {
                lease.answered(debt, grant, left, order.replicas);
                if grant == 0 {
                    lease.blocked_until = now.saturating_add(wait_us.saturating_mul(1_000));
                }
                lease.granted_at = now;
            }
            Err(_) => lease.pending = false,
        });
        match answer {
            Ok((0, ..)) => self.refused.inc(),
            Ok(_) => self.granted.inc(),
            Err(_) => self.failed.inc(),
        }
    }

    fn shard(&self, key: u64) -> &Mutex<Leases> {
        &self.shards[(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize]
    }

    fn with(&self, key: u64, change: impl FnOnce(&mut Lease)) {
        if let Some(lease) = self.shard(key).lock().get_mut(&key) {
            change(lease);
        }
    }
}

impl Lease {
    fn new(burst: i64, replicas: u32) -> Self {
        Self {
            tokens: 0,
            block: share(burst, 20),
            left: 0,
            pending: false,
            credit: first_credit(burst, replicas),
            blocked_until: 0,
            granted_at: 0,
        }
    }

    /// Tokens that lay about for as long as Redis needs to fill up again belong to the past.
    fn age(&mut self, now: u64, interval: u64, burst: i64, replicas: u32) {
        let refill = interval.saturating_mul(burst.unsigned_abs());
        if now.saturating_sub(self.granted_at.max(self.blocked_until)) > refill.max(SECOND_NS) {
            self.tokens = self.tokens.min(0);
            self.credit = first_credit(burst, replicas);
            self.block = share(burst, 20);
            self.granted_at = now;
        }
    }

    fn take(&mut self, burst: i64, interval: u64, now: u64) -> Decision {
        if self.tokens <= 0 && -self.tokens >= self.credit {
            if self.pending && self.credit > 0 {
                // The need outran the lease: larger blocks from now on.
                self.block = (self.block * 2).min(share(burst, 5));
            }
            let retry = self.blocked_until.saturating_sub(now).max(SOON_NS);
            return Decision {
                allowed: false,
                remaining: 0,
                reset_after_ns: interval.saturating_mul(burst.unsigned_abs()),
                retry_after_ns: retry,
            };
        }
        self.tokens -= 1;
        let remaining = i64::from(self.left) + self.tokens.max(0);
        let remaining = remaining.min(burst - 1);
        Decision {
            allowed: true,
            remaining: u32::try_from(remaining).unwrap_or(0),
            reset_after_ns: interval.saturating_mul((burst - remaining).unsigned_abs()),
            retry_after_ns: 0,
        }
    }

    fn wants_more(&self, allowed: bool, now: u64) -> bool {
        let low = self.tokens < (self.block + 1) / 2;
        !self.pending && low && (allowed || now >= self.blocked_until)
    }

    fn answered(&mut self, debt: i64, grant: i64, left: u32, replicas: u32) {
        self.pending = false;
        self.tokens += debt + grant;
        self.left = left;
        let part = i64::from(left) / i64::from(replicas.max(1)) / 2;
        self.credit = if grant == 0 || i64::from(left) < self.block {
            0
        } else {
            part.max(self.block)
        };
    }
}

fn order_of(key: u64, limit: Limit, replicas: u32, at: u64) -> Order {
    Order {
        key,
        limit,
        replicas,
        at,
    }
}

/// What a key that is new here may owe: half of this replica's part of the burst, and a handful, so that a
/// browser's first parallel requests are not refused.
fn first_credit(burst: i64, replicas: u32) -> i64 {
    (burst / i64::from(replicas.max(1)) / 2).max(burst.min(8))
}

fn share(burst: i64, divisor: i64) -> i64 {
    (burst / divisor).max(1)
}

/// Keeps a shard within its part of the bound: first what has been idle, then whatever comes.
fn make_room(leases: &mut Leases, now: u64) {
    if leases.len() < KEYS / SHARDS {
        return;
    }
    leases.retain(|_, l| l.pending || now.saturating_sub(l.granted_at) < 10 * SECOND_NS);
    if leases.len() >= KEYS / SHARDS {
        let mut keep = KEYS / SHARDS / 2;
        leases.retain(|_, l| {
            keep = keep.saturating_sub(1);
            keep > 0 || l.pending || l.tokens < 0
        });
    }
    if leases.len() >= KEYS / SHARDS {
        leases.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debt_is_bounded_and_nothing_passes_after_a_refusal() {
        let mut lease = Lease::new(120, 3);
        let passed = (0..50)
            .filter(|_| lease.take(120, 1_000, 5).allowed)
            .count();
        assert_eq!(passed, 20, "half of a third of the burst");
        lease.answered(20, 0, 0, 3);
        lease.blocked_until = 10 + SECOND_NS;
        assert!(
            !lease.take(120, 1_000, 11).allowed,
            "refused: nothing on debt"
        );
        assert!(!lease.wants_more(false, 12), "not before the time is over");
        assert!(lease.wants_more(false, 10 + SECOND_NS));
        lease.answered(0, 6, 60, 3);
        assert_eq!(lease.take(120, 1_000, 20 + SECOND_NS).remaining, 65);
        assert_eq!(lease.credit, 10, "half of a third of what is left");
        lease.age(20 * SECOND_NS, 1_000, 120, 3);
        assert_eq!(lease.tokens, 0, "old tokens are worth nothing");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut leases = Leases::default();
        for key in 0..20_000_u64 {
            make_room(&mut leases, key);
            leases.insert(
                key,
                Lease {
                    pending: key % 2 == 0,
                    ..Lease::new(10, 1)
                },
            );
            assert!(leases.len() <= KEYS / SHARDS);
        }
    }
}
