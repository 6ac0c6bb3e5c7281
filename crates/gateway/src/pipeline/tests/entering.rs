//! Who comes in and how far: codes, cookies, keys, tenants, administration, calls between services, over real sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use axum::Router;
use axum::routing::any;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use portico_base::{Access, Permission, Principal, PrincipalKind, id};
use portico_contract::credentials::{Bounds, CredentialSource, Credentials};
use portico_contract::directory::{DefaultAccess, Endpoint, Service};
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::tenants::{Tenant, TenantStatus, Tenants};
use portico_contract::tokens::{IdentityStatements, Stamp};
use portico_web::RouteInfo;
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{Backend, Reply, Rig, Setup, object, service};
use crate::identify::load::Loader;
use crate::identify::{Denied, TokenVerifier, Verified};
use crate::objects::Objects;
use crate::pipeline::entrance::{CONSOLE, INTERNAL};
use crate::pipeline::{Builtins, Entrance, RefusedCall};
use crate::route::house::HouseRoutes;
use crate::route::service::fixture::endpoint;

const ACME: Uuid = Uuid::from_u128(0xacce);
const GONE: Uuid = Uuid::from_u128(0x60e);
const LONG: &str = "ptk_0123456789abcdef";

/// Tokens are words: `good`, or why they are not.
#[derive(Default)]
struct Words {
    stale: AtomicBool,
}

impl TokenVerifier for Words {
    fn verify(&self, token: &str, _now_s: i64) -> Result<Verified, Denied> {
        let word = match token {
            "good" | "kicked" | "disabled" => token,
            "expired" => return Err(Denied::EXPIRED),
            _ => return Err(Denied("form")),
        };
        let principal = Principal {
            aal: 1,
            ..Principal::new(PrincipalKind::User, word, id::TENANT_DEFAULT)
        };
        Ok(Verified {
            principal: Arc::new(principal),
            tenant_name: None,
            claims: Box::default(),
            expires_s: i64::MAX,
            stamp: Some(Stamp {
                user: Uuid::nil(),
                tenant: id::TENANT_DEFAULT,
                session: Uuid::nil(),
                tv: 1,
                te: 1,
                ge: 1,
                network: 0,
            }),
        })
    }

    fn epoch(&self) -> u64 {
        1
    }

    fn check(&self, token: &Verified, _address: Option<IpAddr>) -> Result<(), Denied> {
        match &*token.principal.subject {
            "kicked" => Err(Denied::SESSION_REVOKED),
            "disabled" => Err(Denied::ACCOUNT_DISABLED),
            _ => Ok(()),
        }
    }

    fn reason(&self, _token: &Verified) -> Option<Arc<str>> {
        Some("kicked".into())
    }

    fn refuses_stale(&self, sensitive: bool) -> bool {
        sensitive && self.stale.load(SeqCst)
    }
}

struct Houses;

impl Houses {
    fn all() -> [Arc<Tenant>; 3] {
        let tenant = |id, slug: &str, status| {
            Arc::new(Tenant {
                id,
                slug: slug.into(),
                display_name: slug.into(),
                status,
            })
        };
        [
            tenant(id::TENANT_DEFAULT, "default", TenantStatus::Active),
            tenant(ACME, "acme", TenantStatus::Active),
            tenant(GONE, "gone", TenantStatus::Suspended),
        ]
    }
}

impl Tenants for Houses {
    fn by_id(&self, id: Uuid) -> Option<Arc<Tenant>> {
        Self::all().into_iter().find(|t| t.id == id)
    }

    fn by_slug(&self, slug: &str) -> Option<Arc<Tenant>> {
        Self::all().into_iter().find(|t| &*t.slug == slug)
    }

    fn by_host(&self, host: &str) -> Option<Arc<Tenant>> {
        self.by_slug(host.strip_suffix(".tenants.example")?)
    }
}

/// Keys that are in memory once they were loaded; the tenant and bounds follow the third letter.
#[derive(Default)]
struct Keys {
    loaded: AtomicBool,
    loads: AtomicUsize,
}

