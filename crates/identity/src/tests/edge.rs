//! What an edge lets through and what it refuses: versions, sessions, tenants, roles, restarts, other replicas (ID-91, ID-110…114).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portico_base::{Permission, SystemRandom, id};
use portico_contract::directory::{
    DefaultAccess, Directory, DirectoryListener, DirectorySource, Observation, Service, ServiceKey,
};
use portico_contract::streams::StreamOwner;
use portico_contract::tenants::{TenantStatus, Tenants};
use portico_contract::tokens::{Denied, IdentityStatements, Revocations, TokenVerifier, Verified};
use portico_db::testing::{TestDb, each_backend};
use portico_telemetry::metrics::Format;
use portico_token::{AccessClaims, VerifyingKey, access, statement};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::rig::{OTHER, Rig};
use crate::domain::user::User;
use crate::edge::{CLAIMS, DELETED, DISABLED, Edge};
use crate::ops;
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

pub(super) fn new_id(rig: &Rig) -> Uuid {
    id::new_id(&*rig.core.clock, &SystemRandom)
}

/// What a session's token says now.
pub(super) fn claims(rig: &Rig, user: &User, session: Uuid) -> AccessClaims {
    let now_s = rig.core.clock.now().timestamp();
    AccessClaims {
        user: user.id,
        tenant: user.tenant,
        session,
        device: new_id(rig),
        issued_s: now_s,
        expires_s: now_s + 1_800,
        id: new_id(rig),
        tv: user.tv,
        te: rig.core.edge.tenant(user.tenant).map_or(0, |t| t.te),
        ge: rig.core.edge.ge(),
        roles: vec!["user".to_owned()],
        scope: None,
        amr: vec!["pwd".to_owned()],
        aal: 1,
        auth_time_s: now_s,
        network: None,
        audiences: Vec::new(),
    }
}

pub(super) fn token(rig: &Rig, claims: &AccessClaims) -> String {
    rig.core.edge.sign(claims).unwrap().expose().clone()
}

/// What the door does with a token that it does not remember.
pub(super) fn ask(rig: &Rig, token: &str) -> Result<Verified, Denied> {
    let now_s = rig.core.clock.now().timestamp();
    let verified = rig.core.edge.verify(token, now_s)?;
    rig.core.edge.check(&verified, None)?;
    Ok(verified)
}

/// Raises a user's version as a use-case does.
pub(super) async fn raise(rig: &Rig, user: &User, cause: &str) -> u32 {
    let unit = Unit::begin_durable(&rig.core, &rig.core.own_context("test"))
        .await
        .unwrap();
    let tv = store::users::raise(&unit.tx, user.tenant, user.id, unit.now())
        .await
        .unwrap()
        .unwrap();
    unit.revoke(Kind::User, user.tenant, &user.id.to_string(), tv, cause)
        .await
        .unwrap();
    unit.commit().await.unwrap();
    tv
}

pub(super) async fn end_session(rig: &Rig, tenant: Uuid, session: Uuid, cause: &str) {
    let unit = Unit::begin_durable(&rig.core, &rig.core.own_context("test"))
        .await
        .unwrap();
    unit.revoke(Kind::Session, tenant, &session.to_string(), 0, cause)
        .await
        .unwrap();
    unit.commit().await.unwrap();
}

pub(super) async fn raise_tenant(rig: &Rig, tenant: Uuid) {
    let unit = Unit::begin_durable(&rig.core, &rig.core.own_context("test"))
        .await
        .unwrap();
    let te = store::tenants::raise(&unit.tx, tenant, unit.now())
        .await
        .unwrap()
        .unwrap();
    unit.revoke(Kind::Tenant, tenant, &tenant.to_string(), te, "logout")
        .await
        .unwrap();
    unit.commit().await.unwrap();
}

