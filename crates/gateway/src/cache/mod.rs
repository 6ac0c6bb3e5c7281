//! The gateway's response cache: an RFC 9111 shared cache in three tiers with single-flight.
//!
//! L1 (memory, fresh) → L2 (shared, when there is one) → origin → L3 (memory, stale). The cache knows neither bodies
//! nor sockets: it takes a [`RequestView`], the route's [`RulePolicy`] and the time, and says what to do. The
//! sequence for one request:
//!
//! ```text
//! match cache.lookup(&view, &rule, now) {
//!     Lookup::Hit(answer)              => write status(), headers() or write_fields(), body()
//!     Lookup::Stale(answer, refresh)   => write it; if refresh is Some, fetch with it in a local task (see below)
//!     Lookup::OnlyIfCached             => 504
//!     Lookup::Bypass(reason)           => forward as it is; mark_forwarded(.., Bypassed(reason), ..);
//!                                         after an unsafe method: cache.after_unsafe(&view, &rule, status, &headers, now)
//!     Lookup::Miss(ticket)             => match ticket.turn(&view, &rule, time_out, &clock).await {
//!         Turn::Ready(answer)          => write it
//!         Turn::Busy                   => 503 with Retry-After: 1
//!         Turn::TimedOut               => as when the origin's first byte is late
//!         Turn::Lead(mut leader)       => {
//!             leader.prepare(&mut upstream_request_headers, clock());
//!             match forward().await {
//!                 Err(_) => match leader.on_error(&view, clock()) { Some(stale) => write it, None => the error }
//!                 Ok(head) => match leader.fill(&view, &rule, head.status, &head.headers, clock()) {
//!                     Fill::Answer(answer)   => write it and drop the origin's body (it said 304, or failed)
//!                     Fill::Through(reason)  => stream on; mark_forwarded(.., Refused(reason), ..)
//!                     Fill::Collect(mut c)   => stream on, c.push(frame) for each frame, c.finish(clock()) at the
//!                                               clean end; drop it on anything else. mark_forwarded(.., Stored, ..)
//!                 }
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! `fill` and the collector get the answer after transforms that are the same for everybody (compression: the body is
//! stored compressed once, with its `Vary`) and before those that depend on the caller (CORS, request id); the latter
//! are applied to stored answers too.
//!
//! A background refresh does the same with the leader it was given, always as a GET: `prepare`, forward, `fill`, and
//! reads the body to the end. Whatever is dropped half-way (ticket, leader, collector) hands the work to the next who waits.
//! Purges come in through [`Cache::purge`]; the caller spreads the order to other replicas.

mod answer;
mod conditional;
mod directives;
mod explain;
mod facts;
mod fetch;
mod fields;
mod flight;
mod fuzz;
mod key;
mod marks;
mod memory;
mod object;
mod pass;
mod policy;
mod purge;
mod range;
mod report;
mod rule;
mod shared;
mod state_tier;
mod stats;
mod warm;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, StatusCode};
use url::Url;

pub use answer::{Answer, CACHE_STATUS, CACHE_TAG, Forwarded, Level, X_CACHE, mark_forwarded};
pub use conditional::{CONDITIONAL_FIELDS, Validators};
pub use explain::{Explanation, StoredFacts};
pub use fetch::{Collector, Fill, Leader, Ticket, Turn};
pub use flight::Limits;
#[doc(hidden)]
pub use fuzz::{fuzz_cache_control, fuzz_range};
pub use key::{RequestView, describe};
pub use memory::MemoryLimits;
pub use object::Stored;
pub use policy::Refusal;
pub use purge::{By, PurgeOrder};
pub use report::declare as declare_metrics;
pub use rule::{Honour, Mode, RuleFault, RulePolicy, Scope};
pub use shared::{SharedTier, SharedWriter, TierError, TierFuture, TierUse};
pub use state_tier::StateTier;
pub use stats::{Gauges, Outcome, Stats, Tally};
pub use warm::{WarmFault, WarmList, WarmReport, WarmTarget, warm_up};

