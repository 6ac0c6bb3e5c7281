//! Identity of one process in a test: real core, real router, captured audit, settings that can be changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use parking_lot::{Mutex, RwLock};
use portico_base::envelope::MasterKeys;
use portico_base::{
    Caller, Context, ManualClock, Permission, Principal, PrincipalKind, SystemRandom, Tx, id,
};
use portico_contract::audit::{AuditError, AuditSink, Record};
use portico_contract::personal::PersonalParts;
use portico_contract::services::{SwitchError, TenantService, TenantServices};
use portico_contract::settings::{Settings, SettingsListener, SettingsSource};
use portico_db::testing::TestDb;
use portico_db::{Db, OutboxRow};
use portico_host::Spawner;
use portico_objects::Objects;
use portico_state::{Deps, State};
use portico_telemetry::metrics::Registry;
use portico_web::Ambient;
use serde_json::Value;
use tempfile::TempDir;
use tower_service::Service as _;
use uuid::Uuid;

use crate::apple::Endpoints;
use crate::domain::role::{AUDITOR, SUPER_ADMIN, TENANT_ADMIN, built_in_id};
use crate::domain::tenant::{Quotas, Tenant};
use crate::domain::user::User;
use crate::hub::{Core, Parts};
use crate::{http, migrations, ops, store};

/// A tenant that is neither `system` nor `default`.
pub(crate) const OTHER: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_00aa);
/// Where calls come from, unless a test says otherwise.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

/// Identity of one process.
pub(crate) struct Rig {
    pub core: Arc<Core>,
    pub clock: ManualClock,
    pub audit: Arc<Recorded>,
    pub metrics: Registry,
    pub settings: Arc<Changeable>,
    pub services: Arc<Switchable>,
    pub router: Router,
    /// Directory of the objects.
    shelf: Arc<TempDir>,
}

/// A registry with one plug-in, `notes`, and the built-in `registry`.
#[derive(Default)]
pub(crate) struct Switchable {
    off: Mutex<Vec<Uuid>>,
    /// Permissions of the plug-in.
    pub declared: Mutex<Vec<Permission>>,
}

impl TenantServices for Switchable {
    fn list(&self, tenant: Uuid) -> Vec<TenantService> {
        let one = |name: &str, builtin, enabled| TenantService {
            id: Uuid::nil(),
            name: Arc::from(name),
            display_name: Arc::from(name),
            builtin,
            fixed: builtin,
            enabled,
        };
        let on = !self.off.lock().contains(&tenant);
        vec![one("notes", false, on), one("registry", true, true)]
    }

    fn switch<'a>(
        &'a self,
        _context: &'a Context,
        tenant: Uuid,
        _name: &'a str,
        enabled: bool,
    ) -> futures_util::future::BoxFuture<'a, Result<(), SwitchError>> {
        let mut off = self.off.lock();
        off.retain(|t| *t != tenant);
        if !enabled {
            off.push(tenant);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn permissions(&self) -> Vec<(Arc<str>, Permission)> {
        let declared = self.declared.lock();
        let named = |p: &Permission| (Arc::from("notes"), p.clone());
        declared.iter().map(named).collect()
    }
}

/// Audit records of committed changes.
#[derive(Default)]
pub(crate) struct Recorded(Arc<Mutex<Vec<Record>>>);

impl Recorded {
    /// All records so far.
    pub(crate) fn all(&self) -> Vec<Record> {
        self.0.lock().clone()
    }

    /// Their actions.
    pub(crate) fn actions(&self) -> Vec<&'static str> {
        self.0.lock().iter().map(|r| r.action).collect()
    }

    /// Their actions since the last call.
    pub(crate) fn take(&self) -> Vec<&'static str> {
        self.0.lock().drain(..).map(|r| r.action).collect()
    }

    /// How many records have an action.
    pub(crate) fn count(&self, action: &str) -> usize {
        self.0.lock().iter().filter(|r| r.action == action).count()
    }
}

