//! AuthService over a real listener with the generated client (spec §4, ID-172).

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Permission, Principal, PrincipalKind, Secret, id};
use portico_contract::credentials::{CredentialSource, Credentials};
use portico_db::testing::{TestDb, each_backend};
use portico_proto::identity::v1::auth_service_client::AuthServiceClient;
use portico_proto::identity::v1::watch_revocations_response::Event;
use portico_proto::identity::v1::{
    RefreshTokenRequest, RevocationKind, RevokeDeviceRequest, RevokeScope, RevokeTokenRequest,
    VerifyTokenRequest, VerifyTokenResponse, WatchRevocationsRequest, WatchRevocationsResponse,
    revoke_token_request::Target,
};
use portico_rpc::{ChainOptions, Hosts, RpcOptions, Running, Server, from_status};
use portico_state::{Deps, State};
use portico_telemetry::metrics::Registry;
use portico_telemetry::trace::Tracer;
use serde_json::json;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};
use uuid::Uuid;

use super::logins::tokens;
use super::rig::{OTHER, Rig};
use crate::domain::login::Tokens;
use crate::rpc::routes;
use crate::store::revocations::Kind;
use crate::unit::Unit;

const PATIENCE: Duration = Duration::from_secs(20);

/// `svc_` services of the house, `oth_` a key of another tenant, `key_` a key without scopes.
struct Sample(&'static str);

impl CredentialSource for Sample {
    fn prefix(&self) -> &'static str {
        self.0
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let all: Arc<[Permission]> = Arc::from([
            Permission::new("identity:token:introspect"),
            Permission::new("identity:token:revoke"),
        ]);
        let (kind, tenant, permissions) = match self.0 {
            "svc_" => (PrincipalKind::Service, id::TENANT_SYSTEM, all),
            "oth_" => (PrincipalKind::ApiKey, OTHER, all),
            _ => (PrincipalKind::ApiKey, id::TENANT_DEFAULT, Arc::from([])),
        };
        Some(Arc::new(Principal {
            permissions,
            ..Principal::new(kind, token, tenant)
        }))
    }
}

type Signed = InterceptedService<Channel, Signer>;

#[derive(Clone)]
struct Signer(String);

impl tonic::service::Interceptor for Signer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value =
            MetadataValue::try_from(&self.0).map_err(|e| Status::internal(e.to_string()))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

struct House {
    running: Running,
    url: String,
}

impl House {
    async fn start(rig: &Rig) -> Self {
        let metrics = Registry::default();
        let (state, _driver) = State::local(&Deps::system(&metrics));
        let credentials = Credentials::default();
        for prefix in ["svc_", "oth_", "key_"] {
            credentials.clone().add(Arc::new(Sample(prefix)));
        }
        let options = RpcOptions {
            tls: None,
            chain: ChainOptions {
                clock: rig.core.clock.clone(),
                random: rig.core.random.clone(),
                credentials: credentials.clone(),
                verifier: Some(rig.core.edge.clone()),
                tenants: Some(rig.core.edge.clone()),
                hosts: Hosts::default(),
                address_rules: None,
                limiter: state.limiter().clone(),
                metrics,
                tracer: Tracer::disabled(),
            },
            reflection: true,
            connections: 64,
        };
        let server = Server::new(options, routes(&rig.core, &credentials));
        let server = server.await.expect("complete services");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let handle = tokio::runtime::Handle::current();
        Self {
            running: server.serve(listener, &handle, || true),
            url,
        }
    }

    fn client(&self, token: &str) -> AuthServiceClient<Signed> {
        let channel = Endpoint::from_shared(self.url.clone())
            .unwrap()
            .connect_lazy();
        AuthServiceClient::with_interceptor(channel, Signer(format!("Bearer {token}")))
    }

    async fn stop(self) {
        assert_eq!(self.running.drain(Duration::from_secs(10)).await, 0);
    }
}

async fn verify(client: &mut AuthServiceClient<Signed>, token: &str) -> VerifyTokenResponse {
    let request = VerifyTokenRequest {
        token: token.to_owned(),
        ..Default::default()
    };
    client.verify_token(request).await.unwrap().into_inner()
}