use directives::RequestDirectives;
use facts::Facts;
use fetch::Start;
use flight::Flights;
use memory::{Found, Memory};
use object::Use;
use pass::PassTable;
use policy::{Credentials, age_ms};
use purge::Ledger;
use shared::SharedLink;

/// Name and length of the shared list of purge orders, and how long it is kept.
const PURGES: &str = "gwc:purges";
const PURGES_MAX: usize = 1024;
const PURGES_TTL_MS: u64 = 86_400_000;
/// Name and lifetime of the shared list of hot keys.
const HOT: &str = "gwc:hot";
const HOT_TTL_MS: u64 = 86_400_000;
/// A fetch that takes longer may store an answer that an unsafe request has overtaken.
const FETCH_MS: u64 = 60_000;
/// Hot keys that a new replica loads.
const HOT_MAX: usize = 200;

/// Sizes and times of the whole cache; the names are those of the settings `gateway.cache.*`.
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    pub memory: MemoryLimits,
    /// Longest stale use after expiry, whatever route and origin allow (`stale_s`).
    pub stale_ms: u64,
    /// Most bytes in the shared tier, for all replicas together; the sweep sees to it.
    pub l2_bytes: u64,
    /// Bytes that all answers being collected may hold together.
    pub collecting_bytes: usize,
    pub flights: Limits,
    /// How long the shared tier may take to answer a request's question.
    pub shared_timeout: Duration,
    /// Larger bodies are not written to the shared tier.
    pub shared_object_bytes: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            memory: MemoryLimits::default(),
            stale_ms: 86_400_000,
            l2_bytes: 1 << 30,
            collecting_bytes: 128 * 1024 * 1024,
            flights: Limits::default(),
            shared_timeout: Duration::from_millis(100),
            shared_object_bytes: 8 * 1024 * 1024,
        }
    }
}

/// The cache of one process, shared by all its workers. Clones are handles.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    config: CacheConfig,
    memory: Memory,
    ledger: Ledger,
    flights: Arc<Flights>,
    pass: PassTable,
    stats: Arc<Stats>,
    shared: Option<SharedLink>,
    collecting: AtomicUsize,
    stale_ms: AtomicU64,
    l2_bytes: AtomicU64,
}

thread_local! {
    /// Where a worker writes the key of the look-up at hand, so that a hit allocates nothing for it.
    static KEY: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(512));
}

/// What to do with a request.
pub enum Lookup {
    Hit(Answer),
    /// Serve this; whoever gets a leader refreshes it in the background, once per key.
    Stale(Answer, Option<Leader>),
    Miss(Ticket),
    /// The caller wants a stored answer or none (RFC 9111 §5.2.1.7): 504.
    OnlyIfCached,
    Bypass(Refusal),
}

impl Cache {
    /// A cache of this process alone.
    pub fn new(config: CacheConfig) -> Self {
        Self::build(config, None, Arc::default())
    }

    /// A cache with a shared tier; the writer must be run as a task for anything to reach the tier.
    pub fn with_shared(config: CacheConfig, tier: Arc<dyn SharedTier>) -> (Self, SharedWriter) {
        let stats: Arc<Stats> = Arc::default();
        let (link, writer) = SharedLink::new(
            tier,
            Arc::clone(&stats),
            config.shared_timeout,
            config.shared_object_bytes,
        );
        (Self::build(config, Some(link), stats), writer)
    }

    fn build(config: CacheConfig, shared: Option<SharedLink>, stats: Arc<Stats>) -> Self {
        Self(Arc::new(Inner {
            memory: Memory::new(config.memory),
            ledger: Ledger::default(),
            flights: Flights::new(config.flights),
            pass: PassTable::default(),
            stats,
            shared,
            collecting: AtomicUsize::new(0),
            stale_ms: AtomicU64::new(config.stale_ms),
            l2_bytes: AtomicU64::new(config.l2_bytes),
            config,
        }))
    }