#[tokio::test]
async fn a_token_becomes_a_principal_with_its_roles_permissions() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(OTHER).await;
        let user = rig.get_user(OTHER, admin.id.unwrap()).await;
        let session = new_id(&rig);
        let wanted = AccessClaims {
            roles: vec!["user".to_owned(), "tenant_admin".to_owned()],
            aal: 2,
            ..claims(&rig, &user, session)
        };
        let verified = ask(&rig, &token(&rig, &wanted)).unwrap();
        let principal = &verified.principal;
        assert_eq!((principal.id, principal.tenant), (Some(user.id), OTHER));
        assert_eq!(*principal.roles, ["tenant_admin", "user"]);
        assert_eq!(principal.session.as_deref(), Some(&*session.to_string()));
        assert_eq!(principal.fresh_until_s, wanted.auth_time_s + 300);
        assert!(principal.may(&Permission::new("identity:user:write")));
        assert!(!principal.may(&Permission::new("identity:keys:rotate")));
        assert_eq!(verified.expires_s, wanted.expires_s);

        // A scope narrows and never widens.
        let narrow = AccessClaims {
            scope: Some("identity:user:read identity:keys:rotate".to_owned()),
            ..wanted
        };
        let verified = ask(&rig, &token(&rig, &narrow)).unwrap();
        assert!(
            verified
                .principal
                .may(&Permission::new("identity:user:read"))
        );
        assert!(
            !verified
                .principal
                .may(&Permission::new("identity:user:write"))
        );
        assert!(
            !verified
                .principal
                .may(&Permission::new("identity:keys:rotate"))
        );

        // The super administrator's role means nothing outside the system's tenant.
        let hopping = AccessClaims {
            roles: vec!["super_admin".to_owned()],
            ..claims(&rig, &user, session)
        };
        let verified = ask(&rig, &token(&rig, &hopping)).unwrap();
        assert!(verified.principal.permissions.is_empty());
    })
    .await;
}

#[tokio::test]
async fn each_cause_has_its_answer_and_what_came_later_is_good() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        for (cause, denied) in [
            (CLAIMS, Denied::STALE),
            (DISABLED, Denied::ACCOUNT_DISABLED),
            (DELETED, Denied::ACCOUNT_DISABLED),
            ("password_changed", Denied::SESSION_REVOKED),
        ] {
            let mut user = rig.user(&format!("user-{cause}")).await;
            let old = token(&rig, &claims(&rig, &user, new_id(&rig)));
            assert!(ask(&rig, &old).is_ok());
            user.tv = raise(&rig, &user, cause).await;
            assert_eq!(ask(&rig, &old).unwrap_err(), denied, "{cause}");
            let new = token(&rig, &claims(&rig, &user, new_id(&rig)));
            assert!(ask(&rig, &new).is_ok(), "{cause}");
        }
        // One session of two.
        let user = rig.user("two").await;
        let (one, other) = (new_id(&rig), new_id(&rig));
        let tokens = [one, other].map(|s| token(&rig, &claims(&rig, &user, s)));
        let verified = ask(&rig, &tokens[0]).unwrap();
        end_session(&rig, user.tenant, one, "kicked").await;
        assert_eq!(ask(&rig, &tokens[0]).unwrap_err(), Denied::SESSION_REVOKED);
        assert_eq!(rig.core.edge.reason(&verified).as_deref(), Some("kicked"));
        assert!(ask(&rig, &tokens[1]).is_ok());
        // Changed roles do not hide that the session is over.
        raise(&rig, &user, CLAIMS).await;
        assert_eq!(ask(&rig, &tokens[0]).unwrap_err(), Denied::SESSION_REVOKED);
        assert_eq!(ask(&rig, &tokens[1]).unwrap_err(), Denied::STALE);
    })
    .await;
}

