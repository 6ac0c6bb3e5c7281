//! Who is behind an API key: remembered for a minute, forgotten at once when the key, its owner or a role changes (ID-132).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use chrono::Duration;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use portico_base::secret::constant_time_eq;
use portico_base::{Clock, Principal, PrincipalKind, Timestamp};
use portico_contract::credentials::{Bounds, CredentialSource};
use portico_contract::tenants::TenantStatus;
use portico_db::Db;
use portico_host::BuildCx;
use portico_telemetry::metrics::{Counter, CounterFamily, Registry};
use portico_token::api_key::{self, PREFIX, Parsed, Realm};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::api_key::{ApiKey, effective, effective_roles};
use crate::domain::user::{User, UserStatus};
use crate::error::Result;
use crate::hub::Core;
use crate::store;
use crate::store::revocations::{Kind, Revocation};

/// Keys are remembered so long, and unknown ones.
const KNOWN_FOR: Duration = Duration::seconds(60);
const ABSENT_FOR: Duration = Duration::seconds(10);
/// While the database does not answer, a key that was good goes on: revocations still reach it.
const RETRY_AFTER: Duration = Duration::seconds(10);
const STALE_FOR: Duration = Duration::minutes(10);
/// Entries of each kind; an entry has about 1 KiB.
const MOST_KNOWN: usize = 10_000;
const MOST_ABSENT: usize = 4_096;
/// The last use of a key is written at most so often (ID-130).
const NOTE_EVERY: Duration = Duration::seconds(60);
const WRITE_EVERY: std::time::Duration = std::time::Duration::from_secs(15);
/// Readers of the database at once; the same key is read by one of them.
const GATES: usize = 16;

static CHECKS: CounterFamily = CounterFamily::new(
    "portico_identity_api_key_checks_total",
    "API keys presented, by what was found in memory",
    &["result"],
    8,
);

/// Declares the families, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[CHECKS.family()]);
}

/// Knows API keys.
pub(crate) struct Keyring {
    db: Db,
    clock: Arc<dyn Clock>,
    memory: RwLock<Memory>,
    gates: [tokio::sync::Mutex<()>; GATES],
    /// Last uses that are still to be written.
    uses: Mutex<HashMap<Uuid, (Timestamp, Option<IpAddr>)>>,
    checks: Checks,
}

struct Checks {
    good: Counter,
    malformed: Counter,
    wrong: Counter,
    ended: Counter,
    unknown: Counter,
}

#[derive(Default)]
struct Memory {
    by_key: HashMap<Box<str>, Arc<Entry>>,
    by_id: HashMap<Uuid, Arc<Entry>>,
    /// Until when an id is known to be nobody's.
    absent: HashMap<Box<str>, Timestamp>,
    /// Rises when something is forgotten: what was read before must not be remembered after.
    epoch: u64,
}

struct Entry {
    id: Uuid,
    owner: Uuid,
    tenant: Uuid,
    hash: [u8; 32],
    previous: Option<([u8; 32], Timestamp)>,
    expires_at: Timestamp,
    principal: Arc<Principal>,
    bounds: Option<Arc<Bounds>>,
    read_at: Timestamp,
    /// Until when it needs not be read again, in microseconds.
    good_until_us: AtomicI64,
    /// When its last use was noted, in microseconds.
    noted_us: AtomicI64,
}

impl Entry {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now.timestamp_micros() < self.good_until_us.load(Relaxed)
    }

    fn takes(&self, hash: &[u8; 32], now: Timestamp) -> bool {
        let previous =
            |(old, until): &([u8; 32], Timestamp)| constant_time_eq(old, hash) && now < *until;
        constant_time_eq(&self.hash, hash) || self.previous.as_ref().is_some_and(previous)
    }
}

impl Memory {
    fn forget(&mut self, mut which: impl FnMut(&Entry) -> bool) {
        self.epoch += 1;
        self.by_key.retain(|_, entry| !which(entry));
        self.by_id.retain(|_, entry| !which(entry));
    }

    fn put(&mut self, key_id: &str, entry: Arc<Entry>, now: Timestamp) {
        if self.by_key.len() >= MOST_KNOWN {
            self.by_key.retain(|_, e| e.is_fresh(now));
            self.by_id.retain(|_, e| e.is_fresh(now));
        }
        if self.by_key.len() >= MOST_KNOWN {
            self.by_key.clear();
            self.by_id.clear();
        }
        self.by_id.insert(entry.id, Arc::clone(&entry));
        self.by_key.insert(Box::from(key_id), entry);
    }

