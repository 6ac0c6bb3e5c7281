//! What identity's use-cases share: database, clock, keys, settings, and the edge's memory.

use std::sync::{Arc, OnceLock};

use portico_base::envelope::MasterKeys;
use portico_base::{Caller, Clock, Context, Permission, Principal, Random};
use portico_contract::audit::Audit;
use portico_contract::personal::PersonalParts;
use portico_contract::services::TenantServices;
use portico_contract::settings::Settings;
use portico_db::Db;
use portico_host::{BuildCx, Spawner};
use portico_objects::Objects;
use portico_state::State;
use portico_telemetry::metrics::Registry;

use crate::address_rules::Rules;
use crate::apple::{Apple, Endpoints};
use crate::edge::{Edge, Ground};
use crate::limits::Limits;
use crate::links::Links;
use crate::metrics::Logins;
use crate::notices::Notices;
use crate::passwords::Passwords;
use crate::sms::Sms;

/// Identity of one process.
pub(crate) struct Core {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub audit: Audit,
    pub keys: Arc<MasterKeys>,
    /// Permissions whose holders are administrators (ID-76), from the declarations of all services.
    pub admin_permissions: OnceLock<Box<[Permission]>>,
    /// Figures of logins and sessions.
    pub logins: Logins,
    /// Addresses of our own pages.
    pub links: Links,
    /// Tells people about their account.
    pub notices: Notices,
    /// Keys, versions, roles and tenants in memory; what the door asks.
    pub edge: Arc<Edge>,
    /// Hashes passwords off the async threads.
    pub passwords: Passwords,
    /// How often something may be tried.
    pub limits: Limits,
    /// Messages with login codes.
    pub sms: Sms,
    /// Sign in with Apple.
    pub apple: Apple,
    /// Networks that are refused or allowed.
    pub address_rules: Arc<Rules>,
    /// Files: copies of personal data.
    pub objects: Objects,
    /// What other services keep about people.
    pub personal: PersonalParts,
    /// Services of tenants; absent where there is no registry.
    pub services: Option<Arc<dyn TenantServices>>,
}

/// What a core is made of: from the host's ground, or a test's.
pub(crate) struct Parts {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub audit: Audit,
    pub keys: Arc<MasterKeys>,
    /// Limits, caches and the bus.
    pub state: State,
    pub metrics: Registry,
    pub spawner: Spawner,
    pub links: Links,
    /// `node.dev`: login codes may go to the log.
    pub dev: bool,
    pub objects: Objects,
    pub personal: PersonalParts,
    /// Where Apple is: its own addresses, but in tests.
    pub apple: Endpoints,
    pub services: Option<Arc<dyn TenantServices>>,
}

impl Parts {
    /// Everything from the host's ground.
    pub(crate) fn new(cx: &BuildCx<'_>) -> Self {
        Self {
            db: cx.db.clone(),
            clock: Arc::clone(cx.clock),
            random: Arc::clone(cx.random),
            settings: cx.settings.clone(),
            audit: Arc::clone(cx.audit),
            keys: Arc::clone(cx.keys),
            state: cx.state.clone(),
            metrics: cx.telemetry.metrics.clone(),
            spawner: cx.spawner.clone(),
            links: Links::new(cx.config, cx.own),
            dev: cx.config.node.dev,
            objects: cx.objects.clone(),
            personal: cx.personal.clone(),
            apple: Endpoints::apple(),
            services: cx.provided.get(),
        }
    }
}

impl Core {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            passwords: Passwords::new(&parts.metrics, Arc::clone(&parts.random)),
            limits: Limits::new(
                &parts.state,
                parts.settings.clone(),
                Arc::clone(&parts.clock),
                &parts.keys,
                &parts.metrics,
            ),
            address_rules: Rules::new(parts.db.clone(), Arc::clone(&parts.clock), &parts.metrics),
            edge: Edge::new(Ground {
                db: parts.db.clone(),
                clock: Arc::clone(&parts.clock),
                random: Arc::clone(&parts.random),
                settings: parts.settings.clone(),
                master: Arc::clone(&parts.keys),
                public: parts.links.configured().map(Arc::from),
                metrics: parts.metrics.clone(),
            }),
            admin_permissions: OnceLock::new(),
            logins: Logins::new(&parts.metrics),
            sms: Sms::new(
                parts.settings.clone(),
                parts.spawner.clone(),
                &parts.metrics,
                parts.dev,
            ),
            apple: Apple::new(parts.apple, &parts.spawner, &parts.clock),
            notices: Notices::new(parts.links.clone()),
            objects: parts.objects,
            personal: parts.personal,
            services: parts.services,
            links: parts.links,
            db: parts.db,
            clock: parts.clock,
            random: parts.random,
            settings: parts.settings,
            audit: parts.audit,
            keys: parts.keys,
        })
    }

    /// A context for identity's own work.
    pub(crate) fn own_context(&self, what: &str) -> Context {
        Context {
            caller: Caller::internal(Principal::system(), what),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        }
    }
}
