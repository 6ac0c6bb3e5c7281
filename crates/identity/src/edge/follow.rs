//! Keeps the edge's memory true: everything at start, then what was committed since, woken by commits and by the clock.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use portico_contract::settings::Settings;
use portico_contract::streams::StreamOwner;
use portico_token::Issuer;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Edge;
use super::keys::Keys;
use super::tables::{Roles, Tenants};
use crate::error::Result;
use crate::ops;
use crate::settings::token::{ACCESS_TTL_S, FRESH_S};
use crate::store;
use crate::store::revocations::{Kind, Revocation, TOPIC};

/// A lost wake-up costs at most so much time (ID-111).
const POLL: Duration = Duration::from_millis(500);
/// Rows of one reading.
const BATCH: u64 = 10_000;
/// The small tables are read anew after so long in any case: rows of the log that were over before this
/// process could read them told of changes that are still there.
const TABLES_EVERY_US: i64 = 30_000_000;
/// Marks that are over are dropped so often.
const SWEEP_EVERY_S: i64 = 60;

/// What has to be read again after rows of the log.
#[derive(Debug, Clone, Copy, Default)]
struct Stale {
    keys: bool,
    tenants: bool,
    roles: bool,
    state: bool,
}

impl Stale {
    const ALL: Self = Self {
        keys: true,
        tenants: true,
        roles: true,
        state: true,
    };

    const fn add(&mut self, kind: Kind) {
        match kind {
            Kind::SigningKey => self.keys = true,
            Kind::Tenant | Kind::Tenants => self.tenants = true,
            Kind::Roles => self.roles = true,
            Kind::Global => self.state = true,
            Kind::User | Kind::Session | Kind::ApiKey => {}
        }
    }
}

impl Edge {
    /// Reads everything that still means something, and makes the first keys where there are none. Nothing
    /// may be asked before this is done (ID-113).
    pub(crate) async fn load(&self) -> Result<()> {
        let _alone = self.reading.lock().await;
        let installation =
            ops::keys::prepare(&self.db, &self.master, &*self.clock, &*self.random).await?;
        let urn: Arc<str> = format!("urn:portico:{installation}").into();
        self.issuer.get_or_init(|| Issuer {
            issuer: self.public.clone().unwrap_or_else(|| Arc::clone(&urn)),
            audience: urn,
        });
        self.seq.store(0, Release);
        self.read(Stale::ALL, false).await?;
        self.keys.load().active().map(|_| ())
    }

    /// Takes over what was committed since.
    pub(crate) async fn catch_up(&self) {
        let _alone = self.reading.lock().await;
        self.look().await;
    }

    /// The same, unless somebody has already read up to there.
    pub(crate) async fn catch_up_to(&self, seq: u64) {
        let _alone = self.reading.lock().await;
        if self.seq.load(Acquire) < seq {
            self.look().await;
        }
    }