/// The same by the use-cases that administrators call (ID-12, ID-24).
#[tokio::test]
async fn disabling_and_granting_have_their_own_answers() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let user = rig.user("user").await;
        let path = format!("/users/{}", user.id);
        let old = token(&rig, &claims(&rig, &user, new_id(&rig)));
        let roles = json!({ "roles": ["user", "auditor"] });
        let (status, body) = rig
            .call(&admin, "PUT", &format!("{path}/roles"), roles)
            .await;
        assert!(status < 300, "{body}");
        assert_eq!(ask(&rig, &old).unwrap_err(), Denied::STALE);
        let user = rig.get_user(user.tenant, user.id).await;
        let new = token(&rig, &claims(&rig, &user, new_id(&rig)));
        assert!(ask(&rig, &new).is_ok());
        let (status, body) = rig
            .post(&admin, &format!("{path}/disable"), json!({}))
            .await;
        assert!(status < 300, "{body}");
        assert_eq!(ask(&rig, &new).unwrap_err(), Denied::ACCOUNT_DISABLED);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_ends_as_a_whole_and_alone() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let here = rig.user("here").await;
        let there = rig.add_user(OTHER, "there", &["user"]).await;
        let tokens = [&here, &there].map(|u| token(&rig, &claims(&rig, u, new_id(&rig))));
        raise_tenant(&rig, OTHER).await;
        assert!(ask(&rig, &tokens[0]).is_ok());
        assert_eq!(ask(&rig, &tokens[1]).unwrap_err(), Denied::STALE);
        assert_eq!(rig.core.edge.tenant(OTHER).map(|t| t.te), Some(2));
        let again = token(&rig, &claims(&rig, &there, new_id(&rig)));
        assert!(ask(&rig, &again).is_ok());

        let unit = Unit::begin_durable(&rig.core, &rig.core.own_context("test"))
            .await
            .unwrap();
        let mut row = store::tenants::get(&unit.tx, OTHER).await.unwrap().unwrap();
        row.status = TenantStatus::Suspended;
        store::tenants::put(&unit.tx, &row).await.unwrap();
        unit.revoke(Kind::Tenants, OTHER, &OTHER.to_string(), 0, "suspended")
            .await
            .unwrap();
        unit.commit().await.unwrap();
        assert_eq!(ask(&rig, &again).unwrap_err(), Denied::TENANT_SUSPENDED);
        let edge: &Edge = &rig.core.edge;
        assert_eq!(
            Tenants::by_slug(edge, "other").map(|t| t.status),
            Some(TenantStatus::Suspended)
        );
        assert!(ask(&rig, &tokens[0]).is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_host_leads_to_its_tenant() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let unit = Unit::begin(&rig.core, &rig.core.own_context("test"))
            .await
            .unwrap();
        store::tenants::insert_host(&unit.tx, "shop.example", OTHER, unit.now())
            .await
            .unwrap();
        unit.revoke(Kind::Tenants, OTHER, &OTHER.to_string(), 0, "hosts")
            .await
            .unwrap();
        unit.commit().await.unwrap();
        let of = |host: &str| rig.core.edge.tenant_by_host(host).map(|t| t.id);
        assert_eq!(
            (of("shop.example"), of("SHOP.example")),
            (Some(OTHER), Some(OTHER))
        );
        assert_eq!(of("example"), None);
        assert_eq!(
            rig.core.edge.tenant_by_slug("other").map(|t| t.id),
            Some(OTHER)
        );
        let edge: &Edge = &rig.core.edge;
        assert_eq!(
            Tenants::by_host(edge, "shop.example").map(|t| t.id),
            Some(OTHER)
        );
        assert_eq!(Tenants::by_id(edge, OTHER).map(|t| t.id), Some(OTHER));
    })
    .await;
}

/// ID-91: 10,000 checks of 1,000 users ask the database nothing.
#[tokio::test]
async fn ten_thousand_checks_take_no_statement() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let statements = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&statements);
        rig.core.db.metrics().observe(move |_, _| {
            counted.fetch_add(1, Relaxed);
        });
        let tokens: Vec<String> = (0..1_000)
            .map(|_| {
                let user = User::new(new_id(&rig), id::TENANT_DEFAULT, rig.core.clock.now());
                token(&rig, &claims(&rig, &user, new_id(&rig)))
            })
            .collect();
        let now_s = rig.core.clock.now().timestamp();
        let mut checked = 0;
        for token in &tokens {
            let verified = rig.core.edge.verify(token, now_s).unwrap();
            for _ in 0..10 {
                rig.core.edge.check(&verified, None).unwrap();
                assert!(!rig.core.edge.refuses_stale(true));
                checked += 1;
            }
        }
        assert_eq!((checked, statements.load(Relaxed)), (10_000, 0));
        // The counter does count.
        rig.core.edge.catch_up().await;
        assert!(statements.load(Relaxed) > 0);
    })
    .await;
}

/// ID-112: silence is not news. Who may do much is kept out when the log cannot be read.
#[tokio::test]
async fn an_edge_that_hears_nothing_refuses_administrators() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let edge = &rig.core.edge;
        let refused = || (edge.refuses_stale(true), edge.refuses_stale(false));
        rig.advance(5);
        assert_eq!(refused(), (false, false));
        rig.advance(1);
        assert_eq!(refused(), (true, false));
        let lag = || {
            let text = rig.metrics.render(Format::Prometheus);
            let line = text
                .lines()
                .find(|l| l.starts_with("portico_identity_revocation_lag_seconds "));
            line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        };
        assert_eq!(lag(), Some(6.0));
        rig.set("identity.revocations.refuse_all", json!(true));
        assert_eq!(refused(), (true, true));
        rig.set("identity.revocations.refuse_all", json!(false));
        rig.set("identity.revocations.refuse_sensitive", json!(false));
        assert_eq!(refused(), (false, false));
        rig.set("identity.revocations.refuse_sensitive", json!(true));
        edge.catch_up().await;
        assert_eq!((refused(), lag()), ((false, false), Some(0.0)));
    })
    .await;
}

