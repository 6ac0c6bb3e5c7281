//! What a service gets, what a client gets, and where requests go.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use portico_base::{Caller, Secret};
use portico_contract::directory::{CacheHint, Instance};
use serde_json::json;

use super::rig::{Backend, Does, Rig, Setup, object, ok, service};
use crate::objects::Objects;
use crate::pipeline::Builtins;
use crate::route::service::fixture::endpoint;

#[test]
fn a_service_gets_exactly_its_path_and_nothing_forged() {
    let backend = Backend::answering("hi");
    let signed = Instance {
        secret: Some(Arc::new(Secret::new("pis_test".to_owned()))),
        base_path: "/v1".into(),
        ..backend.instance(1, "1")
    };
    let rig = Rig::new(vec![service("hello", vec![signed])]);
    let forged = "X-Portico-User: root\r\nX_Portico_User: root\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Original-URL: /admin\r\nAuthorization: Basic YTpi\r\nCookie: a=1; portico_at=s\r\nX-Request-Id: forged-0001\r\n";
    let reply = rig.get_with("/api/hello/a%2Fb//c/./d?q=%20x&y", forged);
    assert_eq!((reply.status, reply.body.as_str()), (200, "hi"));
    let seen = backend.last();
    assert_eq!(seen.line(), "GET /v1/a%2Fb/c/d?q=%20x&y HTTP/1.1");
    assert_eq!(
        seen.all("x-portico-user"),
        [""],
        "there once, and empty for nobody"
    );
    assert_eq!(
        (
            seen.header("x-forwarded-for"),
            seen.header("x-forwarded-proto"),
            seen.header("host")
        ),
        (Some("127.0.0.1"), Some("http"), Some("localhost"))
    );
    for gone in [
        "x_portico_user",
        "forwarded",
        "x-original-url",
        "authorization",
    ] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(
        (seen.header("cookie"), seen.header("via")),
        (Some("a=1"), Some("1.1 portico"))
    );
    assert!(
        seen.header("x-portico-signature")
            .unwrap()
            .starts_with("v1=")
            && seen.header("x-portico-timestamp").is_some()
    );
    assert_eq!(seen.header("traceparent").map(str::len), Some(55));
    let id = reply.header("x-request-id").unwrap();
    assert_eq!(
        (
            id.len(),
            seen.header("x-portico-request-id"),
            seen.header("x-request-id")
        ),
        (36, Some(id), Some(id))
    );
    assert!(rig.metric("portico_gateway_requests_total{service=\"hello\",route=\"api\",method=\"GET\",status_class=\"2xx\"}"));
}

#[test]
fn a_trusted_proxy_is_believed() {
    let backend = Backend::answering("hi");
    let setup = Setup {
        services: vec![service("hello", vec![backend.instance(1, "1")])],
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..Setup::default()
    };
    let rig = Rig::with(setup);
    let reply = rig.get_with("/api/hello", "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Request-Id: given-0001\r\nX-Portico-User: root\r\n");
    assert_eq!(reply.header("x-request-id"), Some("given-0001"));
    let seen = backend.last();
    assert_eq!(
        (
            seen.line(),
            seen.header("x-forwarded-for"),
            seen.header("x-real-ip")
        ),
        (
            "GET / HTTP/1.1",
            Some("203.0.113.9, 127.0.0.1"),
            Some("203.0.113.9")
        )
    );
    assert_eq!(
        (seen.header("x-forwarded-proto"), seen.all("x-portico-user")),
        (Some("https"), vec![""])
    );
}