    /// Takes new bounds while requests go on: those of L1, of the shared tier, and of stale use. Answers that are
    /// stored keep the stale use that they were stored with.
    pub fn tune(&self, config: &CacheConfig) {
        self.0.memory.resize_l1(&config.memory);
        self.0.stale_ms.store(config.stale_ms, Ordering::Relaxed);
        self.0.l2_bytes.store(config.l2_bytes, Ordering::Relaxed);
    }

    /// Says what to do with a request. Takes no lock and does not wait; a hit costs one hash of the key, one look
    /// into L1 and a reference count.
    pub fn lookup(&self, view: &RequestView<'_>, rule: &RulePolicy, now_ms: u64) -> Lookup {
        match self.decide(view, rule, now_ms) {
            Ok(lookup) => lookup,
            Err(refusal) => {
                self.0.stats.count(Outcome::Bypass);
                Lookup::Bypass(refusal)
            }
        }
    }

    fn decide(
        &self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        now_ms: u64,
    ) -> Result<Lookup, Refusal> {
        if rule.mode == Mode::Off {
            return Err(Refusal::Off);
        }
        if *view.method != Method::GET && *view.method != Method::HEAD {
            return Err(Refusal::Method);
        }
        let facts = Facts::of(view.headers);
        if let Some(refusal) = facts.around {
            return Err(refusal);
        }
        let asked = Asked::of(facts, view, rule);
        if asked.no_store {
            return Err(Refusal::RequestNoStore);
        }
        KEY.with_borrow_mut(|key| {
            key::write_primary(key, view, rule)?;
            self.find(key, facts, asked, view, rule, now_ms)
        })
    }

    fn find(
        &self,
        primary: &[u8],
        facts: Facts,
        asked: Asked,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        now_ms: u64,
    ) -> Result<Lookup, Refusal> {
        let inner = &*self.0;
        let caller = facts.credentials(view.principal.is_some());
        let hash = class_hash(primary, caller);
        let start = |found: Found| Start {
            key: found.secondary.unwrap_or_else(|| primary.into()),
            primary_len: primary.len(),
            hash,
            caller,
            facts,
            vary: found.vary,
            base: found.object,
        };
        if inner.pass.active(hash, now_ms) {
            return self.missed(view, rule, start(Found::default()), asked, true, now_ms);
        }
        let mut found = inner.memory.find(primary, view);
        let Some(object) = &found.object else {
            return self.missed(view, rule, start(found), asked, false, now_ms);
        };
        caller.may_use(rule.scope, &object.terms)?;
        match object.usable(&inner.ledger, now_ms) {
            Use::Gone => {
                inner.memory.remove(&object.key);
                found.object = None;
            }
            // Beyond its time in L1 an object is looked up behind: another replica may know better.
            Use::Fresh(left_ms)
                if asked.allows(age_ms(&object.terms, now_ms), left_ms)
                    && now_ms.saturating_sub(object.loaded_ms) <= inner.memory.l1_ttl_ms() =>
            {
                object.touch();
                inner.stats.count(Outcome::HitL1);
                let object = Arc::clone(object);
                let answer = Answer::new(object, view, facts, Outcome::HitL1, now_ms);
                return Ok(Lookup::Hit(answer));
            }
            Use::Stale {
                while_revalidate: true,
                ..
            } if !asked.fresh_only() => {
                inner.stats.count(Outcome::Stale);
                let object = Arc::clone(object);
                let answer = Answer::new(object, view, facts, Outcome::Stale, now_ms);
                return Ok(Lookup::Stale(answer, Leader::refresh(self, start(found))));
            }
            Use::Fresh(_) | Use::Stale { .. } => {}
        }
        self.missed(view, rule, start(found), asked, false, now_ms)
    }