fn code(status: &Status) -> String {
    from_status(status).unwrap().code
}

#[tokio::test]
async fn verify_token_gives_the_principal_that_the_door_would() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let house = House::start(&rig).await;
        let user = rig.user("anna").await;
        let issued = tokens(&rig, &user, json!({"platform": "web"})).await;
        let mut client = house.client("svc_notes");
        let good = verify(&mut client, issued.access_token.expose()).await;
        let who = good.principal.unwrap();
        assert!(good.active && good.reason.is_empty());
        assert_eq!((&*who.kind, &*who.subject), ("user", &*user.id.to_string()));
        assert_eq!(who.tenant_id, id::TENANT_DEFAULT.to_string());
        assert_eq!(who.session_id, issued.session_id.to_string());
        assert_eq!((who.roles, who.aal), (vec!["user".to_owned()], 1));
        let ends = good.expires_at.unwrap().seconds - rig.core.clock.now().timestamp();
        assert!((1_700..=1_800).contains(&ends), "{ends}");
        // Audience and permissions.
        let audience = rig.core.edge.issuer().unwrap().audience.to_string();
        let asked = VerifyTokenRequest {
            token: issued.access_token.expose().clone(),
            audience,
            permissions: vec!["music:playlist:write".to_owned()],
        };
        let answer = client
            .verify_token(asked.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(answer.active);
        assert_eq!(answer.missing_permissions, ["music:playlist:write"]);
        let foreign = VerifyTokenRequest {
            audience: "somebody else".to_owned(),
            permissions: vec!["nonsense".to_owned()],
            ..asked
        };
        let status = client.verify_token(foreign.clone()).await.unwrap_err();
        let fault = from_status(&status).unwrap();
        assert_eq!(
            (&*fault.code, &*fault.fields[0].field),
            ("identity.invalid", "permissions[0]")
        );
        let foreign = VerifyTokenRequest {
            permissions: Vec::new(),
            ..foreign
        };
        let answer = client.verify_token(foreign).await.unwrap().into_inner();
        assert_eq!(
            (answer.active, &*answer.reason),
            (false, "identity.token_invalid")
        );
        // What is not good is an answer.
        for (token, reason) in [
            ("", "identity.token_invalid"),
            ("eyJhbGciOiJub25lIn0.e30.", "identity.token_invalid"),
            ("ptk_live_nothing", "identity.token_invalid"),
            ("svc_notes", "identity.token_invalid"),
            (&*"x".repeat(9_000), "identity.token_invalid"),
        ] {
            let answer = verify(&mut client, token).await;
            assert_eq!((answer.active, &*answer.reason), (false, reason), "{token}");
            assert!(answer.principal.is_none() && answer.expires_at.is_none());
        }
        rig.advance(1_801);
        let old = verify(&mut client, issued.access_token.expose()).await;
        assert_eq!(
            (old.active, &*old.reason),
            (false, "identity.token_expired")
        );
        house.stop().await;
    })
    .await;
}

#[tokio::test]
async fn people_and_keys_without_scopes_may_ask_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let house = House::start(&rig).await;
        rig.set("identity.mfa.admin", json!("optional"));
        let root = rig
            .add_user(id::TENANT_SYSTEM, "root", &["super_admin"])
            .await;
        let issued = tokens(&rig, &root, json!({"platform": "web"})).await;
        let token = issued.access_token.expose().clone();
        for caller in [token.as_str(), "key_a"] {
            let mut client = house.client(caller);
            let ask = VerifyTokenRequest {
                token: token.clone(),
                ..Default::default()
            };
            let refused = [
                client.verify_token(ask).await.unwrap_err(),
                client
                    .refresh_token(RefreshTokenRequest::default())
                    .await
                    .unwrap_err(),
                client
                    .watch_revocations(WatchRevocationsRequest::default())
                    .await
                    .unwrap_err(),
            ];
            for status in refused {
                assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
                assert_eq!(code(&status), "identity.permission_denied");
            }
        }
        let mut key = house.client("key_a");
        let target = RevokeTokenRequest {
            target: Some(Target::SessionId(issued.session_id.to_string())),
            scope: 0,
        };
        let refused = key.revoke_token(target).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let channel = Endpoint::from_shared(house.url.clone())
            .unwrap()
            .connect_lazy();
        let mut nobody = AuthServiceClient::new(channel);
        let refused = nobody
            .verify_token(VerifyTokenRequest::default())
            .await
            .unwrap_err();
        assert_eq!(code(&refused), "identity.token_missing");
        house.stop().await;
    })
    .await;
}

