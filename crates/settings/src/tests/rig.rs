//! Settings of one process in a test: real core, real router, captured audit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use parking_lot::Mutex;
use portico_base::envelope::MasterKeys;
use portico_base::{
    Caller, Context, ManualClock, Permission, Principal, PrincipalKind, SystemRandom, Tx, id,
};
use portico_config::Row;
use portico_contract::audit::{AuditError, AuditSink, Record};
use portico_contract::sealed::SealedParts;
use portico_contract::settings::{
    Danger, Declaration, Kind, Scope, SettingFault, Settings, SettingsCheck, SettingsLayer,
};
use portico_db::Db;
use portico_db::testing::TestDb;
use portico_host::{FileSettings, SettingsLayers};
use portico_telemetry::metrics::Registry;
use portico_web::Ambient;
use serde_json::{Value, json};
use tower_service::Service as _;
use uuid::Uuid;

use crate::hub::{Core, Parts};
use crate::live::{self, Layer};
use crate::ops::change::{Done, change};
use crate::ops::plan::{Wish, Wished};
use crate::ops::rotate::Own;
use crate::store::sealed::Table;
use crate::{http, migrations};

/// A tenant that is neither `system` nor `default`.
pub(super) const OTHER: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_00aa);

const fn whole(key: &'static str, default: &'static str) -> Declaration {
    let kind = Kind::Integer { min: 0, max: 1_000 };
    Declaration::new(key, kind, default, "a number", "数")
}

/// Settings of a service that only tests have.
pub(super) const DECLARATIONS: &[Declaration] = &[
    whole("demo.low", "1").scope(Scope::Both),
    whole("demo.high", "10").scope(Scope::Both),
    whole("demo.wait_s", "30").unit("s"),
    Declaration::new("demo.on", Kind::Bool, "false", "a switch", "开关")
        .scope(Scope::Both)
        .public(),
    Declaration::new(
        "demo.text",
        Kind::Text { max: 5_000 },
        "\"\"",
        "text",
        "文本",
    )
    .scope(Scope::Both),
    Declaration::new("demo.data", Kind::Json, "{}", "data", "数据").scope(Scope::Both),
    Declaration::new(
        "demo.word",
        Kind::Enum(&["a", "b"]),
        "\"a\"",
        "a word",
        "词",
    )
    .scope(Scope::Tenant),
    Declaration::new(
        "demo.secret",
        Kind::Text { max: 200 },
        "\"\"",
        "a secret",
        "机密",
    )
    .scope(Scope::Both)
    .secret(),
    whole("demo.grave", "0").danger(Danger::Aal2),
    whole("demo.asked", "0").danger(Danger::Confirm),
];

/// The service's own check: `low` is not above `high`.
pub(super) fn low_below_high(settings: &Settings, tenant: Uuid) -> Vec<SettingFault> {
    use portico_contract::settings::Key;
    const LOW: Key<i64> = Key::new(DECLARATIONS[0]);
    const HIGH: Key<i64> = Key::new(DECLARATIONS[1]);
    let (low, high) = (settings.get(tenant, &LOW), settings.get(tenant, &HIGH));
    if low <= high {
        return Vec::new();
    }
    vec![SettingFault {
        key: "demo.low",
        message: format!("must not be above demo.high, which is {high}"),
    }]
}

/// Audit records of committed changes, and a switch that makes recording fail.
#[derive(Default)]
pub(super) struct Recorded {
    pub records: Arc<Mutex<Vec<Record>>>,
    pub broken: AtomicBool,
}

impl AuditSink for Recorded {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        _context: &'a Context,
        record: Record,
    ) -> futures_util::future::BoxFuture<'a, Result<(), AuditError>> {
        if self.broken.load(Relaxed) {
            return Box::pin(std::future::ready(Err(AuditError("no disk".into()))));
        }
        let list = Arc::clone(&self.records);
        tx.after_commit(Box::new(move || list.lock().push(record)));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Settings of one process.
pub(super) struct Rig {
    pub core: Arc<Core>,
    pub clock: ManualClock,
    pub audit: Arc<Recorded>,
    /// What every service of the process would read.
    pub settings: Settings,
    router: Router,
}

/// How a process differs from the usual one.
pub(super) struct With {
    pub keys: MasterKeys,
    pub declarations: &'static [Declaration],
    pub checks: Vec<SettingsCheck>,
    pub replica: &'static str,
}

impl Default for With {
    fn default() -> Self {
        Self {
            keys: MasterKeys::new("mk1", [7; 32]),
            declarations: DECLARATIONS,
            checks: vec![low_below_high],
            replica: "one",
        }
    }
}

impl Rig {
    /// Settings on a new database.
    pub(super) async fn new(db: &TestDb) -> Self {
        db.db
            .migrate(&[("settings", migrations::all())])
            .await
            .expect("the migrations apply");
        Self::build(db.db.clone(), db.clock.clone(), With::default()).await
    }