    fn missed(
        &self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        start: Start,
        asked: Asked,
        pass: bool,
        now_ms: u64,
    ) -> Result<Lookup, Refusal> {
        if asked.only_if_cached {
            return Ok(Lookup::OnlyIfCached);
        }
        if *view.method == Method::HEAD {
            return Err(Refusal::HeadMiss);
        }
        if start.base.is_none() && start.facts.range {
            return Err(Refusal::RangeMiss);
        }
        if !pass {
            // An unsafe request meanwhile must find this address, or an answer older than it would stay.
            let until_ms = now_ms.saturating_add(FETCH_MS);
            let ledger = &self.0.ledger;
            ledger.expect_address(view.host, view.path, view.query, view.tenant, until_ms);
        }
        Ok(Lookup::Miss(Ticket::new(self, rule, start, pass)))
    }

    /// Takes note of an unsafe request's answer: one without error invalidates the stored answers of its address,
    /// and of `Location` and `Content-Location` on the same host (RFC 9111 §4.4). Unknown methods are unsafe.
    pub fn after_unsafe(
        &self,
        view: &RequestView<'_>,
        rule: &RulePolicy,
        status: StatusCode,
        headers: &HeaderMap,
        now_ms: u64,
    ) {
        let safe =
            [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(view.method);
        if safe || rule.mode == Mode::Off || !(status.is_success() || status.is_redirection()) {
            return;
        }
        let own = view.query.map_or_else(
            || view.path.to_owned(),
            |query| format!("{}?{query}", view.path),
        );
        self.0
            .ledger
            .invalidate(view.tenant, view.host, &own, now_ms);
        if let Some(shared) = &self.0.shared {
            let mut primary = Vec::new();
            if key::write_primary(&mut primary, view, rule).is_ok() {
                shared.forget(&primary);
            }
        }
        let Ok(base) = Url::parse(&format!("{}://{}{own}", view.scheme, view.host)) else {
            return;
        };
        for name in [LOCATION, CONTENT_LOCATION] {
            let named = headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| base.join(v).ok());
            let Some(named) = named.filter(|n| n.host_str() == base.host_str()) else {
                continue;
            };
            let path = named.query().map_or_else(
                || named.path().to_owned(),
                |q| format!("{}?{q}", named.path()),
            );
            self.0
                .ledger
                .invalidate(view.tenant, view.host, &path, now_ms);
        }
    }