#[tokio::test]
async fn refreshing_works_as_over_http() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let house = House::start(&rig).await;
        let user = rig.user("anna").await;
        let issued = tokens(&rig, &user, json!({"platform": "web"})).await;
        let mut client = house.client("svc_notes");
        let ask = |token: &Secret<String>, ip: &str| RefreshTokenRequest {
            refresh_token: token.expose().clone(),
            ip: ip.to_owned(),
            user_agent: "notes/1".to_owned(),
            ..Default::default()
        };
        rig.advance(60);
        let renewed = client
            .refresh_token(ask(&issued.refresh_token, "203.0.113.7"))
            .await;
        let renewed = renewed.unwrap().into_inner();
        assert_eq!(renewed.session_id, issued.session_id.to_string());
        assert_eq!(renewed.device_id, issued.device_id);
        assert!(verify(&mut client, &renewed.access_token).await.active);
        let bad = client
            .refresh_token(ask(&issued.refresh_token, "not an address"))
            .await;
        assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
        let bad = client
            .refresh_token(ask(&Secret::from("ptr_nonsense"), ""))
            .await
            .unwrap_err();
        assert_eq!(
            (bad.code(), &*code(&bad)),
            (Code::Unauthenticated, "identity.refresh_invalid")
        );
        // Reused much later: the session ends.
        rig.advance(600);
        let next = Secret::from(renewed.refresh_token);
        client
            .refresh_token(ask(&next, "203.0.113.7"))
            .await
            .unwrap();
        let reused = client
            .refresh_token(ask(&issued.refresh_token, ""))
            .await
            .unwrap_err();
        assert_eq!(reused.code(), Code::Unauthenticated, "{reused:?}");
        let over = verify(&mut client, &renewed.access_token).await;
        assert!(!over.active);
        house.stop().await;
    })
    .await;
}

#[tokio::test]
async fn revoking_is_idempotent_and_stays_in_the_tenant() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let house = House::start(&rig).await;
        let user = rig.user("anna").await;
        let web = tokens(&rig, &user, json!({"platform": "web"})).await;
        let tv = tokens(&rig, &user, json!({"platform": "tv"})).await;
        let (mut client, mut other) = (house.client("svc_notes"), house.client("oth_key"));
        let by_token = |tokens: &Tokens, scope: RevokeScope| RevokeTokenRequest {
            target: Some(Target::Token(tokens.access_token.expose().clone())),
            scope: scope.into(),
        };
        let foreign = other.revoke_token(by_token(&web, RevokeScope::All)).await;
        assert_eq!(foreign.unwrap_err().code(), Code::PermissionDenied);
        // The service acts in tenant `system` without the right over all of them.
        let refused = client.revoke_token(by_token(&web, RevokeScope::All)).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        let nothing = client
            .revoke_token(RevokeTokenRequest::default())
            .await
            .unwrap_err();
        assert_eq!(nothing.code(), Code::InvalidArgument);
        let meaningless = RevokeTokenRequest {
            target: Some(Target::Token("ptr_nothing".to_owned())),
            scope: 0,
        };
        assert!(client.revoke_token(meaningless).await.is_ok());
        let his = rig.add_user(OTHER, "otto", &["user"]).await;
        let own = tokens(&rig, &his, json!({"platform": "web"})).await;
        let second = tokens(&rig, &his, json!({"platform": "tv"})).await;
        for _ in 0..2 {
            other
                .revoke_token(by_token(&own, RevokeScope::Session))
                .await
                .unwrap();
        }
        assert!(!verify(&mut client, own.access_token.expose()).await.active);
        assert!(
            verify(&mut client, second.access_token.expose())
                .await
                .active
        );
        let device = rig.core.db.clone();
        let device = crate::store::sessions::get(device.reader(), second.session_id).await;
        let device = device.unwrap().unwrap().device;
        let kick = |user: Uuid, device: Uuid| RevokeDeviceRequest {
            user_id: user.to_string(),
            device_id: device.to_string(),
        };
        let ended = other
            .revoke_device(kick(his.id, device))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(ended.session_ids, [second.session_id.to_string()]);
        let again = other
            .revoke_device(kick(his.id, device))
            .await
            .unwrap()
            .into_inner();
        assert!(again.session_ids.is_empty());
        assert!(
            !verify(&mut client, second.access_token.expose())
                .await
                .active
        );
        let foreign = other
            .revoke_device(kick(user.id, device))
            .await
            .unwrap_err();
        assert_eq!(foreign.code(), Code::PermissionDenied);
        assert!(verify(&mut client, tv.access_token.expose()).await.active);
        house.stop().await;
    })
    .await;
}

