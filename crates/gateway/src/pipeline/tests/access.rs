//! Who may do what and how often, over real sockets.

use std::sync::Arc;

use portico_base::{Principal, PrincipalKind, id};
use portico_contract::directory::{DefaultAccess, Endpoint, RateLimit, Service};
use serde_json::json;

use super::rig::{Backend, Rig, Setup, object, service};
use crate::identify::{Denied, TokenVerifier, Verified};
use crate::objects::Objects;
use crate::pipeline::Entrance;
use crate::route::service::fixture::endpoint;

/// Takes `user:NAME:ROLE` for a token.
struct Words;

impl TokenVerifier for Words {
    fn verify(&self, token: &str, _now_s: i64) -> Result<Verified, Denied> {
        let mut parts = token.split(':');
        let (Some("user"), Some(name), role) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Denied("form"));
        };
        let principal = Principal {
            roles: role.map(str::to_owned).into_iter().collect(),
            aal: 1,
            ..Principal::new(PrincipalKind::User, name, id::TENANT_DEFAULT)
        };
        Ok(Verified {
            principal: Arc::new(principal),
            tenant_name: None,
            claims: Box::default(),
            expires_s: i64::MAX,
            stamp: None,
        })
    }

    fn epoch(&self) -> u64 {
        1
    }
}

fn rig(service: Service, objects: Objects) -> Rig {
    Rig::with(Setup {
        services: vec![service],
        objects,
        entrance: words(),
        ..Setup::default()
    })
}