#[test]
fn what_is_not_there_is_said() {
    let backend = Backend::answering("hi");
    let off = portico_contract::directory::Service {
        enabled: false,
        ..service("off", vec![backend.instance(2, "1")])
    };
    let rig = Rig::new(vec![
        service("hello", vec![backend.instance(1, "1.4.0")]),
        service("empty", vec![]),
        off,
    ]);
    for (path, status, code) in [
        ("/api/nobody", 404, "gateway.service_not_found"),
        ("/api/empty/x", 503, "gateway.no_instance"),
        ("/api/off/x", 403, "gateway.service_disabled"),
        ("/api/hello@7/x", 404, "gateway.version_not_found"),
        ("/api/hello/../empty", 400, "gateway.bad_path"),
        ("/api/hello/%00", 400, "gateway.bad_path"),
        ("/nothing", 404, "gateway.not_found"),
    ] {
        let reply = rig.get(path);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{path}"
        );
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json"),
            "{path}"
        );
        assert!(
            reply.body.contains(reply.header("x-request-id").unwrap()),
            "{path}"
        );
    }
    assert_eq!(rig.get("/api/empty").header("retry-after"), Some("1"));
    assert_eq!(rig.get("/api/hello@1.4/x").status, 200);
    assert_eq!(
        rig.get_with("/api/hello/x", "X-Service-Version: 2\r\n")
            .status,
        404
    );
    let strange =
        rig.ask("GET /api/hello HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n\r\n");
    assert_eq!(
        (strange.status, strange.code().as_str()),
        (421, "gateway.unknown_host")
    );
    assert_eq!(
        rig.ask("TRACE /api/hello HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .status,
        405
    );
    assert_eq!(
        backend.count(),
        1,
        "nothing of this reached a service but the good one"
    );
}

#[test]
fn written_routes_rewrite_redirect_and_answer() {
    let backend = Backend::answering("shop");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.txt"), "a file").unwrap();
    let route = |name: &str, doc: serde_json::Value| object(name, doc);
    let objects = Objects {
        version: 1,
        routes: vec![
            route(
                "shop",
                json!({"path": {"prefix": "/shop"}, "target": {"service": {"name": "shop"}}, "rewrite": {"prefix": "/"}}),
            ),
            route(
                "item",
                json!({"path": {"pattern": "/i/{id}"}, "target": {"service": {"name": "shop"}}, "rewrite": {"path": "/items/{id}/show"}}),
            ),
            route(
                "old",
                json!({"path": {"prefix": "/old"}, "target": {"redirect": {"to": "https://new.example{path}?{query}", "status": 301}}}),
            ),
            route(
                "teapot",
                json!({"path": {"exact": "/tea"}, "target": {"fixed": {"status": 418, "body": "short and stout"}}}),
            ),
            route(
                "files",
                json!({"path": {"prefix": "/files"}, "target": {"directory": {"path": directory.path().to_str().unwrap()}}}),
            ),
            route(
                "host",
                json!({"hosts": ["*.shop.example"], "path": {"prefix": "/"}, "target": {"service": {"name": "shop"}}}),
            ),
        ],
        transforms: vec![object(
            "t",
            json!({"scope": {"routes": ["shop"]}, "request_headers": {"set": {"X-Id": "{request.id}"}}, "response_headers": {"set": {"X-Out": "1"}}, "query": {"remove": ["gone"]}}),
        )],
        ..Objects::default()
    };
    let setup = Setup {
        services: vec![service("shop", vec![backend.instance(1, "1")])],
        objects,
        file_roots: vec![directory.path().to_owned()],
        ..Setup::default()
    };
    let rig = Rig::with(setup);
    let shop = rig.get("/shop/a%20b?x=1&gone=2");
    assert_eq!((shop.status, shop.header("x-out")), (200, Some("1")));
    assert_eq!(
        (backend.last().line(), backend.last().header("x-id")),
        ("GET /a%20b?x=1 HTTP/1.1", shop.header("x-request-id"))
    );
    assert_eq!(rig.get("/i/7%2F8").status, 200);
    assert_eq!(backend.last().line(), "GET /items/7%2F8/show HTTP/1.1");
    let old = rig.get("/old/x?y=1");
    assert_eq!(
        (old.status, old.header("location")),
        (301, Some("https://new.example/old/x?y=1"))
    );
    let tea = rig.get("/tea");
    assert_eq!((tea.status, tea.body.as_str()), (418, "short and stout"));
    assert_eq!(rig.get("/files/a.txt").body, "a file");
    assert_eq!(
        rig.get("/files/../shop").status,
        400,
        "a path may not climb out of its route"
    );
    let bound = rig.ask("GET /x HTTP/1.1\r\nhost: a.shop.example:80\r\nconnection: close\r\n\r\n");
    assert_eq!(bound.status, 200);
    rig.set_objects(Objects {
        version: 2,
        ..Objects::default()
    });
    assert_eq!(rig.get("/shop/x").status, 404, "a change needs no restart");
}