impl CredentialSource for Keys {
    fn prefix(&self) -> &'static str {
        "ptk_"
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let name = token.strip_prefix("ptk_")?;
        let tenant = match name {
            "loaded" if !self.loaded.load(SeqCst) => return None,
            "loaded" | "bound" => id::TENANT_DEFAULT,
            "gone" => GONE,
            _ => return None,
        };
        Some(Arc::new(Principal::new(
            PrincipalKind::ApiKey,
            name,
            tenant,
        )))
    }

    fn load<'a>(&'a self, token: &'a str) -> Option<BoxFuture<'a, ()>> {
        token.ends_with("ed").then(|| {
            let load: BoxFuture<'a, ()> = Box::pin(async {
                tokio::task::yield_now().await;
                self.loads.fetch_add(1, SeqCst);
                self.loaded.store(true, SeqCst);
            });
            load
        })
    }

    fn bounds(&self, principal: &Principal) -> Option<Arc<Bounds>> {
        (&*principal.subject == "bound").then(|| {
            Arc::new(Bounds {
                services: vec!["notes".to_owned()],
                networks: vec!["127.0.0.0/8".parse().unwrap()],
                per_s: Some(0.01),
            })
        })
    }
}

/// Instances of services, by their secret `pis_NAME`.
struct Copies;

/// A registration token for several names.
struct Enrols;

impl CredentialSource for Enrols {
    fn prefix(&self) -> &'static str {
        "prt_"
    }

    fn find(&self, _token: &str) -> Option<Arc<Principal>> {
        Some(Arc::new(Principal::new(
            PrincipalKind::Registrar,
            Uuid::from_u128(8).to_string(),
            id::TENANT_DEFAULT,
        )))
    }
}

impl CredentialSource for Copies {
    fn prefix(&self) -> &'static str {
        "pis_"
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let name = token.strip_prefix("pis_")?;
        Some(Arc::new(Principal {
            service: Some(name.into()),
            ..Principal::new(
                PrincipalKind::Instance,
                Uuid::from_u128(7).to_string(),
                id::TENANT_DEFAULT,
            )
        }))
    }
}

fn entrance() -> Entrance {
    Entrance {
        verifier: Some(Arc::new(Words::default())),
        tenants: Some(Arc::new(Houses)),
        ..Entrance::default()
    }
}

fn notes(backend: &Backend) -> Service {
    let open = Endpoint {
        is_public: true,
        ..endpoint(None, "/open")
    };
    let right = Endpoint {
        required_permissions: Arc::from([Permission::new("notes:note:write")]),
        ..endpoint(None, "/right")
    };
    Service {
        endpoints: [open, right].into(),
        default_access: DefaultAccess::Authenticated,
        ..service("notes", vec![backend.instance(1, "1")])
    }
}