fn words() -> Entrance {
    Entrance {
        verifier: Some(Arc::new(Words)),
        ..Entrance::default()
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn endpoints_ask_for_roles_and_the_rest_follows_the_service() {
    let backend = Backend::answering("in");
    let endpoints = [
        Endpoint {
            is_public: true,
            ..endpoint(Some("GET"), "/open")
        },
        Endpoint {
            required_roles: Arc::from(["editor".to_owned()]),
            ..endpoint(None, "/edit/*")
        },
    ];
    let notes = Service {
        endpoints: endpoints.into(),
        default_access: DefaultAccess::Authenticated,
        ..service("notes", vec![backend.instance(1, "1")])
    };
    let rig = rig(notes, Objects::default());
    let status = |path, token: &str| {
        rig.get_with(
            path,
            &if token.is_empty() {
                String::new()
            } else {
                bearer(token)
            },
        )
        .status
    };
    for (path, token, wanted) in [
        ("/api/notes/open", "", 200),
        ("/api/notes/else", "", 401),
        ("/api/notes/else", "user:ann", 200),
        ("/api/notes/edit/1", "", 401),
        ("/api/notes/edit/1", "user:ann", 403),
        ("/api/notes/edit/1", "user:ann:editor", 200),
        ("/api/notes/open", "rubbish", 401),
        ("/api/notes/%65dit/1", "user:ann", 403),
        ("/api/notes/x/../edit/1", "user:ann", 403),
        ("/api/notes//edit/1", "user:ann", 403),
        ("/api/notes/edit;x/1", "user:ann", 403),
    ] {
        assert_eq!(status(path, token), wanted, "{path} {token}");
    }
    assert!(
        rig.get("/api/notes/else")
            .header("www-authenticate")
            .is_some()
    );
    rig.get_with("/api/notes/edit/1", &bearer("user:ann:editor"));
    let seen = backend.last();
    assert_eq!(
        (
            seen.header("x-portico-user"),
            seen.header("x-portico-roles"),
            seen.header("x-portico-tenant"),
            seen.header("x-portico-aal")
        ),
        (Some("ann"), Some("editor"), Some("default"), Some("1"))
    );
    assert_eq!(seen.header("authorization"), None);
}

#[test]
fn limits_are_told_and_kept() {
    let backend = Backend::answering("in");
    let few = Endpoint {
        is_public: true,
        rate_limit: Some(RateLimit {
            per_s: 0.01,
            burst: Some(2),
        }),
        ..endpoint(Some("GET"), "/few")
    };
    let notes = Service {
        endpoints: Arc::from([few]),
        ..service("notes", vec![backend.instance(1, "1")])
    };
    let objects = Objects {
        limits: vec![object(
            "by-key",
            json!({"by": {"header": "x-key"}, "per_s": 0.01, "burst": 1, "scope": {"services": ["notes"]}}),
        )],
        ..Objects::default()
    };
    let rig = rig(notes, objects);
    let (first, second, third) = (
        rig.get("/api/notes/few"),
        rig.get("/api/notes/few"),
        rig.get("/api/notes/few"),
    );
    assert_eq!(
        (
            first.status,
            first.header("x-ratelimit-limit"),
            first.header("x-ratelimit-remaining")
        ),
        (200, Some("2"), Some("1"))
    );
    assert_eq!(
        (second.status, third.status, third.code().as_str()),
        (200, 429, "gateway.rate_limited")
    );
    assert!(
        third.header("retry-after").is_some()
            && third.header("ratelimit").unwrap().contains("r=0")
            && third.header("ratelimit-policy").is_some()
    );
    let keyed = |key| {
        rig.get_with("/api/notes/x", &format!("x-key: {key}\r\n"))
            .status
    };
    assert_eq!(
        (
            keyed("a"),
            keyed("a"),
            keyed("b"),
            rig.get("/api/notes/x").status
        ),
        (200, 429, 200, 200)
    );
    assert!(rig.metric("portico_gateway_limited_total{dimension=\"header\"} 1"));
}

#[test]
fn the_address_limit_spares_loopback_unless_told_and_comes_before_credentials() {
    let backend = Backend::answering("in");
    let services = || vec![service("notes", vec![backend.instance(1, "1")])];
    let settings = vec![
        ("gateway.limit.address_per_s", json!(0.01)),
        ("gateway.limit.loopback", json!(true)),
    ];
    let strict = Rig::with(Setup {
        services: services(),
        settings,
        ..Setup::default()
    });
    assert_eq!(
        strict.get_with("/api/notes", &bearer("rubbish")).status,
        401
    );
    assert_eq!(
        strict.get_with("/api/notes", &bearer("rubbish")).status,
        429
    );
    let spared = Rig::with(Setup {
        services: services(),
        settings: vec![("gateway.limit.address_per_s", json!(0.01))],
        ..Setup::default()
    });
    assert!((0..5).all(|_| spared.get("/api/notes").status == 200));
}

#[test]
fn preflights_are_answered_here() {
    let backend = Backend::answering("in");
    let objects = Objects {
        cors: vec![object(
            "app",
            json!({"origins": ["https://app.example"], "methods": ["PUT"], "headers": ["x-a"], "credentials": true}),
        )],
        ..Objects::default()
    };
    let notes = Service {
        default_access: DefaultAccess::Authenticated,
        ..service("notes", vec![backend.instance(1, "1")])
    };
    let rig = rig(notes, objects);
    let ask = |origin: &str| {
        rig.ask(&format!("OPTIONS /api/notes/1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\norigin: {origin}\r\naccess-control-request-method: PUT\r\naccess-control-request-headers: x-a\r\n\r\n"))
    };
    let good = ask("https://app.example");
    assert_eq!(
        (
            good.status,
            good.header("access-control-allow-origin"),
            good.header("access-control-max-age")
        ),
        (204, Some("https://app.example"), Some("600"))
    );
    assert_eq!(
        ask("https://evil.example").header("access-control-allow-origin"),
        None
    );
    assert_eq!(backend.count(), 0);
    let refused = rig.get_with("/api/notes/1", "origin: https://app.example\r\n");
    assert_eq!(
        (
            refused.status,
            refused.header("access-control-allow-origin")
        ),
        (401, Some("https://app.example")),
        "a script can read our errors too"
    );
}

#[test]
fn networks_blocks_and_maintenance_close_the_door() {
    let backend = Backend::answering("in");
    let services = || vec![service("notes", vec![backend.instance(1, "1")])];
    let route = json!({"path": {"prefix": "/n"}, "target": {"service": {"name": "notes"}}, "access": {"deny": ["127.0.0.0/8"]}});
    let objects = Objects {
        routes: vec![object("n", route)],
        ..Objects::default()
    };
    let denied = Rig::with(Setup {
        services: services(),
        objects,
        ..Setup::default()
    });
    assert_eq!(
        (
            denied.get("/n").code().as_str(),
            denied.get("/api/notes").status
        ),
        ("gateway.address_denied", 200)
    );
    let blocks = Objects {
        blocks: vec![object(
            "b",
            json!({"networks": ["127.0.0.1/32"], "reason": "test"}),
        )],
        ..Objects::default()
    };
    let blocked = Rig::with(Setup {
        services: services(),
        objects: blocks,
        ..Setup::default()
    });
    assert_eq!(blocked.get("/api/notes").code(), "gateway.blocked");
    let settings = vec![(
        "gateway.maintenance",
        json!({"on": true, "message": "back soon"}),
    )];
    let closed = Rig::with(Setup {
        services: services(),
        settings,
        ..Setup::default()
    });
    let reply = closed.get("/api/notes");
    assert_eq!(
        (
            reply.status,
            reply.code().as_str(),
            reply.body.contains("back soon")
        ),
        (503, "gateway.maintenance", true)
    );
    assert_eq!(backend.count(), 1);
}

#[test]
fn bodies_have_a_limit_and_pages_of_strangers_are_sandboxed() {
    let page = Backend::new(|_, _| {
        super::rig::Does::Answer("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nserver: x\r\nx-portico-user: root\r\nset-cookie: portico_at=evil\r\ncontent-length: 2\r\n\r\nhi".into())
    });
    let settings = vec![("gateway.body_max_bytes", json!(10))];
    let rig = Rig::with(Setup {
        services: vec![service("notes", vec![page.instance(1, "1")])],
        settings,
        ..Setup::default()
    });
    let large = rig.post("/api/notes", "12345678901");
    assert_eq!(
        (large.status, large.code().as_str(), page.count()),
        (413, "gateway.body_too_large", 0)
    );
    let reply = rig.get("/api/notes");
    assert_eq!(
        (
            reply.header("x-content-type-options"),
            reply.header("x-frame-options")
        ),
        (Some("nosniff"), Some("DENY"))
    );
    assert!(
        reply
            .header("content-security-policy")
            .unwrap()
            .starts_with("sandbox")
    );
    assert_eq!(
        (
            reply.header("x-portico-user"),
            reply.header("set-cookie"),
            reply.header("server")
        ),
        (None, None, None)
    );
}

#[test]
fn pages_of_strangers_do_not_reach_services_unless_a_rule_lets_them() {
    let backend = Backend::answering("in");
    let rig = rig(
        service("notes", vec![backend.instance(1, "1")]),
        Objects::default(),
    );
    let from = |origin: &str| {
        rig.get_with("/api/notes", &format!("origin: {origin}\r\n"))
            .status
    };
    assert_eq!(
        (from("http://localhost"), from("https://localhost:443")),
        (200, 200)
    );
    assert_eq!(
        (
            from("https://evil.example"),
            from("null"),
            from("http://127.0.0.1"),
            from("http://localhost:81")
        ),
        (403, 403, 403, 403)
    );
    assert_eq!(backend.count(), 2);
}

#[test]
fn a_scope_cannot_be_left_by_writing_the_path_in_another_way() {
    let backend = Backend::answering("in");
    let objects = Objects {
        limits: vec![object(
            "paths",
            json!({"by": "service", "per_s": 0.01, "burst": 1, "scope": {"path_prefix": "/api/notes/dear"}}),
        )],
        ..Objects::default()
    };
    let rig = rig(service("notes", vec![backend.instance(1, "1")]), objects);
    assert_eq!(rig.get("/api/notes/dear").status, 200);
    for path in [
        "/api/notes/dear",
        "/api/notes//dear",
        "/api/notes/%64ear",
        "/api/notes/x/../dear/y",
    ] {
        assert_eq!(rig.get(path).status, 429, "{path}");
    }
    assert_eq!(rig.get("/api/notes/cheap").status, 200);
}