/// ID-95: a bound token works in its network only; the first of many misses is recorded.
#[tokio::test]
async fn a_bound_token_stays_in_its_network() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("bound").await;
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let bound = AccessClaims {
            network: Some(access::network(ip("203.0.113.7"))),
            ..claims(&rig, &user, new_id(&rig))
        };
        let token = token(&rig, &bound);
        let now_s = rig.core.clock.now().timestamp();
        let edge = &rig.core.edge;
        let verified = edge.verify(&token, now_s).unwrap();
        assert_eq!(edge.check(&verified, Some(ip("203.0.113.200"))), Ok(()));
        for away in [Some(ip("203.0.114.7")), Some(ip("2001:db8::1")), None] {
            assert_eq!(edge.check(&verified, away), Err(Denied::IP_MISMATCH));
        }
        let noticed = edge.mismatches().await;
        assert_eq!(noticed.len(), 1);
        ops::mismatches::record(&rig.core, &noticed).await.unwrap();
        assert_eq!(rig.audit.take(), ["identity.session.ip_mismatch"]);
        // A minute later it is worth another record.
        rig.advance(60);
        assert!(edge.check(&verified, None).is_err());
        assert_eq!(edge.mismatches().await.len(), 1);
    })
    .await;
}

/// A life that is shortened and prolonged again brings nobody back who was shown out in between.
#[tokio::test]
async fn a_life_that_changes_twice_forgets_no_revocation() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (user, gone) = (rig.user("user").await, rig.user("gone").await);
        rig.set("identity.token.access_ttl_s", json!(86_400));
        let now_s = rig.core.clock.now().timestamp();
        let long = |user: &User| {
            let session = new_id(&rig);
            let claims = AccessClaims {
                expires_s: now_s + 86_400,
                ..claims(&rig, user, session)
            };
            (session, token(&rig, &claims))
        };
        let ((session, ended), (_, raised), (_, kept)) = (long(&user), long(&gone), long(&user));
        rig.set("identity.token.access_ttl_s", json!(600));
        end_session(&rig, user.tenant, session, "kicked").await;
        raise(&rig, &gone, DISABLED).await;
        // Much longer than any token lives by now.
        rig.advance(86_000);
        ops::sweep::sweep(&rig.core).await.unwrap();
        let restarted = rig.another(db).await;
        rig.set("identity.token.access_ttl_s", json!(86_400));
        for rig in [&rig, &restarted] {
            assert!(ask(rig, &kept).is_ok(), "a token of then is good again");
            assert_eq!(ask(rig, &ended).unwrap_err(), Denied::SESSION_REVOKED);
            assert_eq!(ask(rig, &raised).unwrap_err(), Denied::ACCOUNT_DISABLED);
        }
        // When the last of them is over, so is what is known of it.
        rig.advance(461);
        ops::sweep::sweep(&rig.core).await.unwrap();
        assert_eq!(ask(&rig, &ended).unwrap_err(), Denied::EXPIRED);
        let reader = rig.core.db.reader();
        let now = rig.core.clock.now() - chrono::Duration::days(9);
        let left = store::revocations::after(reader, 0, now, 10).await;
        assert_eq!(left.unwrap(), []);
    })
    .await;
}

/// A shortened life counts for tokens that are out.
#[tokio::test]
async fn a_shortened_life_counts_at_once() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("user").await;
        rig.set("identity.token.access_ttl_s", json!(86_400));
        let now_s = rig.core.clock.now().timestamp();
        let long = AccessClaims {
            expires_s: now_s + 86_400,
            ..claims(&rig, &user, new_id(&rig))
        };
        let token = token(&rig, &long);
        assert_eq!(ask(&rig, &token).unwrap().expires_s, now_s + 86_400);
        let epoch = rig.core.edge.epoch();
        rig.set("identity.token.access_ttl_s", json!(600));
        assert!(rig.core.edge.epoch() > epoch);
        assert_eq!(ask(&rig, &token).unwrap().expires_s, now_s + 600);
        rig.advance(600);
        assert_eq!(ask(&rig, &token).unwrap_err(), Denied::EXPIRED);
    })
    .await;
}