    /// Apart from the known ones, so that a flood of made-up ids does not drive those out.
    fn put_absent(&mut self, key_id: &str, now: Timestamp) {
        if self.absent.len() >= MOST_ABSENT {
            self.absent.retain(|_, until| now < *until);
        }
        if self.absent.len() >= MOST_ABSENT {
            self.absent.clear();
        }
        self.absent.insert(Box::from(key_id), now + ABSENT_FOR);
    }
}

/// Makes the door know API keys.
pub(crate) fn start(cx: &mut BuildCx<'_>, core: &Arc<Core>) {
    let metrics = &cx.telemetry.metrics;
    let keyring = Keyring::new(core.db.clone(), Arc::clone(&core.clock), metrics);
    let hearing = Arc::clone(&keyring);
    core.edge
        .listen(Arc::new(move |revocation| hearing.hear(revocation)));
    cx.credentials.add(keyring.clone());
    let stop = cx.spawner.stopping().clone();
    cx.spawner.spawn("identity.api_keys", async move {
        keyring.follow_uses(stop).await;
    });
}

impl Keyring {
    pub(crate) fn new(db: Db, clock: Arc<dyn Clock>, metrics: &Registry) -> Arc<Self> {
        let checks = metrics.counter(&CHECKS);
        Arc::new(Self {
            db,
            clock,
            memory: RwLock::default(),
            gates: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            uses: Mutex::default(),
            checks: Checks {
                good: checks.with(&["good"]),
                malformed: checks.with(&["malformed"]),
                wrong: checks.with(&["wrong"]),
                ended: checks.with(&["ended"]),
                unknown: checks.with(&["unknown"]),
            },
        })
    }

    /// Forgets what a revocation may have changed.
    pub(crate) fn hear(&self, revocation: &Revocation) {
        let subject = Uuid::parse_str(&revocation.subject).ok();
        let mut memory = self.memory.write();
        match revocation.kind {
            Kind::ApiKey => memory.forget(|e| Some(e.id) == subject),
            Kind::User => memory.forget(|e| Some(e.owner) == subject),
            Kind::Tenant => memory.forget(|e| e.tenant == revocation.tenant),
            Kind::Roles | Kind::Tenants | Kind::Global => memory.forget(|_| true),
            Kind::Session | Kind::SigningKey => {}
        }
    }

    /// Writes when keys were used last; answers how many.
    pub(crate) async fn flush(&self) -> Result<usize> {
        let uses = std::mem::take(&mut *self.uses.lock());
        if uses.is_empty() {
            return Ok(0);
        }
        let tx = self.db.begin().await?;
        for (id, (at, address)) in &uses {
            let ip = address.map(|a| a.to_string());
            store::api_keys::used(&tx, *id, *at, ip).await?;
        }
        tx.commit().await?;
        Ok(uses.len())
    }

    /// Ids that are known to be nobody's.
    #[cfg(test)]
    pub(crate) fn absent(&self) -> usize {
        self.memory.read().absent.len()
    }

