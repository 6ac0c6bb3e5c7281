//! The whole registry on both databases, with a clock that only moves when told.

mod chaos;
mod checks;
mod life;
mod names;
mod read;
mod register;
mod replicas;
mod tenant_services;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use parking_lot::Mutex;
use portico_base::envelope::MasterKeys;
use portico_base::{Caller, ManualClock, Principal, PrincipalKind, SystemRandom, Tx, id};
use portico_contract::audit::{AuditError, AuditSink, Record};
use portico_contract::directory::{Directory, DirectorySource};
use portico_contract::settings::{Settings, SettingsListener, SettingsSource};
use portico_db::testing::TestDb;
use portico_db::{Db, LeaseTiming};
use portico_host::OwnAddresses;
use portico_state::{Deps, State};
use portico_telemetry::metrics::Registry;
use portico_web::Ambient;
use serde_json::{Value, json};
use tower_service::Service as _;
use uuid::Uuid;

use crate::http::{Api, routes};
use crate::hub::{Core, Parts, Source};
use crate::life::{Calendar, step};
use crate::metrics::Metrics;
use crate::store::instances::Sealer;
use crate::{follow, migrations};

/// A process of the registry.
pub(crate) struct House {
    pub core: Arc<Core>,
    pub clock: ManualClock,
    pub own: OwnAddresses,
    pub audit: Arc<Recorded>,
    /// Sequence numbers of the directories that a listener was given, and the last one.
    pub heard: Arc<Mutex<Vec<Arc<Directory>>>>,
    router: Router,
    calendar: tokio::sync::Mutex<Calendar>,
}

/// Audit records of committed changes.
#[derive(Default)]
pub(crate) struct Recorded(pub Arc<Mutex<Vec<&'static str>>>);

impl AuditSink for Recorded {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        _context: &'a portico_base::Context,
        record: Record,
    ) -> futures_util::future::BoxFuture<'a, Result<(), AuditError>> {
        let list = Arc::clone(&self.0);
        tx.after_commit(Box::new(move || list.lock().push(record.action)));
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Fixed(Vec<(&'static str, Arc<Value>)>);

impl SettingsSource for Fixed {
    fn value(&self, _tenant: Uuid, key: &str) -> Option<Arc<Value>> {
        self.0
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, v)| Arc::clone(v))
    }

    fn subscribe(&self, _listener: SettingsListener) {}
}

/// Another tenant.
pub(crate) const OTHER: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_00aa);

/// The tables of the registry in a throw-away database.
pub(crate) async fn migrate(db: &TestDb) {
    db.db
        .migrate(&[("registry", migrations::all())])
        .await
        .expect("the migrations apply");
}

impl House {
    pub(crate) async fn new(db: &TestDb) -> Self {
        migrate(db).await;
        Self::build(db.db.clone(), db.clock.clone(), "one", Vec::new()).await
    }

    pub(crate) async fn with(db: &TestDb, settings: Vec<(&'static str, Value)>) -> Self {
        migrate(db).await;
        Self::build(db.db.clone(), db.clock.clone(), "one", settings).await
    }

    /// Another process on the same database, or the same one after a restart.
    pub(crate) async fn build(
        db: Db,
        clock: ManualClock,
        replica: &str,
        settings: Vec<(&'static str, Value)>,
    ) -> Self {
        let registry = Registry::default();
        let (state, _driver) = State::local(&Deps::system(&registry));
        let own = OwnAddresses::default();
        let audit = Arc::new(Recorded::default());
        let settings = settings
            .into_iter()
            .map(|(k, v)| (k, Arc::new(v)))
            .collect();
        let random = Arc::new(SystemRandom);
        let core = Core::new(Parts {
            db,
            clock: Arc::new(clock.clone()),
            random: random.clone(),
            settings: Settings::new(Arc::new(Fixed(settings))),
            audit: audit.clone(),
            sealer: Sealer {
                keys: Arc::new(MasterKeys::new("mk1", [7; 32])),
                random,
            },
            metrics: Metrics::new(&registry),
            own: own.clone(),
            heartbeats: state.heartbeats("registry"),
            host: Arc::from("test-host"),
            replica: Arc::from(replica),
            lease_timing: LeaseTiming {
                ttl: Duration::from_millis(600),
                renew: Duration::from_millis(100),
                stop: Duration::from_millis(400),
            },
        });
        follow::load(&core).await.expect("the registry loads");
        core.shards.hold_all();
        let heard: Arc<Mutex<Vec<Arc<Directory>>>> = Arc::default();
        let sink = Arc::clone(&heard);
        Source(Arc::clone(&core)).subscribe(Arc::new(move |d| sink.lock().push(Arc::clone(d))));
        let api = Api {
            core: Arc::clone(&core),
            issuer: Arc::default(),
            public_url: None,
            own: OwnAddresses::default(),
        };
        Self {
            router: routes(api).router,
            calendar: tokio::sync::Mutex::default(),
            core,
            clock,
            own,
            audit,
            heard,
        }
    }

    /// The directory as the gateway has it.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Source(Arc::clone(&self.core)).current()
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.advance(chrono::Duration::seconds(seconds));
    }

    /// Lets time do its work: everything that is due is judged.
    pub(crate) async fn tick(&self) {
        let cx = self.core.own_context("test");
        let mut calendar = self.calendar.lock().await;
        step(&self.core, &cx, &mut calendar)
            .await
            .expect("states are written");
    }

    pub(crate) async fn send(
        &self,
        who: &Principal,
        request: http::request::Builder,
        body: Body,
    ) -> axum::response::Response {
        let mut request = request.body(body).expect("a request");
        let mut caller = Caller::internal(who.clone(), "req-1");
        caller.address = Some(IpAddr::from([127, 0, 0, 1]));
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Ambient {
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(SystemRandom),
            step_up: None,
            failures: None,
        });
        self.router
            .clone()
            .call(request)
            .await
            .unwrap_or_else(|never| match never {})
    }