impl AuditSink for Recorded {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        _context: &'a Context,
        record: Record,
    ) -> futures_util::future::BoxFuture<'a, Result<(), AuditError>> {
        let list = Arc::clone(&self.0);
        tx.after_commit(Box::new(move || list.lock().push(record)));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Values by tenant (absent: the installation's) and key.
type Values = HashMap<(Option<Uuid>, String), Arc<Value>>;

/// Settings that a test changes while identity runs.
#[derive(Default)]
pub(crate) struct Changeable {
    values: RwLock<Values>,
    listeners: Mutex<Vec<SettingsListener>>,
}

impl Changeable {
    /// Sets a value for the installation, or for one tenant.
    pub(crate) fn set(&self, tenant: Option<Uuid>, key: &str, value: Value) {
        let key = (tenant, key.to_owned());
        let changed = [key.1.clone()];
        self.values.write().insert(key, Arc::new(value));
        for listener in &*self.listeners.lock() {
            listener(&changed);
        }
    }
}

impl SettingsSource for Changeable {
    fn value(&self, tenant: Uuid, key: &str) -> Option<Arc<Value>> {
        let values = self.values.read();
        let of = |tenant| values.get(&(tenant, key.to_owned())).map(Arc::clone);
        of(Some(tenant)).or_else(|| of(None))
    }

    fn subscribe(&self, listener: SettingsListener) {
        self.listeners.lock().push(listener);
    }
}

impl Rig {
    /// Identity on a new database, seeded as after the first start, with the tenant [`OTHER`].
    pub(crate) async fn new(db: &TestDb) -> Self {
        // Nothing answers there, and no test speaks to the world.
        Self::with_apple(db, Endpoints::standin("http://127.0.0.1:9")).await
    }

    /// The same with a stand-in for Apple.
    pub(crate) async fn with_apple(db: &TestDb, apple: Endpoints) -> Self {
        db.db
            .migrate(&[
                ("jobs", portico_jobs::migrations()),
                ("identity", migrations::all()),
            ])
            .await
            .expect("the migrations apply");
        let shelf = Arc::new(tempfile::tempdir().expect("a directory"));
        let (db, clock) = (db.db.clone(), db.clock.clone());
        let rig = Self::build(db, clock, Arc::default(), apple, shelf).await;
        rig.add_tenant(OTHER, "other").await;
        rig
    }

    /// Another process on the same database, or the same one after a restart, with the same settings.
    pub(crate) async fn another(&self, db: &TestDb) -> Self {
        let settings = Arc::clone(&self.settings);
        let apple = self.core.apple.endpoints.clone();
        let shelf = Arc::clone(&self.shelf);
        Self::build(
            db.another().await,
            self.clock.clone(),
            settings,
            apple,
            shelf,
        )
        .await
    }

    async fn build(
        db: Db,
        clock: ManualClock,
        settings: Arc<Changeable>,
        apple: Endpoints,
        shelf: Arc<TempDir>,
    ) -> Self {
        let metrics = Registry::default();
        let (state, _driver) = State::local(&Deps::system(&metrics));
        let audit = Arc::new(Recorded::default());
        let services = Arc::new(Switchable::default());
        let objects = Objects::local(shelf.path(), &metrics).expect("a directory for objects");
        let personal = PersonalParts::default();
        let core = Core::new(Parts {
            db,
            clock: Arc::new(clock.clone()),
            random: Arc::new(SystemRandom),
            settings: Settings::new(settings.clone()),
            audit: audit.clone(),
            keys: Arc::new(MasterKeys::new("mk1", [7; 32])),
            state,
            metrics: metrics.clone(),
            spawner: Spawner::new(tokio::runtime::Handle::current()),
            links: crate::links::Links::fixed("https://id.example.com"),
            dev: false,
            apple,
            objects,
            personal,
            services: Some(services.clone()),
        });
        ops::seed::seed(&core, &[("identity", crate::permissions::ALL)])
            .await
            .expect("the first rows are written");
        core.edge.load().await.expect("the edge loads");
        audit.take();
        Self {
            router: http::routes(Arc::clone(&core)).router,
            core,
            clock,
            audit,
            metrics,
            settings,
            services,
            shelf,
        }
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.advance(chrono::Duration::seconds(seconds));
    }

    /// Sets a value of the installation.
    pub(crate) fn set(&self, key: &str, value: Value) {
        self.settings.set(None, key, value);
    }

    /// The context of a use-case called by `who`.
    pub(crate) fn cx(&self, who: &Principal) -> Context {
        let mut caller = Caller::internal(who.clone(), "req-1");
        caller.address = Some(ADDRESS);
        caller.agent = Some(Arc::from("test"));
        Context {
            caller,
            clock: Arc::clone(&self.core.clock),
            random: Arc::clone(&self.core.random),
        }
    }

    /// Adds a tenant's row.
    pub(crate) async fn add_tenant(&self, tenant: Uuid, slug: &str) {
        let now = self.core.clock.now();
        let row = Tenant {
            id: tenant,
            slug: slug.to_owned(),
            display_name: slug.to_owned(),
            status: portico_contract::tenants::TenantStatus::Active,
            te: 1,
            quotas: Quotas::default(),
            delete_at: None,
            created_at: now,
            updated_at: now,
        };
        let tx = self.core.db.begin().await.expect("a transaction");
        store::tenants::insert(&tx, &row).await.expect("a tenant");
        tx.commit().await.expect("a commit");
        self.core.edge.load().await.expect("the edge loads");
    }

    /// A new user of a tenant with a user name and the roles, straight into the tables.
    pub(crate) async fn add_user(&self, tenant: Uuid, name: &str, roles: &[&str]) -> User {
        let now = self.core.clock.now();
        let id = id::new_id(&*self.core.clock, &*self.core.random);
        let mut user = User::new(id, tenant, now);
        user.username = Some(name.to_owned());
        let tx = self.core.db.begin().await.expect("a transaction");
        store::users::insert(&tx, &user).await.expect("a user");
        for role in roles {
            let role = match built_in_id(role) {
                Some(id) => id,
                None => store::roles::of_tenant(&tx, tenant)
                    .await
                    .expect("roles")
                    .into_iter()
                    .find(|r| r.name == *role)
                    .map(|r| r.id)
                    .expect("the role is there"),
            };
            store::roles::grant(&tx, tenant, user.id, role, "test", now)
                .await
                .expect("a grant");
        }
        tx.commit().await.expect("a commit");
        user
    }

    /// A new user of tenant `default` with the role `user`.
    pub(crate) async fn user(&self, name: &str) -> User {
        self.add_user(id::TENANT_DEFAULT, name, &["user"]).await
    }

    /// A user as the door would present it: with a second factor, shown just now.
    pub(crate) async fn principal(&self, user: &User) -> Principal {
        let roles = store::roles::of_user(self.core.db.reader(), user.id)
            .await
            .expect("roles");
        let permissions: Vec<Permission> =
            roles.iter().flat_map(|r| r.permissions.clone()).collect();
        let names: Vec<String> = roles.into_iter().map(|r| r.name).collect();
        Principal {
            roles: names.into(),
            permissions: permissions.into(),
            aal: 2,
            fresh_until_s: self.core.clock.now().timestamp() + 300,
            session: Some(Arc::from("00000000-0000-7000-8000-00000000beef")),
            ..Principal::new(PrincipalKind::User, user.id.to_string(), user.tenant)
        }
    }

    /// A new super administrator.
    pub(crate) async fn super_admin(&self) -> Principal {
        self.admin(id::TENANT_SYSTEM, SUPER_ADMIN).await
    }

    /// A new administrator of a tenant.
    pub(crate) async fn tenant_admin(&self, tenant: Uuid) -> Principal {
        self.admin(tenant, TENANT_ADMIN).await
    }

    /// A new auditor of tenant `default`.
    pub(crate) async fn auditor(&self) -> Principal {
        self.admin(id::TENANT_DEFAULT, AUDITOR).await
    }

    async fn admin(&self, tenant: Uuid, role: &str) -> Principal {
        let number: u32 = rand_u32(&self.core);
        let name = format!("{}-{number:08x}", role.replace('_', "-"));
        let user = self.add_user(tenant, &name, &[role]).await;
        self.principal(&user).await
    }

    /// The row of a user.
    pub(crate) async fn get_user(&self, tenant: Uuid, user: Uuid) -> User {
        store::users::get(self.core.db.reader(), tenant, user)
            .await
            .expect("the database answers")
            .expect("the user is there")
    }

    /// All published events, oldest first, without the wake-ups of the revocation log.
    pub(crate) async fn events(&self) -> Vec<OutboxRow> {
        let rows = self.core.db.outbox().read(&[], 0, 10_000).await;
        let mut rows = rows.expect("the outbox answers");
        rows.retain(|row| row.topic != store::revocations::TOPIC);
        rows
    }

    /// Sends a request as `who`; headers come with the builder.
    pub(crate) async fn send(
        &self,
        who: &Principal,
        request: ::http::request::Builder,
        body: Body,
    ) -> Response {
        let mut request = request.body(body).expect("a request");
        let caller = self.cx(who).caller;
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

    /// Sends JSON as `who` and reads JSON.
    pub(crate) async fn call(
        &self,
        who: &Principal,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let builder = ::http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        read(self.send(who, builder, body).await).await
    }

    pub(crate) async fn get(&self, who: &Principal, path: &str) -> (u16, Value) {
        self.call(who, "GET", path, Value::Null).await
    }

    pub(crate) async fn post(&self, who: &Principal, path: &str, body: Value) -> (u16, Value) {
        self.call(who, "POST", path, body).await
    }
}

/// Status and JSON of a response.
pub(crate) async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 8 << 20)
        .await
        .expect("a body");
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (status, body)
}

/// Field and code of every fault of a problem.
pub(crate) fn faults(problem: &Value) -> Vec<(String, String)> {
    let text = |f: &Value, k: &str| f[k].as_str().unwrap_or_default().to_owned();
    problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|f| (text(f, "field"), text(f, "code")))
        .collect()
}

fn rand_u32(core: &Core) -> u32 {
    let mut bytes = [0; 4];
    core.random.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