fn rig(backend: &Backend, entrance: Entrance) -> Rig {
    Rig::with(Setup {
        services: vec![notes(backend)],
        entrance,
        ..Setup::default()
    })
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.code())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn each_refusal_has_its_code() {
    let backend = Backend::answering("in");
    let rig = rig(&backend, entrance());
    for (path, token, status, code) in [
        ("/api/notes/x", "", 401, "identity.token_missing"),
        ("/api/notes/x", "rubbish", 401, "identity.token_invalid"),
        ("/api/notes/x", "expired", 401, "identity.token_expired"),
        ("/api/notes/x", "kicked", 401, "identity.session_revoked"),
        ("/api/notes/x", "disabled", 401, "identity.account_disabled"),
        (
            "/api/notes/right",
            "good",
            403,
            "identity.permission_denied",
        ),
    ] {
        let header = if token.is_empty() {
            String::new()
        } else {
            bearer(token)
        };
        let reply = rig.get_with(path, &header);
        assert_eq!(told(&reply), (status, code.to_owned()), "{token}");
        let challenge = match (status, token) {
            (403, _) => None,
            (_, "") => Some("Bearer"),
            _ => Some("Bearer error=\"invalid_token\""),
        };
        assert_eq!(reply.header("www-authenticate"), challenge, "{token}");
    }
    let kicked: Value =
        serde_json::from_str(&rig.get_with("/api/notes/x", &bearer("kicked")).body).unwrap();
    assert_eq!(kicked["reason"], "kicked");
    let denied = rig.get_with("/api/notes/right", &bearer("good"));
    assert!(denied.body.contains("notes:note:write"), "{}", denied.body);
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_cookie_is_a_credential_and_changes_by_it_come_from_our_own_page() {
    let backend = Backend::answering("in");
    let rig = rig(&backend, entrance());
    let good = "cookie: theme=dark; portico_at=good; portico_rt=r\r\n";
    assert_eq!(rig.get_with("/api/notes/x", good).status, 200);
    let seen = backend.last();
    assert_eq!(seen.header("cookie"), Some("theme=dark"));
    assert_eq!(seen.header("x-portico-user"), Some("good"));
    let post = |headers: &str| {
        rig.ask(&format!("POST /api/notes/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"))
    };
    let own = "origin: http://localhost\r\n";
    let csrf = "x-portico-csrf: 1\r\n";
    for (headers, status) in [
        (format!("{good}{own}{csrf}"), 200),
        (format!("{good}{own}"), 403),
        (format!("{good}{csrf}"), 403),
        (format!("{good}{own}x-portico-csrf: 0\r\n"), 403),
        // A header beside the cookie is what counts, and no page can make a browser send it.
        (format!("{good}{}", bearer("good")), 200),
    ] {
        assert_eq!(post(&headers).status, status, "{headers}");
    }
    assert_eq!(post(good).code(), "identity.csrf");
    let refresh = "cookie: portico_rt=r\r\n";
    assert_eq!(
        post(refresh).code(),
        "identity.csrf",
        "the refresh cookie alone"
    );
}

#[test]
fn an_old_cookie_is_nobody_and_told_so_where_somebody_is_needed() {
    let backend = Backend::answering("in");
    let rig = rig(&backend, entrance());
    let old = "cookie: portico_at=expired\r\n";
    assert_eq!(rig.get_with("/api/notes/open", old).status, 200);
    assert_eq!(
        told(&rig.get_with("/api/notes/x", old)),
        (401, "identity.token_expired".to_owned())
    );
    // The name of TLS hosts is taken as well; the plain one only from this machine without TLS.
    let strict = "cookie: __Host-portico_at=good\r\n";
    assert_eq!(rig.get_with("/api/notes/x", strict).status, 200);
    let proxied = "cookie: portico_at=good\r\nx-forwarded-for: 1.2.3.4\r\n";
    assert_eq!(rig.get_with("/api/notes/x", proxied).status, 401);
}

#[test]
fn credentials_in_addresses_are_refused_and_keys_are_looked_for_once() {
    let backend = Backend::answering("in");
    let keys = Arc::new(Keys::default());
    let credentials = Credentials::default();
    credentials.add(Arc::clone(&keys) as Arc<dyn CredentialSource>);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let spawner = portico_host::Spawner::new(runtime.handle().clone());
    let rig = Rig::with(Setup {
        services: vec![notes(&backend)],
        entrance: Entrance {
            loader: Some(Loader::new(spawner)),
            ..entrance()
        },
        credentials,
        ..Setup::default()
    });
    assert_eq!(
        told(&rig.get(&format!("/api/notes/open?key={LONG}"))),
        (400, "identity.key_in_query".to_owned())
    );
    assert_eq!(rig.get("/api/notes/open?key=ptk_").status, 200);
    assert_eq!(
        rig.get_with("/api/notes/x", &bearer("ptk_loaded")).status,
        200
    );
    assert_eq!(
        rig.get_with("/api/notes/x", "x-api-key: ptk_loaded\r\n")
            .status,
        200
    );
    assert_eq!(keys.loads.load(SeqCst), 1, "then it is in memory");
    assert_eq!(
        told(&rig.get_with("/api/notes/x", &bearer("ptk_unfounded"))),
        (401, "identity.token_invalid".to_owned())
    );
    assert_eq!(
        rig.get_with("/api/notes/x", &bearer("ptk_nothing")).status,
        401
    );
    assert_eq!(
        keys.loads.load(SeqCst),
        2,
        "what cannot exist is not looked for"
    );
    assert_eq!(
        told(&rig.get_with("/api/notes/x", &bearer("ptk_gone"))),
        (401, "identity.tenant_suspended".to_owned())
    );
    assert_eq!(
        rig.get_with("/api/notes/x", &bearer("ptk_bound")).status,
        200
    );
    let again = rig.get_with("/api/notes/x", &bearer("ptk_bound"));
    assert_eq!(told(&again), (429, "gateway.rate_limited".to_owned()));
}

#[test]
fn a_key_stays_within_its_services_and_networks() {
    let backend = Backend::answering("in");
    let credentials = Credentials::default();
    credentials.add(Arc::new(Keys::default()));
    let other = service("other", vec![backend.instance(2, "1")]);
    let rig = Rig::with(Setup {
        services: vec![notes(&backend), other],
        entrance: entrance(),
        credentials,
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..Setup::default()
    });
    let from = |path, address: &str| {
        let headers = format!("{}x-forwarded-for: {address}\r\n", bearer("ptk_bound"));
        told(&rig.get_with(path, &headers))
    };
    assert_eq!(
        from("/api/other/x", "127.0.0.9"),
        (403, "identity.permission_denied".to_owned())
    );
    assert_eq!(
        from("/api/notes/x", "9.9.9.9"),
        (401, "identity.ip_mismatch".to_owned())
    );
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_host_of_a_tenant_is_answered_in_its_name() {
    let (shared, own) = (
        Backend::answering("everybody's"),
        Backend::answering("acme's"),
    );
    let mut of_acme = service("shop", vec![own.instance(2, "1")]);
    of_acme.key.tenant = Some(ACME);
    of_acme.id = Uuid::from_u128(22);
    let rig = Rig::with(Setup {
        services: vec![service("shop", vec![shared.instance(1, "1")]), of_acme],
        entrance: entrance(),
        ..Setup::default()
    });
    let at = |host: &str| {
        rig.ask(&format!(
            "GET /api/shop/x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        ))
    };
    assert_eq!(at("localhost").body, "everybody's");
    assert_eq!(at("acme.tenants.example").body, "acme's");
    assert_eq!(
        told(&at("gone.tenants.example")),
        (403, "identity.tenant_suspended".to_owned())
    );
    assert_eq!(at("nobody.tenants.example").status, 421);
}

/// A house with one service: who asks for what.
fn house(words: &Arc<Words>) -> (Builtins, Entrance) {
    let info = |method, path: &str, access| RouteInfo {
        method,
        path: path.to_owned(),
        access,
        foreign: false,
    };
    let manage = Access::Permission(Permission::new("identity:user:write"));
    let table: Arc<[RouteInfo]> = Arc::from([
        info("GET", "/login", Access::Public),
        info("GET", "/me", Access::Authenticated),
        info("GET", "/secret", Access::Authenticated.aal2()),
        info("GET", "/users", manage),
    ]);
    let declared = [PermissionDeclaration::admin(
        "identity:user:write",
        "change users",
        "修改用户",
    )];
    let router = Router::new().fallback(any(|| async { "house" }));
    let builtins = Builtins {
        services: [("identity", router)].into(),
        roots: Vec::new(),
    };
    let entrance = Entrance {
        verifier: Some(Arc::clone(words) as Arc<dyn TokenVerifier>),
        house: Arc::new(HouseRoutes::new(&[("identity", table)], &declared)),
        ..Entrance::default()
    };
    (builtins, entrance)
}

fn identity() -> Service {
    Service {
        builtin: true,
        forward_credentials: true,
        ..service("identity", Vec::new())
    }
}

#[test]
fn built_in_routes_tell_what_is_wrong_with_a_token_where_one_is_needed() {
    let words = Arc::new(Words::default());
    let (builtins, entrance) = house(&words);
    let rig = Rig::with(Setup {
        services: vec![identity()],
        builtins,
        entrance,
        ..Setup::default()
    });
    let get =
        |path: &str, token| told(&rig.get_with(&format!("/api/identity{path}"), &bearer(token)));
    assert_eq!(
        get("/login", "expired").0,
        200,
        "whoever logs in may carry an old one"
    );
    assert_eq!(
        get("/me", "expired"),
        (401, "identity.token_expired".to_owned())
    );
    assert_eq!(get("/me", "good").0, 200);
    words.stale.store(true, SeqCst);
    assert_eq!(get("/me", "good").0, 200);
    for path in ["/secret", "/users"] {
        assert_eq!(
            get(path, "good"),
            (503, "identity.revocations_stale".to_owned()),
            "{path}"
        );
    }
}

/// ID-4: an application of the house is switched off for a tenant as a plug-in is; what the platform stands on
/// stays, whatever the directory says.
#[test]
fn applications_of_the_house_can_be_switched_off_for_a_tenant() {
    let router = || Router::new().fallback(any(|| async { "house" }));
    let table: Arc<[RouteInfo]> = Arc::from([RouteInfo {
        method: "GET",
        path: "/me".to_owned(),
        access: Access::Authenticated,
        foreign: false,
    }]);
    let routes = [("identity", Arc::clone(&table)), ("music", table)];
    let off = |name: &str| Service {
        disabled_for: Arc::from([id::TENANT_DEFAULT]),
        ..Service {
            builtin: true,
            ..service(name, Vec::new())
        }
    };
    let words = Arc::new(Words::default());
    let rig = Rig::with(Setup {
        services: vec![off("identity"), off("music")],
        builtins: Builtins {
            services: [("identity", router()), ("music", router())].into(),
            roots: Vec::new(),
        },
        entrance: Entrance {
            verifier: Some(words as Arc<dyn TokenVerifier>),
            house: Arc::new(HouseRoutes::new(&routes, &[])),
            ..Entrance::default()
        },
        ..Setup::default()
    });
    let get = |service: &str| told(&rig.get_with(&format!("/api/{service}/me"), &bearer("good")));
    assert_eq!(get("identity").0, 200);
    assert_eq!(get("music"), (403, "gateway.service_disabled".to_owned()));
    rig.set(vec![
        off("identity"),
        Service {
            builtin: true,
            disabled_for: Arc::from([GONE]),
            ..service("music", Vec::new())
        },
    ]);
    assert_eq!(get("music").0, 200, "for another tenant alone");
}

#[test]
fn administration_has_a_place_of_its_own() {
    let words = Arc::new(Words::default());
    let open = |own_console, listener, settings| {
        let (builtins, entrance) = house(&words);
        let names = crate::route::build::Names {
            domain: Some("portico.example".to_owned()),
            ..Default::default()
        };
        Rig::with(Setup {
            services: vec![identity()],
            builtins,
            entrance: Entrance {
                own_console,
                ..entrance
            },
            names,
            listener: Some(listener),
            settings,
            ..Setup::default()
        })
    };
    let get = |rig: &Rig, host: &str, path: &str| {
        rig.ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nx-forwarded-for: 1.1.1.1\r\n{}\r\n", bearer("good")))
            .status
    };
    let (users, me) = ("/api/identity/users", "/api/identity/me");
    let public = open(true, "http", Vec::new());
    assert_eq!(get(&public, "localhost", users), 404);
    assert_eq!(get(&public, "localhost", me), 200);
    assert_eq!(get(&public, "admin.portico.example", me), 404);
    let console = open(true, CONSOLE, Vec::new());
    assert_eq!(get(&console, "localhost", users), 200);
    assert_eq!(get(&console, "admin.portico.example", me), 200);
    let limited = |networks| open(false, "http", vec![("console.allow_cidrs", networks)]);
    let elsewhere = limited(json!(["10.0.0.0/8"]));
    assert_eq!(get(&elsewhere, "localhost", users), 403);
    assert_eq!(get(&elsewhere, "localhost", me), 200);
    assert_eq!(get(&limited(json!(["127.0.0.1"])), "localhost", users), 200);
}

struct Calling {
    rig: Rig,
    refused: Arc<Mutex<Vec<RefusedCall>>>,
}

fn calling(backend: &Backend, listener: &'static str, rules: Vec<Value>) -> Calling {
    let credentials = Credentials::default();
    credentials.add(Arc::new(Copies));
    credentials.add(Arc::new(Enrols));
    let refused: Arc<Mutex<Vec<RefusedCall>>> = Arc::default();
    let heard = Arc::clone(&refused);
    let objects = Objects {
        callers: rules.into_iter().map(|doc| object("rule", doc)).collect(),
        ..Objects::default()
    };
    let rig = Rig::with(Setup {
        services: vec![notes(backend)],
        entrance: Entrance {
            calls: Some(Arc::new(move |call| heard.lock().push(call))),
            ..entrance()
        },
        credentials,
        objects,
        listener: Some(listener),
        ..Setup::default()
    });
    Calling { rig, refused }
}

#[test]
fn services_call_each_other_by_rule_alone() {
    let backend = Backend::answering("in");
    for listener in [INTERNAL, "http"] {
        let shut = calling(&backend, listener, Vec::new());
        assert_eq!(
            told(&shut.rig.get_with("/api/notes/x", &bearer("pis_shop"))),
            (403, "gateway.caller_not_allowed".to_owned()),
            "{listener}"
        );
        assert_eq!(
            told(&shut.rig.get_with("/api/notes/x", &bearer("prt_several"))),
            (403, "gateway.caller_not_allowed".to_owned()),
            "{listener}: nor with what registers them"
        );
        let heard = shut.refused.lock().first().cloned().expect("it was told");
        assert_eq!(
            (&*heard.caller, &*heard.callee, &*heard.path),
            ("shop", "notes", "/x")
        );
    }
    assert_eq!(backend.count(), 0);
    let rule = json!({"service": "notes", "callers": ["shop"], "endpoints": [{"path": "/right"}],
        "permissions": ["notes:note:write"]});
    let open = calling(&backend, INTERNAL, vec![rule]);
    let call = |path: &str, headers: &str| told(&open.rig.get_with(path, headers));
    assert_eq!(call("/api/notes/right", &bearer("pis_shop")).0, 200);
    let seen = backend.last();
    assert_eq!(
        (
            seen.header("x-portico-user"),
            seen.header("x-portico-scopes"),
            seen.header("x-portico-roles"),
            seen.header("authorization")
        ),
        (Some("svc:shop"), Some("notes:note:write"), Some(""), None)
    );
    assert_eq!(
        call("/api/notes/x", &bearer("pis_shop")).0,
        403,
        "not this endpoint"
    );
    assert_eq!(
        call("/api/notes/right", &bearer("pis_other")).0,
        403,
        "not this caller"
    );
    assert_eq!(
        call("/api/notes/open", ""),
        (401, "identity.token_missing".to_owned()),
        "nobody calls there without a credential"
    );
    assert_eq!(
        call("/api/notes/right", &bearer("good")),
        (403, "gateway.caller_not_allowed".to_owned()),
        "nor people"
    );
    assert_eq!(call("/docs", &bearer("pis_shop")).0, 404);
    let by_name = open.rig.ask(&format!(
        "GET /api/notes/right HTTP/1.1\r\nhost: portico.internal\r\nconnection: close\r\n{}\r\n",
        bearer("pis_shop")
    ));
    assert_eq!(by_name.status, 200, "whatever replicas are called there");
}

struct Says;

impl IdentityStatements for Says {
    fn statement(&self, principal: &Principal, service: &str, _now_s: i64) -> Option<Arc<str>> {
        Some(format!("{}@{service}", principal.subject).into())
    }
}

#[test]
fn a_signed_statement_goes_to_those_who_ask_for_it() {
    let (asks, not) = (Backend::answering("a"), Backend::answering("n"));
    let asking = Service {
        identity_statement: true,
        ..service("asks", vec![asks.instance(1, "1")])
    };
    let rig = Rig::with(Setup {
        services: vec![asking, service("not", vec![not.instance(2, "1")])],
        entrance: Entrance {
            statements: Some(Arc::new(Says)),
            ..entrance()
        },
        ..Setup::default()
    });
    let forged = "x-portico-identity: forged\r\n";
    rig.get_with("/api/asks/x", &format!("{}{forged}", bearer("good")));
    rig.get_with("/api/not/x", &format!("{}{forged}", bearer("good")));
    assert_eq!(asks.last().all("x-portico-identity"), ["good@asks"]);
    assert_eq!(not.last().header("x-portico-identity"), None);
    rig.get_with("/api/asks/x", forged);
    assert_eq!(
        asks.last().header("x-portico-identity"),
        None,
        "nobody is nobody"
    );
}