    pub(crate) async fn call(
        &self,
        who: &Principal,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let builder = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let response = self.send(who, builder, body).await;
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 8 << 20)
            .await
            .expect("a body");
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    pub(crate) async fn get(&self, who: &Principal, path: &str) -> (u16, Value) {
        self.call(who, "GET", path, Value::Null).await
    }

    pub(crate) async fn register(&self, who: &Principal, body: Value) -> (u16, Value) {
        self.call(who, "POST", "/register", body).await
    }

    /// Registers as the operator and answers the id.
    pub(crate) async fn enter(&self, name: &str, port: u16) -> String {
        let body = json!({"name": name, "port": port, "host": "127.0.0.1", "version": "1.0.0"});
        let (status, answer) = self.register(&operator(), body).await;
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn beat(&self, who: &Principal, id: &str) -> (u16, Value) {
        self.call(who, "POST", "/heartbeat", json!({"service_id": id}))
            .await
    }

    /// An instance as the model has it.
    pub(crate) fn instance(&self, id: &str) -> crate::domain::instance::Instance {
        let id = Uuid::parse_str(id).expect("an id");
        let model = self.core.model.read();
        model
            .instance(id)
            .map(|e| (*e.instance).clone())
            .expect("the instance is known")
    }

    pub(crate) fn state(&self, id: &str) -> String {
        let id = Uuid::parse_str(id).expect("an id");
        let model = self.core.model.read();
        model
            .instance(id)
            .map_or("gone", |e| e.instance.state.as_str())
            .to_owned()
    }

    /// A registration token and its principal.
    pub(crate) async fn token(&self, wish: Value) -> (String, Arc<Principal>) {
        let (status, made) = self.call(&operator(), "POST", "/tokens", wish).await;
        assert_eq!(status, 201, "{made}");
        let text = made["token"].as_str().expect("a token").to_owned();
        let who = self.find(&text).expect("the token is known");
        (text, who)
    }

    /// The principal behind one of our credentials.
    pub(crate) fn find(&self, token: &str) -> Option<Arc<Principal>> {
        use portico_contract::credentials::CredentialSource as _;
        let core = Arc::clone(&self.core);
        if token.starts_with("prt_") {
            crate::credentials::Registrars(core).find(token)
        } else {
            crate::credentials::Instances(core).find(token)
        }
    }
}

pub(crate) fn operator() -> Principal {
    Principal::operator()
}

/// A person of a tenant without any permission.
pub(crate) fn user(tenant: Uuid) -> Principal {
    Principal::new(PrincipalKind::User, "u1", tenant)
}

pub(crate) fn default_user() -> Principal {
    user(id::TENANT_DEFAULT)
}

/// Field and code of every fault of a problem.
pub(crate) fn faults(problem: &Value) -> Vec<(String, String)> {
    problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|f| {
            let text = |k: &str| f[k].as_str().unwrap_or_default().to_owned();
            (text("field"), text("code"))
        })
        .collect()
}