    /// Writes them again and again, and when told to stop.
    async fn follow_uses(&self, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(WRITE_EVERY) => false,
            };
            if let Err(error) = self.flush().await {
                tracing::warn!(err = %error, "the last uses of API keys could not be written");
            }
            if stopping {
                return;
            }
        }
    }

    fn found(&self, parsed: &Parsed<'_>) -> Option<Arc<Principal>> {
        let now = self.clock.now();
        let memory = self.memory.read();
        let Some(entry) = memory.by_key.get(parsed.id).filter(|e| e.is_fresh(now)) else {
            self.checks.unknown.inc();
            return None;
        };
        if !entry.takes(&parsed.hash, now) {
            self.checks.wrong.inc();
            return None;
        }
        if now >= entry.expires_at {
            self.checks.ended.inc();
            return None;
        }
        self.checks.good.inc();
        Some(Arc::clone(&entry.principal))
    }

    /// True when memory says all that there is to say of an id.
    fn is_decided(&self, key_id: &str) -> bool {
        let now = self.clock.now();
        let memory = self.memory.read();
        memory.by_key.get(key_id).is_some_and(|e| e.is_fresh(now))
            || memory.absent.get(key_id).is_some_and(|until| now < *until)
    }

    async fn read(&self, key_id: &str) {
        let gate = key_id.bytes().fold(0, |sum, b| sum + usize::from(b)) % GATES;
        let _alone = self.gates[gate].lock().await;
        // What changes while it is read is read once more; then it is left to the next request.
        for _ in 0..3 {
            if self.is_decided(key_id) {
                return;
            }
            let epoch = self.memory.read().epoch;
            let read = self.resolve(key_id).await;
            let now = self.clock.now();
            let mut memory = self.memory.write();
            if memory.epoch != epoch {
                continue;
            }
            match read {
                Ok(Some(entry)) => memory.put(key_id, Arc::new(entry), now),
                Ok(None) => {
                    memory
                        .by_key
                        .remove(key_id)
                        .map(|e| memory.by_id.remove(&e.id));
                    memory.put_absent(key_id, now);
                }
                Err(error) => {
                    tracing::warn!(err = %error, "an API key could not be read");
                    let old = memory.by_key.get(key_id);
                    if let Some(old) = old.filter(|e| now - e.read_at < STALE_FOR) {
                        let until = (now + RETRY_AFTER).timestamp_micros();
                        old.good_until_us.store(until, Relaxed);
                    }
                }
            }
            return;
        }
    }

    /// The key and its owner as the database has them.
    async fn resolve(&self, key_id: &str) -> Result<Option<Entry>> {
        let conn = self.db.reader();
        let now = self.clock.now();
        let key = store::api_keys::by_key_id(conn, key_id).await?;
        let Some(key) = key.filter(|k| k.is_live(now)) else {
            return Ok(None);
        };
        let owner = store::users::get(conn, key.tenant, key.owner).await?;
        let may = |owner: &User| owner.status == UserStatus::Active && owner.delete_at.is_none();
        if !owner.as_ref().is_some_and(may) {
            return Ok(None);
        }
        let tenant = store::tenants::get(conn, key.tenant).await?;
        if tenant.is_none_or(|tenant| tenant.status != TenantStatus::Active) {
            return Ok(None);
        }
        let roles = store::roles::of_user(conn, key.owner).await?;
        let permissions = effective(&key.wish.scopes, &roles);
        let roles = effective_roles(&permissions, &roles);
        let principal = Principal {
            id: Some(key.id),
            roles: roles.into(),
            scopes: scopes(&key),
            permissions: permissions.into(),
            aal: 1,
            owner: Some(key.owner),
            ..Principal::new(PrincipalKind::ApiKey, key.id.to_string(), key.tenant)
        };
        let noted = key
            .last_used_at
            .map_or(i64::MIN, |at| at.timestamp_micros());
        Ok(Some(Entry {
            id: key.id,
            owner: key.owner,
            tenant: key.tenant,
            hash: key.hash,
            previous: key.previous,
            expires_at: key.expires_at,
            principal: Arc::new(principal),
            bounds: key.bounds().map(Arc::new),
            read_at: now,
            good_until_us: AtomicI64::new((now + KNOWN_FOR).timestamp_micros()),
            noted_us: AtomicI64::new(noted),
        }))
    }
}

impl CredentialSource for Keyring {
    fn prefix(&self) -> &'static str {
        PREFIX
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let Some(parsed) = parse(token) else {
            self.checks.malformed.inc();
            return None;
        };
        self.found(&parsed)
    }

    fn load<'a>(&'a self, token: &'a str) -> Option<BoxFuture<'a, ()>> {
        let parsed = parse(token)?;
        if self.is_decided(parsed.id) {
            return None;
        }
        let key_id = parsed.id;
        Some(Box::pin(async move { self.read(key_id).await }))
    }

    fn bounds(&self, principal: &Principal) -> Option<Arc<Bounds>> {
        let id = principal.id?;
        match self.memory.read().by_id.get(&id) {
            Some(entry) => entry.bounds.clone(),
            // Forgotten since it was found: it opens nothing until it is asked for again.
            None => Some(Arc::new(closed())),
        }
    }

    fn used(&self, principal: &Principal, address: Option<IpAddr>) {
        let Some(id) = principal.id else { return };
        let Some(entry) = self.memory.read().by_id.get(&id).map(Arc::clone) else {
            return;
        };
        let now = self.clock.now();
        let now_us = now.timestamp_micros();
        let noted = entry.noted_us.load(Relaxed);
        let due = now_us.saturating_sub(noted) >= NOTE_EVERY.num_microseconds().unwrap_or(0);
        if due
            && entry
                .noted_us
                .compare_exchange(noted, now_us, Relaxed, Relaxed)
                .is_ok()
        {
            self.uses.lock().insert(id, (now, address));
        }
    }
}

/// The form of a key, checksum and all. Keys for a sandbox are not made yet, so none is good.
fn parse(token: &str) -> Option<Parsed<'_>> {
    api_key::parse(token).filter(|parsed| parsed.realm == Realm::Live)
}

/// The scopes as the key was given them, for those who are told of them.
fn scopes(key: &ApiKey) -> Arc<[String]> {
    let mut scopes: Vec<String> = key
        .wish
        .scopes
        .iter()
        .map(|scope| scope.as_str().to_owned())
        .collect();
    scopes.sort();
    scopes.into()
}

/// Admits nobody: an unspecified address is never a client's.
fn closed() -> Bounds {
    Bounds {
        networks: vec![IpAddr::from([0, 0, 0, 0]).into()],
        ..Bounds::default()
    }
}