async fn next(stream: &mut Streaming<WatchRevocationsResponse>) -> Event {
    let message = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .unwrap();
    message.unwrap().unwrap().event.unwrap()
}

async fn revoke(rig: &Rig, tenant: Uuid, subject: &str) {
    let cx = rig.core.own_context("test");
    let unit = Unit::begin(&rig.core, &cx).await.unwrap();
    unit.revoke(Kind::Session, tenant, subject, 0, "logout")
        .await
        .unwrap();
    unit.commit().await.unwrap();
}

#[tokio::test]
async fn watchers_hear_what_is_still_true_and_then_every_change() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let house = House::start(&rig).await;
        revoke(&rig, id::TENANT_DEFAULT, "one").await;
        revoke(&rig, OTHER, "two").await;
        let mut client = house.client("svc_notes");
        let watch = WatchRevocationsRequest::default();
        let mut all = client.watch_revocations(watch).await.unwrap().into_inner();
        let mut subjects = Vec::new();
        let position = loop {
            match next(&mut all).await {
                Event::Revocation(r) if r.kind() == RevocationKind::Session => {
                    subjects.push(r.subject);
                }
                Event::Revocation(_) => {}
                Event::SnapshotEnd(end) => break end.seq,
                Event::KeepAlive(_) => panic!("before the snapshot is told"),
            }
        };
        assert_eq!(subjects, ["one", "two"]);
        // Another replica's change comes through the log.
        let replica = rig.another(db).await;
        revoke(&replica, OTHER, "three").await;
        rig.core.edge.catch_up().await;
        let Event::Revocation(told) = next(&mut all).await else {
            panic!("a revocation is told");
        };
        assert_eq!((&*told.subject, &*told.cause), ("three", "logout"));
        assert!(told.seq > position && told.until.unwrap().seconds > told.at.unwrap().seconds);
        // Whoever comes back hears only what is new; a tenant's key hears of its own.
        let mut other = house.client("oth_key");
        let again = WatchRevocationsRequest {
            after_seq: position,
        };
        let mut own = other.watch_revocations(again).await.unwrap().into_inner();
        revoke(&rig, id::TENANT_DEFAULT, "four").await;
        revoke(&rig, OTHER, "five").await;
        let mut heard = Vec::new();
        while heard.len() < 2 {
            if let Event::Revocation(r) = next(&mut own).await {
                heard.push(r.subject);
            }
        }
        assert_eq!(heard, ["three", "five"]);
        for subject in ["four", "five"] {
            let Event::Revocation(told) = next(&mut all).await else {
                panic!("a revocation is told");
            };
            assert_eq!(told.subject, subject);
        }
        // The stop ends the streams, and says that another process may know more.
        house.stop().await;
        let end = loop {
            match all.message().await {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(end.code(), Code::Unavailable);
    })
    .await;
}