/// Streams of whom they end for; of everybody when the epoch rises.
#[tokio::test]
async fn whoever_holds_streams_is_told_whose_end() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (heard, mut told) = mpsc::unbounded_channel();
        rig.core
            .edge
            .subscribe(Arc::new(move |owner| heard.send(owner.clone()).unwrap()));
        let rows = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&rows);
        rig.core.edge.listen(Arc::new(move |_| {
            counted.fetch_add(1, Relaxed);
        }));
        let stop = CancellationToken::new();
        let following = tokio::spawn({
            let (edge, stop) = (Arc::clone(&rig.core.edge), stop.clone());
            async move { edge.follow(stop).await }
        });
        let user = rig.user("user").await;
        let session = new_id(&rig);
        raise(&rig, &user, DISABLED).await;
        end_session(&rig, user.tenant, session, "kicked").await;
        raise_tenant(&rig, OTHER).await;
        for wanted in [
            StreamOwner::Subject(user.id.to_string()),
            StreamOwner::Session(session.to_string()),
            StreamOwner::Tenant(OTHER),
        ] {
            assert_eq!(told.recv().await, Some(wanted));
        }
        let admin = rig.super_admin().await;
        let cx = rig.cx(&admin);
        ops::keys::raise_epoch(&rig.core, &cx, None).await.unwrap();
        let mut all = Vec::new();
        while all.len() < 3 {
            all.push(told.recv().await.unwrap());
        }
        for tenant in [id::TENANT_SYSTEM, id::TENANT_DEFAULT, OTHER] {
            assert!(all.contains(&StreamOwner::Tenant(tenant)));
        }
        // What was told is not told again.
        rig.core.edge.catch_up().await;
        assert_eq!(rows.load(Relaxed), 4);
        stop.cancel();
        following.await.unwrap();
    })
    .await;
}

struct Fixed(Arc<Directory>);

impl DirectorySource for Fixed {
    fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.0)
    }

    fn subscribe(&self, _listener: DirectoryListener) {}

    fn observe(&self, _instance: Uuid, _what: Observation) {}
}

/// ID-90: a plug-in that gets the token itself finds its own name in it; one of another tenant does not.
#[tokio::test]
async fn a_plug_in_that_gets_tokens_is_their_audience() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("user").await;
        let service = |tenant, name: &str, forward_credentials| Service {
            id: new_id(&rig),
            key: ServiceKey {
                tenant,
                name: name.into(),
            },
            display_name: name.into(),
            description: "".into(),
            builtin: false,
            enabled: true,
            disabled_for: Arc::default(),
            default_access: DefaultAccess::Authenticated,
            forward_credentials,
            identity_statement: false,
            endpoints: Arc::default(),
            openapi_url: None,
            instances: Arc::default(),
        };
        let all = [
            service(None, "notes", true),
            service(None, "quiet", false),
            service(Some(user.tenant), "own", true),
            service(Some(OTHER), "foreign", true),
        ];
        let services = all.into_iter().map(|s| (s.key.clone(), Arc::new(s)));
        rig.core.edge.serve(Arc::new(Fixed(Arc::new(Directory {
            seq: 1,
            services: services.collect(),
        }))));
        let token = token(&rig, &claims(&rig, &user, new_id(&rig)));
        assert!(ask(&rig, &token).is_ok());
        let payload = portico_token::jws::split(&token).unwrap().payload;
        let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let installation = &*rig.core.edge.issuer().unwrap().audience;
        assert_eq!(payload["aud"], json!([installation, "notes", "own"]));
    })
    .await;
}

/// ID-170: a statement holds for one service, and a request does not pay for its signature.
#[tokio::test]
async fn statements_are_signed_once_in_half_a_minute() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("user").await;
        let principal = ask(&rig, &token(&rig, &claims(&rig, &user, new_id(&rig))))
            .unwrap()
            .principal;
        let now_s = rig.core.clock.now().timestamp();
        let edge: &Edge = &rig.core.edge;
        let get = |now_s| edge.statement(&principal, "notes", now_s).unwrap();
        let first = get(now_s);
        assert!(Arc::ptr_eq(&first, &get(now_s + 29)));
        assert!(!Arc::ptr_eq(&first, &get(now_s + 30)));
        let jwks: serde_json::Value = serde_json::from_slice(&edge.jwks()).unwrap();
        let keys: Vec<VerifyingKey> = jwks["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|jwk| VerifyingKey::from_jwk(jwk).unwrap())
            .collect();
        let find = |kid: &str| {
            let key = keys.iter().find(|k| **k.kid() == *kid);
            key.ok_or(Denied("unknown_key"))
        };
        let issuer = &edge.issuer().unwrap().issuer;
        let statement = statement::verify(&first, issuer, "notes", find, now_s + 59).unwrap();
        assert_eq!(statement.sub, user.id.to_string());
        assert_eq!(statement.tid, user.tenant.to_string());
    })
    .await;
}