    /// Carries out a purge here. Orders from other replicas come in the same way; twice does no harm.
    pub fn purge(&self, order: &PurgeOrder) {
        self.0.ledger.apply(order);
        self.0.stats.purges.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes an order into the shared ledger, so that replicas that start or missed the message learn of it.
    pub async fn publish_purge(&self, order: &PurgeOrder) -> Result<(), TierError> {
        let Some(shared) = &self.0.shared else {
            return Ok(());
        };
        let record = serde_json::to_vec(order).map_err(|error| TierError(error.to_string()))?;
        let ttl_ms = self.stale_ms().saturating_mul(2).max(PURGES_TTL_MS);
        shared
            .tier()
            .append(PURGES, Bytes::from(record), PURGES_MAX, ttl_ms)
            .await
    }

    /// Reads the shared ledger: at start, after each message, and every now and then. Returns the orders read.
    pub async fn follow_purges(&self) -> Result<usize, TierError> {
        let Some(shared) = &self.0.shared else {
            return Ok(0);
        };
        let records = shared.tier().list(PURGES).await?;
        // A record of a newer build that we cannot read is left to those who can.
        let orders: Vec<PurgeOrder> = records
            .iter()
            .filter_map(|r| serde_json::from_slice(r).ok())
            .collect();
        orders.iter().for_each(|order| self.0.ledger.apply(order));
        Ok(orders.len())
    }

    /// Tells the shared tier which objects are used most here.
    pub async fn publish_hot(&self) -> Result<usize, TierError> {
        let Some(shared) = &self.0.shared else {
            return Ok(0);
        };
        let keys: Vec<String> = self
            .0
            .memory
            .hottest(HOT_MAX)
            .iter()
            .map(hex::encode)
            .collect();
        if !keys.is_empty() {
            shared
                .tier()
                .put(HOT, Bytes::from(keys.join("\n")), HOT_TTL_MS)
                .await?;
        }
        Ok(keys.len())
    }

    /// Loads the hottest objects out of the shared tier; a new replica does this before it takes traffic.
    pub async fn load_hot(&self, now_ms: u64) -> Result<usize, TierError> {
        let Some(shared) = &self.0.shared else {
            return Ok(0);
        };
        let Some(list) = shared.tier().get(HOT).await? else {
            return Ok(0);
        };
        let mut loaded = 0;
        for line in list.split(|b| *b == b'\n').take(HOT_MAX) {
            let Ok(key) = hex::decode(line) else { continue };
            let Some(object) = shared.load(&key, now_ms).await else {
                continue;
            };
            if matches!(object.usable(&self.0.ledger, now_ms), Use::Fresh(_)) {
                self.remember(&Arc::new(object), now_ms);
                loaded += 1;
            }
        }
        Ok(loaded)
    }

    /// Removes what is of no use any more; returns how many entries.
    pub fn sweep(&self, now_ms: u64) -> usize {
        self.0.memory.sweep(&self.0.ledger, now_ms)
    }

    /// Keeps the shared tier within its bound; returns what it holds. Nothing without one.
    pub async fn sweep_shared(&self) -> Result<TierUse, TierError> {
        let Some(shared) = &self.0.shared else {
            return Ok(TierUse::default());
        };
        let most = self.0.l2_bytes.load(Ordering::Relaxed);
        let used = shared.tier().trim(most).await?;
        let stats = &self.0.stats;
        stats.l2_entries.store(used.entries, Ordering::Relaxed);
        stats.l2_bytes.store(used.bytes, Ordering::Relaxed);
        stats.l2_evicted.fetch_add(used.evicted, Ordering::Relaxed);
        Ok(used)
    }

    fn stale_ms(&self) -> u64 {
        self.0.stale_ms.load(Ordering::Relaxed)
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Sizes of this moment; walks L1.
    pub fn gauges(&self) -> Gauges {
        let stats = &self.0.stats;
        Gauges {
            l2_entries: stats.l2_entries.load(Ordering::Relaxed),
            l2_bytes: stats.l2_bytes.load(Ordering::Relaxed),
            waiters: self.0.flights.waiting() as u64,
            fetches: self.0.flights.under_way() as u64,
            ..self.0.memory.gauges()
        }
    }
}

/// What the caller asks of the cache, as far as it may.
#[derive(Clone, Copy, Default)]
struct Asked {
    no_store: bool,
    no_cache: bool,
    only_if_cached: bool,
    max_age_ms: Option<u64>,
    min_fresh_ms: u64,
}

impl Asked {
    fn of(facts: Facts, view: &RequestView<'_>, rule: &RulePolicy) -> Self {
        if !facts.directives {
            return Self::default();
        }
        let said = RequestDirectives::of(view.headers);
        if !rule.honours(view.trusted) {
            return Self {
                only_if_cached: said.only_if_cached,
                ..Self::default()
            };
        }
        Self {
            no_store: said.no_store,
            no_cache: said.no_cache,
            only_if_cached: said.only_if_cached,
            max_age_ms: said.max_age.map(|s| s.saturating_mul(1000)),
            min_fresh_ms: said.min_fresh.unwrap_or(0).saturating_mul(1000),
        }
    }

    fn allows(self, age_ms: u64, left_ms: u64) -> bool {
        let young = self.max_age_ms.is_none_or(|max| age_ms <= max && max > 0);
        !self.no_cache && young && left_ms >= self.min_fresh_ms
    }

    fn fresh_only(self) -> bool {
        self.no_cache || self.max_age_ms.is_some() || self.min_fresh_ms > 0
    }
}

/// Requests of different credential classes are marked and queued apart: what one caller may not share says
/// nothing about the others.
fn class_hash(primary: &[u8], caller: Credentials) -> u64 {
    key::hash(primary) ^ u64::from(caller.class()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