#[test]
fn built_in_services_answer_here_and_what_they_change_is_in_use() {
    let backend = Backend::answering("new");
    let port = backend.port;
    let fake: Arc<std::sync::OnceLock<Arc<super::rig::Fake>>> = Arc::default();
    let registering = Arc::clone(&fake);
    let router = Router::new()
        .route(
            "/who",
            get(|caller: axum::Extension<Caller>| async move {
                format!(
                    "{} {}",
                    caller.principal.kind.as_str(),
                    caller.direct_loopback
                )
            }),
        )
        .route(
            "/panics",
            get(move || async move {
                if port > 0 {
                    panic!("on purpose")
                }
            }),
        )
        .route(
            "/register",
            post(move || {
                let fake = Arc::clone(&registering);
                async move {
                    let instance = crate::route::service::fixture::instance(1, "1", port);
                    fake.get()
                        .unwrap()
                        .set(vec![service("fresh", vec![instance])]);
                }
            }),
        );
    let builtins = Builtins {
        services: [("registry", router)].into(),
        roots: vec![(
            "/docs",
            Router::new().route("/docs/a", get(|| async { "docs" })),
        )],
    };
    let rig = Rig::with(Setup {
        builtins,
        ..Setup::default()
    });
    assert!(fake.set(Arc::clone(&rig.fake)).is_ok());
    assert_eq!(rig.get("/api/registry/who").body, "anonymous true");
    assert_eq!(rig.get("/docs/a").body, "docs");
    let panicked = rig.get("/api/registry/panics");
    assert_eq!(
        (panicked.status, panicked.code().as_str()),
        (500, "system.internal")
    );
    assert_eq!(rig.get("/api/fresh/x").status, 404);
    for _ in 0..20 {
        rig.set(vec![]);
        assert_eq!(rig.post("/api/registry/register", "").status, 200);
        assert_eq!(
            rig.get("/api/fresh/x").body,
            "new",
            "what was answered is routable"
        );
    }
}

#[test]
fn releases_divide_the_traffic() {
    let (one, two) = (Backend::answering("one"), Backend::answering("two"));
    let services = || {
        vec![service(
            "hello",
            vec![one.instance(1, "1.0.0"), two.instance(2, "2.0.0")],
        )]
    };
    let rig = Rig::new(services());
    assert_eq!(
        rig.get("/api/hello").body,
        "two",
        "the highest without a release"
    );
    let release = |doc| Objects {
        version: 2,
        releases: vec![object("hello", doc)],
        ..Objects::default()
    };
    rig.set_objects(release(json!({"stable": "1.0.0", "candidate": {"version": "2.0.0", "weight": 0, "matchers": [{"header": {"name": "x-beta"}}]}})));
    assert_eq!(rig.get("/api/hello").body, "one");
    assert_eq!(rig.get_with("/api/hello", "x-beta: 1\r\n").body, "two");
    assert_eq!(rig.get("/api/hello@2").body, "two");
    rig.set_objects(release(json!({"stable": "1.0.0", "candidate": {"version": "2.0.0", "weight": 50}, "sticky": "none"})));
    let twos = (0..100)
        .filter(|_| rig.get("/api/hello").body == "two")
        .count();
    assert!((25..75).contains(&twos), "{twos}");
}

