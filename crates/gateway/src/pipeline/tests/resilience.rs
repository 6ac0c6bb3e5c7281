//! Instances that die, hang, answer garbage: what clients see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use portico_contract::directory::{Endpoint, Observation, Service};
use serde_json::json;

use super::rig::{Backend, Does, Rig, Setup, ok, service};
use crate::balance::Forced;
use crate::pipeline::operate::Audience;
use crate::route::service::fixture::endpoint;

#[test]
fn killing_an_instance_shows_no_error_to_idempotent_requests() {
    let (one, two, three) = (
        Backend::answering("x"),
        Backend::answering("x"),
        Backend::answering("x"),
    );
    // In turns, so that the one that dies is certainly asked again.
    let rig = Rig::with(Setup {
        services: vec![service(
            "hello",
            vec![
                one.instance(1, "1"),
                two.instance(2, "1"),
                three.instance(3, "1"),
            ],
        )],
        settings: vec![("gateway.lb.policy", json!("round_robin"))],
        ..Setup::default()
    });
    for round in 0..150 {
        if round == 50 {
            two.kill();
        }
        let reply = rig.get("/api/hello");
        assert_eq!(reply.status, 200, "round {round}: {}", reply.body);
    }
    assert!(two.count() > 0 && one.count() + three.count() > 100);
    let told = rig.fake.seen.lock().clone();
    assert!(
        told.contains(&(uuid::Uuid::from_u128(2), Observation::ConnectFailed)),
        "the registry hears of it: {told:?}"
    );
    one.kill();
    three.kill();
    let mut last = rig.get("/api/hello");
    for _ in 0..10 {
        last = rig.get("/api/hello");
    }
    assert!(matches!(last.status, 502 | 503), "{}", last.status);
    rig.set(vec![service("hello", vec![])]);
    let gone = rig.get("/api/hello");
    assert_eq!(
        (gone.status, gone.header("retry-after").is_some()),
        (503, true)
    );
}

#[test]
fn a_post_is_not_sent_twice_and_a_keyed_one_is_where_declared() {
    let broken = || Backend::new(|_, _| Does::Close);
    let (a, b) = (broken(), broken());
    let rig = Rig::new(vec![service(
        "hello",
        vec![a.instance(1, "1"), b.instance(2, "1")],
    )]);
    let reply = rig.post("/api/hello", "pay 5");
    assert_eq!(
        (reply.status, reply.code().as_str(), a.count() + b.count()),
        (502, "gateway.upstream_unreachable", 1)
    );
    let (a, b) = (broken(), broken());
    let keyed = Endpoint {
        is_public: true,
        idempotency_key: true,
        ..endpoint(Some("POST"), "/pay")
    };
    let pay = Service {
        endpoints: Arc::from([keyed]),
        ..service("pay", vec![a.instance(1, "1"), b.instance(2, "1")])
    };
    let rig = Rig::new(vec![pay]);
    rig.ask("POST /api/pay/pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k1\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi");
    assert_eq!(
        a.count() + b.count(),
        2,
        "declared to support it: tried on another"
    );
}

#[test]
fn poor_answers_are_tried_on_another_instance() {
    let poor = Backend::new(|_, _| {
        Does::Answer("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".into())
    });
    let good = Backend::answering("good");
    let rig = Rig::new(vec![service(
        "hello",
        vec![poor.instance(1, "1"), good.instance(2, "1")],
    )]);
    assert!((0..30).all(|_| rig.get("/api/hello").status == 200));
    assert!(
        poor.count() >= 1
            && rig.metric("portico_gateway_retries_total{service=\"hello\",result=\"made\"}")
    );
    let asks = Backend::new(|_, _| {
        Does::Answer(
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n"
                .into(),
        )
    });
    let rig = Rig::new(vec![service("hello", vec![asks.instance(1, "1")])]);
    let reply = rig.get("/api/hello");
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("30")),
        "what it asks for is passed on"
    );
}

