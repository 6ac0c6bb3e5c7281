//! Tests over database and API, on SQLite and PostgreSQL.

mod chain;
mod erasing;
mod export;
mod failures;
mod golden;
mod records;
mod search;
mod tampering;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use portico_base::envelope::MasterKeys;
use portico_base::{
    Caller, Clock as _, Context, ManualClock, Principal, PrincipalKind, SystemRandom, id,
};
use portico_contract::audit::{AuditSink as _, Outcome, Record};
use portico_contract::settings::{Settings, SettingsListener, SettingsSource};
use portico_db::Db;
use portico_db::testing::TestDb;
use portico_objects::Objects;
use portico_telemetry::metrics::Registry;
use portico_web::Ambient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;
use tower_service::Service as _;
use uuid::Uuid;

use crate::domain::record::Entry;
use crate::hub::{Core, Parts};
use crate::ops::seal::Sealer;
use crate::ops::verify::{self, Part};
use crate::ops::write::Sink;
use crate::{Report, http, migrations, ops};

/// Another tenant.
pub(crate) const OTHER: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_00aa);

struct Fixed(Vec<(&'static str, Arc<Value>)>);

impl SettingsSource for Fixed {
    fn value(&self, _tenant: Uuid, key: &str) -> Option<Arc<Value>> {
        let found = self.0.iter().find(|(k, _)| *k == key);
        found.map(|(_, value)| Arc::clone(value))
    }

    fn subscribe(&self, _listener: SettingsListener) {}
}

/// A process of the audit.
pub(crate) struct House {
    pub core: Arc<Core>,
    pub clock: ManualClock,
    pub notes: Mutex<Receiver<Entry>>,
    pub objects: Objects,
    sealer: Mutex<Sealer>,
    router: Router,
    _folder: TempDir,
}

impl House {
    pub(crate) async fn new(db: &TestDb) -> Self {
        Self::with(db, &[]).await
    }

    pub(crate) async fn with(db: &TestDb, settings: &[(&'static str, Value)]) -> Self {
        let sets = [
            ("jobs", portico_jobs::migrations()),
            ("audit", migrations::all()),
        ];
        db.db.migrate(&sets).await.expect("the migrations apply");
        Self::build(db.db.clone(), db.clock.clone(), settings).await
    }

    /// Another process on the same database, or the same one after a restart.
    pub(crate) async fn build(
        db: Db,
        clock: ManualClock,
        settings: &[(&'static str, Value)],
    ) -> Self {
        let registry = Registry::default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let objects = Objects::local(folder.path(), &registry).expect("a folder for objects");
        let settings = settings.iter().map(|(k, v)| (*k, Arc::new(v.clone())));
        let (core, notes) = Core::new(Parts {
            db,
            clock: Arc::new(clock.clone()),
            random: Arc::new(SystemRandom),
            settings: Settings::new(Arc::new(Fixed(settings.collect()))),
            objects: objects.clone(),
            keys: Arc::new(MasterKeys::new("mk1", [7; 32])),
            registry,
        })
        .await
        .expect("the audit begins");
        Self {
            router: http::routes(Arc::clone(&core)).router,
            sealer: Mutex::new(Sealer::new(&core, None)),
            notes: Mutex::new(notes),
            core,
            clock,
            objects,
            _folder: folder,
        }
    }

    /// A context of somebody.
    pub(crate) fn cx(&self, who: Principal) -> Context {
        let mut caller = Caller::internal(who, "req-1");
        caller.address = Some(IpAddr::from([203, 0, 113, 7]));
        caller.agent = Some("Mozilla/5.0".into());
        Context {
            caller,
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(SystemRandom),
        }
    }

    /// A change that is recorded.
    pub(crate) async fn record(&self, cx: &Context, record: Record) {
        let tx = self.core.db.begin().await.expect("a transaction");
        let sink = Sink(Arc::clone(&self.core));
        sink.record(&tx, cx, record).await.expect("it is recorded");
        tx.commit().await.expect("it is committed");
    }

    /// A record of a user being disabled by an administrator.
    pub(crate) async fn disable(&self, n: u128) {
        let record = Record::done(
            "identity.user.disabled",
            "user",
            Uuid::from_u128(n).to_string(),
            id::TENANT_DEFAULT,
        )
        .change("status", Some("active".into()), Some("disabled".into()));
        self.record(&self.cx(admin()), record).await;
        self.clock.advance(chrono::Duration::milliseconds(10));
    }

    /// Lets the sealer do all that waits.
    pub(crate) async fn seal(&self) {
        let mut sealer = self.sealer.lock().await;
        sealer.work().await.expect("records are sealed");
    }

    /// Signs the end of the chain.
    pub(crate) async fn sign(&self) {
        let tx = self.core.db.begin().await.expect("a transaction");
        let now = self.clock.now();
        let signed = ops::checkpoints::sign(&self.core, &tx, now).await;
        signed.expect("it is signed");
        tx.commit().await.expect("it is committed");
    }

    pub(crate) async fn verify(&self) -> Report {
        let report = verify::run(&self.core, Part::default()).await;
        report.expect("the chain is read")
    }

    pub(crate) async fn call(
        &self,
        who: &Principal,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let mut request = request.body(body).expect("a request");
        request.extensions_mut().insert(self.cx(who.clone()).caller);
        request.extensions_mut().insert(Ambient {
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(SystemRandom),
            step_up: None,
            failures: None,
        });
        let response = self.router.clone().call(request).await;
        let response = response.unwrap_or_else(|never| match never {});
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 64 << 20)
            .await
            .expect("a body");
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    pub(crate) async fn get(&self, who: &Principal, path: &str) -> Value {
        let (status, body) = self.call(who, "GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

/// An administrator of the default tenant.
pub(crate) fn admin() -> Principal {
    let id = Uuid::from_u128(0x0190_a2b3_c4d5_7e8f_8a1b_2c3d_4e5f_6074);
    Principal {
        permissions: Arc::from([portico_base::Permission::new("audit:record:read")]),
        aal: 2,
        session: Some("s-1".into()),
        ..Principal::new(PrincipalKind::User, id.to_string(), id::TENANT_DEFAULT)
    }
}

/// The same of another tenant.
pub(crate) fn other_admin() -> Principal {
    Principal {
        permissions: Arc::from([portico_base::Permission::new("audit:record:read")]),
        ..Principal::new(PrincipalKind::User, Uuid::from_u128(9).to_string(), OTHER)
    }
}

pub(crate) fn failed(action: &'static str, code: &'static str) -> Record {
    Record {
        outcome: Outcome::Failed,
        code: Some(code),
        ..Record::done(action, "user", "unknown", id::TENANT_DEFAULT)
    }
}