#[test]
fn declared_endpoints_are_cached_and_a_change_invalidates() {
    let backend = Backend::new(|seen, n| {
        Does::Answer(if seen.line().starts_with("POST") {
            ok("done")
        } else {
            ok(&format!("answer {n}"))
        })
    });
    let cached = portico_contract::directory::Endpoint {
        cache: Some(CacheHint {
            ttl_s: 60,
            per_user: false,
            stale_while_revalidate_s: 0,
        }),
        is_public: true,
        ..endpoint(Some("GET"), "/list")
    };
    let clock = portico_contract::directory::Service {
        endpoints: Arc::from([cached]),
        ..service("clock", vec![backend.instance(1, "1")])
    };
    let rig = Rig::new(vec![clock]);
    let (first, second) = (rig.get("/api/clock/list"), rig.get("/api/clock/list"));
    assert_eq!(
        (first.body.as_str(), first.header("x-cache")),
        ("answer 0", Some("MISS"))
    );
    assert_eq!(
        (
            second.body.as_str(),
            second.header("x-cache"),
            second.header("age").is_some()
        ),
        ("answer 0", Some("L1"), true)
    );
    assert_eq!(rig.get("/api/clock/other").body, "answer 1");
    assert_eq!(rig.post("/api/clock/list", "x").body, "done");
    assert_eq!(
        rig.get("/api/clock/list").body,
        "answer 3",
        "an unsafe request takes it out"
    );
}

#[test]
fn a_service_that_never_speaks_of_caching_is_not_asked_until_it_does() {
    let backend = Backend::new(|_, n| {
        let caching = if n >= 70 {
            "cache-control: max-age=60\r\n"
        } else {
            ""
        };
        Does::Answer(format!(
            "HTTP/1.1 200 OK\r\n{caching}content-length: 2\r\n\r\nhi"
        ))
    });
    let rig = Rig::new(vec![service("hello", vec![backend.instance(1, "1")])]);
    for _ in 0..71 {
        assert_eq!(rig.get("/api/hello/x").header("x-cache"), Some("MISS"));
    }
    let told = rig.get("/api/hello/x");
    assert_eq!(
        (told.header("x-cache"), backend.count()),
        (Some("MISS"), 72),
        "the first answer that spoke was not kept, the next is"
    );
    assert_eq!(
        (rig.get("/api/hello/x").header("x-cache"), backend.count()),
        (Some("L1"), 72)
    );
}

#[test]
fn protocols_are_switched_and_event_streams_flow() {
    let socket = Backend::new(|_, _| {
        Does::Answer("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nPUSHED".into())
    });
    let events = Backend::new(|_, _| {
        Does::Answer("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n0\r\n\r\n".into())
    });
    let rig = Rig::new(vec![
        service("ws", vec![socket.instance(1, "1")]),
        service("sse", vec![events.instance(2, "1")]),
    ]);
    let mut stream = std::net::TcpStream::connect(rig.address).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    std::io::Write::write_all(&mut stream, b"GET /api/ws/chat HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n").unwrap();
    let mut got = String::new();
    while !got.ends_with("PUSHED") {
        let mut chunk = [0; 1024];
        let n = std::io::Read::read(&mut stream, &mut chunk).unwrap();
        assert!(n > 0, "closed after {got}");
        got.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    assert!(
        got.starts_with("HTTP/1.1 101 ") && got.contains("sec-websocket-accept: x"),
        "{got}"
    );
    let seen = socket.last();
    assert_eq!(
        (
            seen.header("upgrade"),
            seen.header("sec-websocket-key"),
            seen.all("x-portico-user")
        ),
        (Some("websocket"), Some("k"), vec![""])
    );
    let reply = rig.get_with("/api/sse/x", "accept: text/event-stream\r\n");
    assert_eq!(
        (
            reply.status,
            reply.header("x-accel-buffering"),
            reply.body.contains("data: 1")
        ),
        (200, Some("no"), true)
    );
    assert_eq!(rig.in_flight(), 1, "the open socket counts as load");
}