    /// Follows until told to stop.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        let _subscription = self.db.on_news(Some(TOPIC), move |_, _| wake.notify_one());
        let mut swept_s = self.clock.now().timestamp();
        while !stop.is_cancelled() {
            self.catch_up().await;
            let now_s = self.clock.now().timestamp();
            if now_s >= swept_s + SWEEP_EVERY_S {
                self.marks.sweep(now_s);
                swept_s = now_s;
            }
            let now = Instant::now();
            let poll = now + POLL;
            let until = self.closing.due(now).map_or(poll, |due| due.min(poll));
            tokio::select! {
                () = stop.cancelled() => {}
                () = woken.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    async fn look(&self) {
        let due = self.clock.now().timestamp_micros() - self.tables_us.load(Relaxed);
        let stale = if due >= TABLES_EVERY_US {
            Stale::ALL
        } else {
            Stale::default()
        };
        if let Err(error) = self.read(stale, true).await {
            tracing::warn!(err = %error, "revocations could not be read");
        }
    }

    /// Reads the log from the position on. The position moves when everything that it tells of is known.
    async fn read(&self, mut stale: Stale, told: bool) -> Result<()> {
        loop {
            // Taken before the reading: what is committed during it counts for the next one.
            let now = self.clock.now();
            let since = self.seq.load(Acquire);
            let rows = store::revocations::after(self.db.reader(), since, now, BATCH).await?;
            for row in &rows {
                self.mark(row);
                stale.add(row.kind);
            }
            self.renew(stale).await?;
            if let Some(last) = rows.last() {
                self.seq.fetch_max(last.seq, AcqRel);
            }
            if told {
                rows.iter().for_each(|row| self.tell(row));
            }
            self.heard_us.store(now.timestamp_micros(), Relaxed);
            stale = Stale::default();
            if (rows.len() as u64) < BATCH {
                return Ok(());
            }
        }
    }

    fn mark(&self, row: &Revocation) {
        let until_s = row.until.timestamp();
        match (row.kind, Uuid::parse_str(&row.subject)) {
            (Kind::User, Ok(id)) => self.marks.user(id, row.min, until_s, &row.cause),
            (Kind::Session, Ok(id)) => self.marks.session(id, until_s, &row.cause),
            (Kind::User | Kind::Session, Err(_)) => {
                // Nothing of ours writes such a row, and the others behind it must be read.
                tracing::error!(seq = row.seq, "a revocation names nobody");
            }
            _ => {}
        }
    }

    async fn renew(&self, stale: Stale) -> Result<()> {
        let reader = self.db.reader();
        if stale.state {
            let ge = store::keys::state(reader).await?.ge;
            self.ge.store(ge, Release);
        }
        if stale.keys {
            let keys = Keys::open(&store::keys::all(reader).await?, &self.master);
            if !self.keys.load().same_as(&keys) {
                self.keys.store(Arc::new(keys));
                self.statements.clear();
                self.epoch.fetch_add(1, AcqRel);
            }
        }
        if stale.tenants {
            let tenants = store::tenants::all(reader).await?;
            let hosts = store::tenants::hosts(reader).await?;
            self.tenants.store(Arc::new(Tenants::new(tenants, hosts)));
        }
        if stale.roles {
            let roles = Roles::new(store::roles::all(reader).await?);
            if *self.roles.load().as_ref() != roles {
                self.roles.store(Arc::new(roles));
                // What was remembered holds permissions of before (ID-24).
                self.epoch.fetch_add(1, AcqRel);
            }
        }
        if stale.keys && stale.tenants && stale.roles && stale.state {
            let now_us = self.clock.now().timestamp_micros();
            self.tables_us.store(now_us, Relaxed);
        }
        Ok(())
    }

    fn tell(&self, row: &Revocation) {
        self.metrics.revocation(row.kind);
        for listener in &*self.listeners.read() {
            listener(row);
        }
        let now = Instant::now();
        for owner in self.owners(row) {
            self.closing.soon(owner, now);
        }
    }

    /// Whose open streams end with a revocation.
    fn owners(&self, row: &Revocation) -> Vec<StreamOwner> {
        match row.kind {
            Kind::User | Kind::ApiKey => vec![StreamOwner::Subject(row.subject.clone())],
            Kind::Session => vec![StreamOwner::Session(row.subject.clone())],
            Kind::Tenant => vec![StreamOwner::Tenant(row.tenant)],
            Kind::Global => {
                let tenants = self.tenants.load();
                let all = tenants.all().map(|t| StreamOwner::Tenant(t.tenant.id));
                all.collect()
            }
            Kind::SigningKey | Kind::Roles | Kind::Tenants => Vec::new(),
        }
    }
}

/// What was verified under other lifetimes is verified again.
pub(super) fn renew_on_settings(settings: &Settings, epoch: &Arc<AtomicU64>) {
    let epoch = Arc::clone(epoch);
    let keys = [ACCESS_TTL_S.declaration.key, FRESH_S.declaration.key];
    settings.subscribe(Arc::new(move |changed| {
        if changed.iter().any(|key| keys.contains(&&**key)) {
            epoch.fetch_add(1, AcqRel);
        }
    }));
}
