//! What the door knows of identity, in memory: versions, ended sessions, keys, roles and tenants (ID-91, ID-111).

mod audiences;
mod closing;
mod follow;
mod keys;
mod marks;
pub(crate) mod metrics;
mod mismatch;
mod statements;
mod tables;
mod verifier;

use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::Duration;
use parking_lot::RwLock;
use portico_base::envelope::MasterKeys;
use portico_base::{Clock, Permission, Random, Secret};
use portico_contract::directory::DirectorySource;
use portico_contract::settings::Settings;
use portico_db::Db;
use portico_telemetry::metrics::Registry;
use portico_token::{AccessClaims, Issuer, access};
use uuid::Uuid;

use crate::domain::tenant::Tenant;
use crate::error::{Error, Result};
use crate::store::revocations::Revocation;

pub(crate) use keys::place;
pub(crate) use mismatch::Mismatch;
#[cfg(test)]
pub(crate) use verifier::{CLAIMS, DELETED, DISABLED};

/// After so long without a look at the log, routes that matter are refused (ID-112).
const STALE_AFTER: Duration = Duration::seconds(5);

/// Told of every revocation, of this replica or another, once the edge itself knows it. Must not block.
pub(crate) type Listener = Arc<dyn Fn(&Revocation) + Send + Sync>;

/// What an edge is made of.
pub(crate) struct Ground {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub master: Arc<MasterKeys>,
    /// The configured public address, without a slash at the end.
    pub public: Option<Arc<str>>,
    pub metrics: Registry,
}

/// Memory of one process.
pub(crate) struct Edge {
    db: Db,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    settings: Settings,
    master: Arc<MasterKeys>,
    public: Option<Arc<str>>,
    issuer: OnceLock<Issuer>,
    keys: ArcSwap<keys::Keys>,
    tenants: ArcSwap<tables::Tenants>,
    roles: ArcSwap<tables::Roles>,
    marks: marks::Marks,
    ge: AtomicU32,
    /// Position in the log.
    seq: AtomicU64,
    /// Rises when what was verified before must be verified again.
    epoch: Arc<AtomicU64>,
    /// When the log was read last, in microseconds.
    heard_us: AtomicI64,
    /// When the tables were read last, in microseconds.
    tables_us: AtomicI64,
    /// One reader of the log at a time.
    reading: tokio::sync::Mutex<()>,
    listeners: RwLock<Vec<Listener>>,
    closing: closing::Closing,
    statements: statements::Statements,
    audiences: audiences::Audiences,
    mismatches: mismatch::Mismatches,
    metrics: metrics::Metrics,
}

impl Edge {
    /// An edge that knows nothing yet: [`Edge::load`] comes before anything is asked.
    pub(crate) fn new(ground: Ground) -> Arc<Self> {
        let epoch = Arc::new(AtomicU64::new(1));
        follow::renew_on_settings(&ground.settings, &epoch);
        let edge = Arc::new(Self {
            mismatches: mismatch::Mismatches::new(Arc::clone(&ground.clock)),
            db: ground.db,
            clock: ground.clock,
            random: ground.random,
            settings: ground.settings,
            master: ground.master,
            public: ground.public,
            issuer: OnceLock::new(),
            keys: ArcSwap::default(),
            tenants: ArcSwap::default(),
            roles: ArcSwap::default(),
            marks: marks::Marks::default(),
            ge: AtomicU32::new(u32::MAX),
            seq: AtomicU64::new(0),
            epoch,
            heard_us: AtomicI64::new(0),
            tables_us: AtomicI64::new(0),
            reading: tokio::sync::Mutex::new(()),
            listeners: RwLock::default(),
            closing: closing::Closing::default(),
            statements: statements::Statements::default(),
            audiences: audiences::Audiences::default(),
            metrics: metrics::Metrics::new(&ground.metrics),
        });
        metrics::observe(&ground.metrics, &edge);
        edge
    }

    /// Signs an access token with the active key.
    ///
    /// Versions in the claims may come from a row or from this memory: one that is too low is refused at
    /// every edge and brings the client to refresh, so being late is never being open.
    pub(crate) fn sign(&self, claims: &AccessClaims) -> Result<Secret<String>> {
        let keys = self.keys.load();
        let mut claims = claims.clone();
        claims.audiences.extend(self.audiences.of(claims.tenant));
        let token = access::mint(keys.active()?, self.issuer()?, &claims)
            .map_err(|e| Error::Internal(e.to_string()))?;
        self.metrics.issued("access");
        Ok(token)
    }

    /// Tokens also name the plug-ins of this directory that get them forwarded.
    pub(crate) fn serve(&self, directory: Arc<dyn DirectorySource>) {
        self.audiences.follow(directory);
    }

    /// Epoch of the installation.
    pub(crate) fn ge(&self) -> u32 {
        self.ge.load(Acquire)
    }

    /// What all tokens say of their issuer.
    pub(crate) fn issuer(&self) -> Result<&Issuer> {
        self.issuer
            .get()
            .ok_or_else(|| Error::Internal("the edge is not loaded".to_owned()))
    }

    /// The published keys as a JWKS document.
    pub(crate) fn jwks(&self) -> Bytes {
        self.keys.load().jwks()
    }

    /// A tenant by its id.
    pub(crate) fn tenant(&self, id: Uuid) -> Option<Arc<Tenant>> {
        let tenants = self.tenants.load();
        tenants.by_id(id).map(|t| Arc::clone(&t.tenant))
    }

    /// A tenant by its slug.
    pub(crate) fn tenant_by_slug(&self, slug: &str) -> Option<Arc<Tenant>> {
        let tenants = self.tenants.load();
        tenants.by_slug(slug).map(|t| Arc::clone(&t.tenant))
    }

    /// The tenant that a host name (without a port) is bound to.
    pub(crate) fn tenant_by_host(&self, host: &str) -> Option<Arc<Tenant>> {
        let tenants = self.tenants.load();
        tenants.by_host(host).map(|t| Arc::clone(&t.tenant))
    }

    /// Every tenant, whatever its state.
    pub(crate) fn tenant_ids(&self) -> Vec<Uuid> {
        let tenants = self.tenants.load();
        tenants.all().map(|entry| entry.tenant.id).collect()
    }

    /// What roles allow together in a tenant.
    pub(crate) fn permissions(&self, tenant: Uuid, roles: &[String]) -> Arc<[Permission]> {
        self.roles.load().permissions(tenant, roles)
    }

    /// Calls `listener` for every revocation from now on.
    pub(crate) fn listen(&self, listener: Listener) {
        self.listeners.write().push(listener);
    }

    /// Tokens that came from a foreign network since the last call; waits for the first (ID-95).
    pub(crate) async fn mismatches(&self) -> Vec<Mismatch> {
        self.mismatches.next().await
    }
}