    /// Another process on the same database, or the same one after a restart.
    pub(super) async fn another(db: &TestDb, with: With) -> Self {
        Self::build(db.another().await, db.clock.clone(), with).await
    }

    async fn build(db: Db, clock: ManualClock, with: With) -> Self {
        let audit = Arc::new(Recorded::default());
        let file: Arc<dyn SettingsLayer> = Arc::new(FileSettings::new(with.declarations.to_vec()));
        let layers = SettingsLayers::new(Arc::clone(&file));
        let rows = ["database.url", "listen.http", "settings.demo.low"].map(row);
        let core = Core::new(Parts {
            db,
            clock: Arc::new(clock.clone()),
            random: Arc::new(SystemRandom),
            keys: Arc::new(with.keys),
            audit: audit.clone(),
            declarations: &[("demo", with.declarations)],
            file,
            checks: with.checks,
            configuration: Arc::new(ArcSwap::from_pointee(rows.into())),
            sealed: SealedParts::default(),
            metrics: Registry::default(),
            replica: Arc::from(with.replica),
        });
        live::catch_up(&core).await.expect("settings are loaded");
        layers.put(Arc::new(Layer(Arc::clone(&core))));
        for table in [Table::Values, Table::History] {
            let core = Arc::clone(&core);
            let sealed = core.sealed.clone();
            sealed.add(Arc::new(Own { core, table }));
        }
        let router = http::routes(Arc::clone(&core)).router;
        Self {
            core,
            clock,
            audit,
            settings: Settings::new(layers),
            router,
        }
    }

    /// A context of somebody.
    pub(super) fn cx(&self, principal: Principal) -> Context {
        Context {
            caller: Caller::internal(principal, "req-1"),
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(SystemRandom),
        }
    }

    /// A context of the operator.
    pub(super) fn operator(&self) -> Context {
        self.cx(Principal::operator())
    }

    /// Sets keys as the operator, on the present versions.
    pub(super) async fn set(&self, scope: Uuid, values: &[(&str, Value)]) -> Done {
        let changes = values.iter().map(|(key, value)| Wished {
            key: (*key).to_owned(),
            to: (!value.is_null()).then(|| value.clone()),
            base: Some(self.core.live.state().version(scope, key)),
            rolled_back_from: None,
        });
        let wish = Wish {
            scope,
            changes: changes.collect(),
            confirm: true,
            ..Wish::default()
        };
        change(&self.core, &self.operator(), &wish)
            .await
            .unwrap_or_else(|error| panic!("{values:?}: {error:?}"))
    }

    /// Sends a request, and gives status and body.
    pub(super) async fn call(
        &self,
        who: &Principal,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let response = self.send(who, method, path, body).await;
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 64 << 20)
            .await
            .expect("a body");
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        (status, value)
    }

    /// The same as the operator.
    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call(&Principal::operator(), method, path, body).await
    }

    /// Sends a request.
    pub(super) async fn send(
        &self,
        who: &Principal,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> axum::response::Response {
        let mut request = http1(method, path, body);
        let caller = Caller {
            address: Some([203, 0, 113, 7].into()),
            ..Caller::internal(who.clone(), "req-1")
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Ambient {
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(SystemRandom),
            step_up: None,
            failures: None,
        });
        let mut router = self.router.clone();
        router.call(request).await.unwrap_or_else(|e| match e {})
    }

    /// A value as a service reads it.
    pub(super) fn number(&self, tenant: Uuid, key: &'static str) -> i64 {
        let declaration = DECLARATIONS
            .iter()
            .find(|d| d.key == key)
            .expect("declared");
        let key = portico_contract::settings::Key::new(*declaration);
        self.settings.get(tenant, &key)
    }
}

fn http1(method: &str, path: &str, body: Option<Value>) -> axum::extract::Request {
    let builder = axum::extract::Request::builder().method(method).uri(path);
    match body {
        None => builder.body(Body::empty()),
        Some(value) => builder
            .header("content-type", "application/json")
            .body(Body::from(value.to_string())),
    }
    .expect("a request")
}

fn row(key: &str) -> Row {
    Row {
        key: key.to_owned(),
        value: "x".to_owned(),
        origin: portico_config::Origin::Default,
        layer: "default",
    }
}

/// A person with permissions.
pub(super) fn person(tenant: Uuid, permissions: &[&'static str], aal: u8) -> Principal {
    Principal {
        permissions: permissions.iter().map(|p| Permission::new(p)).collect(),
        aal,
        fresh_until_s: if aal >= 2 { i64::MAX } else { 0 },
        ..Principal::new(PrincipalKind::User, Uuid::from_u128(9).to_string(), tenant)
    }
}

/// An administrator of a tenant.
pub(super) fn tenant_admin(tenant: Uuid) -> Principal {
    let all = [
        "settings:value:read",
        "settings:value:write",
        "settings:secret:write",
    ];
    person(tenant, &all, 2)
}

pub(super) const SYSTEM: Uuid = id::TENANT_SYSTEM;
pub(super) const DEFAULT: Uuid = id::TENANT_DEFAULT;