#[test]
fn garbage_silence_and_lies_are_told_apart() {
    let garbage = Backend::new(|_, _| Does::Answer("SPAM SPAM\r\n\r\n".into()));
    let silent = Backend::new(|_, _| Does::Hang);
    let short = Backend::new(|_, _| {
        Does::Answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".into())
    });
    let services = vec![
        service("garbage", vec![garbage.instance(1, "1")]),
        service("silent", vec![silent.instance(2, "1")]),
        service("short", vec![short.instance(3, "1")]),
        service(
            "closed",
            vec![crate::route::service::fixture::instance(4, "1", 1)],
        ),
    ];
    let settings = vec![
        ("gateway.timeouts.first_byte_ms", json!(300)),
        ("gateway.timeouts.between_bytes_ms", json!(300)),
    ];
    let rig = Rig::with(Setup {
        services,
        settings,
        ..Setup::default()
    });
    for (name, status, code) in [
        ("garbage", 502, "gateway.upstream_invalid"),
        ("silent", 504, "gateway.upstream_timeout"),
        ("closed", 502, "gateway.upstream_unreachable"),
    ] {
        let reply = rig.get(&format!("/api/{name}"));
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{name}"
        );
    }
    let cut = rig.get("/api/short");
    assert!(cut.body.len() < 100, "a short body is cut, never filled up");
}

#[test]
fn a_service_that_always_fails_is_left_alone_and_comes_back() {
    let broken = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&broken);
    let backend = Backend::new(move |_, _| {
        if flag.load(SeqCst) {
            Does::Close
        } else {
            Does::Answer(ok("back"))
        }
    });
    let rig = Rig::with(Setup {
        services: vec![service("hello", vec![backend.instance(1, "1")])],
        settings: vec![("gateway.breaker.open_s", json!(1))],
        ..Setup::default()
    });
    let codes: Vec<String> = (0..8).map(|_| rig.get("/api/hello").code()).collect();
    assert_eq!(
        (codes[0].as_str(), codes[7].as_str()),
        ("gateway.upstream_unreachable", "gateway.breaker_open")
    );
    let tried = backend.count();
    let open = rig.get("/api/hello");
    assert_eq!(
        (
            open.status,
            open.header("retry-after").is_some(),
            backend.count()
        ),
        (503, true, tried),
        "it is not even asked"
    );
    broken.store(false, SeqCst);
    // The breaker's time is a second of the real clock here; every request until then is refused at once.
    let began = std::time::Instant::now();
    while rig.get("/api/hello").status != 200 {
        assert!(began.elapsed().as_secs() < 10, "it never came back");
        std::thread::yield_now();
    }
}

#[test]
fn deadlines_travel_and_expired_requests_do_not() {
    let backend = Backend::answering("in");
    let silent = Backend::new(|_, _| Does::Hang);
    let rig = Rig::new(vec![
        service("hello", vec![backend.instance(1, "1")]),
        service("silent", vec![silent.instance(2, "1")]),
    ]);
    assert_eq!(
        rig.get_with("/api/hello", "X-Portico-Deadline-Ms: 5000\r\n")
            .status,
        200
    );
    let left: u64 = backend
        .last()
        .header("x-portico-deadline-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=5000).contains(&left));
    let expired = rig.get_with("/api/hello", "X-Portico-Deadline-Ms: 0\r\n");
    assert_eq!(
        (expired.status, expired.code().as_str(), backend.count()),
        (504, "gateway.deadline_exceeded", 1)
    );
    assert_eq!(
        rig.get_with("/api/silent", "X-Portico-Deadline-Ms: 200\r\n")
            .status,
        504
    );
}

#[test]
fn an_operator_forces_a_breaker_and_takes_it_back() {
    let backend = Backend::answering("in");
    let rig = Rig::new(vec![service("hello", vec![backend.instance(1, "1")])]);
    let all = || rig.gate.breakers(Audience::All);
    let (own, instance) = (all()[0].id, all()[1].id);
    rig.gate.force_breaker(own, Some(Forced::Open), 60_000);
    assert_eq!(rig.get("/api/hello").code(), "gateway.breaker_open");
    let seen = all();
    assert_eq!(
        (seen.len(), seen[0].forced, seen[0].state, seen[1].kind),
        (2, Some("open"), "open", "instance")
    );
    rig.gate.force_breaker(own, None, 0);
    assert_eq!(rig.get("/api/hello").status, 200);
    rig.gate.force_breaker(instance, Some(Forced::Open), 60_000);
    assert_eq!(rig.get("/api/hello").code(), "gateway.no_instance");
    assert_eq!(backend.count(), 1, "nothing came through in between");

    // What is decided holds for what comes later under the same id.
    let later = uuid::Uuid::from_u128(2);
    rig.gate.force_breaker(later, Some(Forced::Open), 60_000);
    let two = vec![backend.instance(1, "1"), backend.instance(2, "1")];
    rig.set(vec![service("hello", two)]);
    assert_eq!(rig.get("/api/hello").code(), "gateway.no_instance");
    rig.gate.force_breaker(later, None, 0);
    assert_eq!(rig.get("/api/hello").status, 200);
    assert_eq!(rig.gate.breaker(later).map(|b| b.forced), Some(None));
}
