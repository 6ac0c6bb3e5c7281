//! What operators see and decide: breakers, explanations, the map of the house, its metrics.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use portico_base::SystemClock;
use portico_db::{Db, DbOptions};
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client, skip, token, until};
use crate::raw::{RawServer, answer_always, read_head};
use crate::scaled::Pair;

const IN_TURNS: &str = "[settings]\n\"gateway.lb.policy\" = \"round_robin\"\n";

fn saying(text: &'static str) -> RawServer {
    RawServer::start(move |stream, _| answer_always(stream, text))
}

/// Answers with a status while `broken`, else with 200.
fn failing(status: &'static str, broken: &Arc<AtomicBool>) -> RawServer {
    let broken = Arc::clone(broken);
    RawServer::start(move |mut stream, _| {
        while read_head(&mut stream).is_some() {
            let line = if broken.load(Ordering::SeqCst) {
                status
            } else {
                "200 OK"
            };
            let text = format!("HTTP/1.1 {line}\r\nContent-Length: 4\r\n\r\nweak");
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    })
}

async fn get(house: &House, path: &str) -> Value {
    let answer = house.operate(Method::GET, path, None).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

async fn breaker(house: &House, id: &str) -> Value {
    let list = get(house, "/api/gateway/breakers").await;
    let items = list["items"].as_array().unwrap();
    let found = items.iter().find(|b| b["id"] == id);
    found
        .cloned()
        .unwrap_or_else(|| panic!("no {id} in {list}"))
}

async fn decide(house: &House, id: &str, verb: &str, body: Option<Value>) -> Answer {
    let path = format!("/api/gateway/breakers/{id}/{verb}");
    house.operate(Method::POST, &path, body.as_ref()).await
}

/// Which texts come back from so many requests.
async fn texts(house: &House, path: &str, requests: usize) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..requests {
        let answer = house.get(path).await;
        let text = if answer.status == 200 {
            answer.text
        } else {
            answer.json()["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        if !found.contains(&text) {
            found.push(text);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_breaker_opens_on_an_instance_that_fails_and_tells_why() {
    let house = House::configured(IN_TURNS, &[]);
    let broken = Arc::new(AtomicBool::new(true));
    let (good, bad) = (saying("good"), failing("502 Bad Gateway", &broken));
    house
        .register("pair", good.port(), json!({ "instance_key": "a" }))
        .await;
    let id = house
        .register("pair", bad.port(), json!({ "instance_key": "b" }))
        .await;
    until("its breaker is open", || async {
        house.get("/api/pair/").await;
        breaker(&house, &id).await["state"] == "open"
    })
    .await;
    let seen = breaker(&house, &id).await;
    let reasons = seen["reasons"].as_array().unwrap();
    assert!((5..=10).contains(&reasons.len()), "{seen}");
    assert!(
        reasons
            .iter()
            .all(|r| r["why"] == "502" && r["instance"] == id.as_str()),
        "{seen}"
    );
    assert!(seen["tries_again_ms"].as_u64().unwrap() > 1_000, "{seen}");
    let connections = bad.connections();
    assert_eq!(texts(&house, "/api/pair/", 20).await, ["good"]);
    assert_eq!(bad.connections(), connections, "it is left alone");

    // The event with its reasons is in the outbox.
    let file = house.data_dir().join("portico.db");
    let options = DbOptions::new(format!("sqlite://{}", file.display()));
    let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
    let topics = ["gateway.breaker.changed".to_owned()];
    until("the event is there", || async {
        let rows = db.outbox().read(&topics, 0, 100).await.unwrap();
        rows.iter().any(|row| {
            row.key == id
                && row.payload["to"] == "open"
                && row.payload["reasons"]
                    .as_array()
                    .is_some_and(|r| r.len() >= 5)
        })
    })
    .await;
    db.close().await;
    // It is healed by an operator's word, before its time.
    broken.store(false, Ordering::SeqCst);
    let closed = decide(&house, &id, "close", Some(json!({ "for_s": 60 }))).await;
    assert_eq!(closed.status, 200, "{}", closed.text);
    assert_eq!(closed.json()["breaker"]["state"], "closed");
    assert_eq!(texts(&house, "/api/pair/", 20).await, ["good", "weak"]);
}

#[tokio::test]
async fn what_an_operator_forces_holds_and_outlives_a_restart() {
    let mut house = House::configured(IN_TURNS, &[]);
    let (one, two) = (saying("one"), saying("two"));
    let first = house
        .register("pair", one.port(), json!({ "instance_key": "a" }))
        .await;
    let second = house
        .register("pair", two.port(), json!({ "instance_key": "b" }))
        .await;
    assert_eq!(texts(&house, "/api/pair/", 20).await, ["one", "two"]);

    let wish = Some(json!({ "for_s": 3600, "reason": "it smells" }));
    let forced = decide(&house, &second, "open", wish).await;
    assert_eq!(forced.status, 200, "{}", forced.text);
    let told = forced.json();
    assert_eq!(
        (&told["breaker"]["forced"], &told["scope"]),
        (&json!("open"), &json!("all_replicas"))
    );
    assert!(told["until"].is_string(), "{told}");
    assert_eq!(texts(&house, "/api/pair/", 30).await, ["one"], "at once");
    decide(&house, &first, "open", None).await;
    assert_eq!(
        texts(&house, "/api/pair/", 5).await,
        ["gateway.no_instance"],
        "a person's word counts more than panic"
    );
    decide(&house, &first, "auto", None).await;
    assert_eq!(texts(&house, "/api/pair/", 30).await, ["one"]);

    // The service as a whole, by its name.
    decide(&house, "pair", "open", None).await;
    assert_eq!(
        texts(&house, "/api/pair/", 5).await,
        ["gateway.breaker_open"]
    );
    let given_back = decide(&house, "pair", "auto", None).await.json();
    assert_eq!(
        (&given_back["breaker"]["forced"], &given_back["until"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(texts(&house, "/api/pair/", 30).await, ["one"]);

    assert_eq!(house.stop(), 0, "{}", house.log());
    let house = House::at(Arc::clone(&house.folder), &[]);
    until("the decision is known again", || async {
        breaker(&house, &second).await["forced"] == "open"
    })
    .await;
    assert_eq!(breaker(&house, &first).await["forced"], Value::Null);
    assert_eq!(texts(&house, "/api/pair/", 30).await, ["one"]);
    decide(&house, &second, "auto", None).await;
    assert_eq!(texts(&house, "/api/pair/", 30).await, ["one", "two"]);

    for (id, verb, body, status) in [
        ("nobody", "open", None, 404),
        (&*second, "open", Some(json!({ "for_s": 0 })), 400),
        (&*second, "open", Some(json!({ "for_s": 86_401 })), 400),
        (&*second, "open", Some(json!({ "how": "now" })), 400),
        ("registry", "open", None, 404),
    ] {
        let refused = decide(&house, id, verb, body).await;
        assert_eq!(refused.status, status, "{id}: {}", refused.text);
        assert_eq!(refused.headers["content-type"], "application/problem+json");
    }
}

async fn explained(house: &House, url: &str, principal: &str) -> Value {
    let path = format!(
        "/api/gateway/explain?method=GET&url={}&principal={}",
        encoded(url),
        encoded(principal)
    );
    get(house, &path).await
}

fn encoded(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    text.chars()
        .map(|c| {
            if safe(c) {
                c.to_string()
            } else {
                format!("%{:02X}", u32::from(c))
            }
        })
        .collect()
}

#[tokio::test]
async fn a_request_is_explained_as_it_is_then_answered() {
    let (house, keys) = House::with_users("");
    let notes = saying("notes");
    let endpoints = json!({ "default_access": "authenticated", "endpoints": [
        { "path": "/open", "is_public": true },
        { "path": "/secret", "required_roles": ["chief"], "cache": { "ttl_s": 30 },
          "rate_limit": { "per_s": 1000.0 } },
    ] });
    let id = house.register("notes", notes.port(), endpoints).await;
    let anonymous = explained(&house, "/api/notes/secret", "anonymous").await;
    assert_eq!(
        anonymous["refused"],
        json!({ "status": 401, "code": "identity.token_missing" })
    );
    let steps = anonymous["steps"].as_array().unwrap();
    let last = steps.last().unwrap();
    assert_eq!(
        (&last["step"], &last["passes"]),
        (&json!("access"), &json!(false))
    );
    assert_eq!(house.get("/api/notes/secret").await.status, 401);

    let member = explained(&house, "/api/notes/secret", "user;roles=member").await;
    assert_eq!(member["refused"]["status"], 403, "{member}");
    assert!(member["steps"].to_string().contains("chief"), "{member}");
    let chief = explained(&house, "/api/notes/./secret?x=1", "user;roles=chief").await;
    assert_eq!(chief["refused"], Value::Null, "{chief}");
    assert_eq!(chief["path"], "/api/notes/secret");
    assert_eq!(chief["endpoint"], "* /secret", "{chief}");
    assert_eq!(
        (&chief["version"], &chief["instance"], &chief["cached"]),
        (&json!("1.0.0"), &json!(id), &json!(true))
    );
    assert_eq!(chief["limits"].as_array().map(Vec::len), Some(1), "{chief}");
    for (role, status) in [("member", 403), ("chief", 200)] {
        let url = format!("{}/api/notes/secret", house.http);
        let request = client().get(url).bearer_auth(token(&keys, &[role], ""));
        assert_eq!(answer(request).await.unwrap().status, status, "{role}");
    }
    let open = explained(&house, "/api/notes/open", "anonymous").await;
    assert_eq!(open["refused"], Value::Null);
    assert_eq!(
        explained(&house, "/api/nobody/x", "me").await["refused"]["status"],
        404
    );
    assert_eq!(
        explained(&house, "http://evil.example/", "me").await["refused"]["code"],
        "gateway.unknown_host"
    );
    let built_in = explained(&house, "/api/registry/tokens", "user;roles=chief").await;
    assert_eq!(
        built_in["refused"]["code"], "identity.permission_denied",
        "{built_in}"
    );
    let path = "/api/gateway/explain?url=x&principal=king&method=GET";
    assert_eq!(house.operate(Method::GET, path, None).await.status, 400);
    assert_eq!(
        notes.connections(),
        1,
        "only the request that was sent reached the service"
    );
}

/// Figures of the edge that leads to a node.
fn edge<'v>(map: &'v Value, to: &str) -> Option<&'v Value> {
    map["edges"].as_array()?.iter().find(|e| e["to"] == to)
}

#[tokio::test]
async fn the_map_counts_what_was_sent() {
    let house = House::start(&[]);
    let broken = Arc::new(AtomicBool::new(true));
    let (good, bad) = (saying("good"), failing("500 Oops", &broken));
    let good = (house.register("good", good.port(), json!({})).await, good);
    let bad = (house.register("bad", bad.port(), json!({})).await, bad);
    for _ in 0..40 {
        assert_eq!(house.get("/api/good/x").await.status, 200);
    }
    for _ in 0..7 {
        assert_eq!(house.get("/api/bad/x").await.status, 500);
    }
    let service = |map: &Value, name: &str| -> String {
        let nodes = map["nodes"].as_array().unwrap();
        let found = nodes
            .iter()
            .find(|n| n["kind"] == "service" && n["service"] == name);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let path = "/api/gateway/topology?window=5m";
    until("all of them are counted", || async {
        let map = get(&house, path).await;
        let of = |name| {
            let id = service(&map, name);
            edge(&map, &id).map(|e| e["requests"].as_u64().unwrap_or(0))
        };
        (of("good"), of("bad")) == (Some(40), Some(7))
    })
    .await;
    let map = get(&house, path).await;
    let of_good = edge(&map, &service(&map, "good")).unwrap();
    assert_eq!(
        (&of_good["requests"], &of_good["failed"]),
        (&json!(40), &json!(0))
    );
    for quantile in ["p50_ms", "p95_ms", "p99_ms"] {
        assert!(of_good[quantile].as_f64().unwrap() > 0.0, "{of_good}");
    }
    let instance = edge(&map, &format!("instance:{}", good.0)).unwrap();
    assert_eq!(
        (&instance["requests"], &instance["what"]),
        (&json!(40), &json!("attempts"))
    );
    let of_bad = edge(&map, &format!("instance:{}", bad.0)).unwrap();
    assert_eq!(
        (&of_bad["requests"], &of_bad["failed"]),
        (&json!(7), &json!(7))
    );
    assert_eq!(of_bad["error_rate"], 1.0);
    assert_eq!(
        (&map["complete"], &map["window_s"]),
        (&json!(true), &json!(300))
    );
    assert_eq!(map["replicas"][0]["own"], true, "{map}");
    let routes = map["routes"].as_array().unwrap();
    assert!(
        routes
            .iter()
            .any(|r| r["service"] == "good" && r["route"] == "api" && r["requests"] == 40),
        "{map}"
    );
    let refused = house
        .operate(Method::GET, "/api/gateway/topology?window=2h", None)
        .await;
    assert_eq!(
        (refused.status, &refused.json()["errors"][0]["field"]),
        (400, &json!("window"))
    );
}

/// One event of a stream.
#[derive(Debug)]
struct Event {
    name: String,
    data: Value,
}

struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(house: &House) -> Self {
        let request = client()
            .get(format!("{}/api/gateway/live", house.http))
            .bearer_auth(house.operator());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|l| l.strip_prefix(name));
                    line.unwrap_or_default().to_owned()
                };
                let found = Event {
                    name: field("event: "),
                    data: serde_json::from_str(&field("data: ")).unwrap_or_default(),
                };
                self.text = rest.to_owned();
                if !found.name.is_empty() {
                    return Some(found);
                }
                continue;
            }
            let wait = Duration::from_secs(20);
            let chunk = tokio::time::timeout(wait, self.response.chunk()).await;
            let chunk = chunk.expect("something comes each second").ok()??;
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// The first event that fits, with the number of events until then.
    async fn until(&mut self, what: &str, fits: impl Fn(&Event) -> bool) -> (Event, usize) {
        for seen in 1..=20 {
            let event = self.next().await.expect("the stream goes on");
            if fits(&event) {
                return (event, seen);
            }
        }
        panic!("not in 20 events: {what}");
    }
}

fn happened(event: &Event, kind: &str, service: &str) -> bool {
    let all = event.data["happenings"].as_array();
    all.is_some_and(|h| {
        h.iter()
            .any(|h| h["kind"] == kind && h["service"] == service)
    })
}

#[tokio::test]
async fn who_watches_sees_it_within_two_seconds_until_the_house_closes() {
    let mut house = House::start(&[]);
    let mut events = Events::open(&house).await;
    let first = events.next().await.unwrap();
    assert_eq!(first.name, "map");
    assert!(
        first.data["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| n["id"] == "gateway"),
        "{first:?}"
    );
    let hello = saying("hello");
    let id = house.register("hello", hello.port(), json!({})).await;
    let node = format!("instance:{id}");
    let (came, _) = events
        .until("the registration", |e| {
            happened(e, "instance.registered", "hello")
        })
        .await;
    assert!(
        came.data["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| n["id"] == node.as_str() && n["state"] == "ready"),
        "{came:?}"
    );
    for _ in 0..5 {
        assert_eq!(house.get("/api/hello/").await.text, "hello");
    }
    // Frames that were under way may come first; then each is of one second.
    let mut requests = 0;
    let mut frames = 0;
    while requests < 5 {
        let (step, seen) = events
            .until("the requests", |e| edge(&e.data, &node).is_some())
            .await;
        frames += seen;
        requests += edge(&step.data, &node).unwrap()["requests"]
            .as_u64()
            .unwrap();
    }
    assert!(frames <= 3, "{frames} frames");
    assert_eq!(requests, 5);

    decide(&house, &id, "open", None).await;
    events
        .until("the breaker", |e| happened(e, "breaker.changed", "hello"))
        .await;
    let now = json!({ "now": true });
    let path = format!("/api/registry/deregister/{id}");
    house.operate(Method::POST, &path, Some(&now)).await;
    events
        .until("it left", |e| {
            happened(e, "instance.removed", "hello")
                || happened(e, "instance.state_changed", "hello")
        })
        .await;
    house.signal(Signal::SIGTERM);
    let (_, _) = events.until("the end", |e| e.name == "end").await;
    assert!(events.next().await.is_none());
    assert_eq!(house.wait(), 0, "{}", house.log());
}

#[tokio::test]
async fn only_so_many_watch_at_once() {
    let house = House::start(&[]);
    let mut all = Vec::new();
    for _ in 0..64 {
        all.push(Events::open(&house).await);
    }
    let refused = house.operate(Method::GET, "/api/gateway/live", None).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (429, Some("gateway.too_many_watchers"))
    );
    drop(all);
    until("a place is free", || async {
        let request = client()
            .get(format!("{}/api/gateway/live", house.http))
            .bearer_auth(house.operator());
        request.send().await.unwrap().status() == 200
    })
    .await;
}

/// The names of §9, with a label of each that must be there.
const FAMILIES: [&str; 22] = [
    "portico_gateway_requests_total{service=\"hello\"",
    "portico_gateway_request_seconds_bucket{service=\"hello\"",
    "portico_gateway_upstream_seconds_bucket{service=\"hello\"",
    "portico_gateway_in_flight{service=\"hello\"",
    "portico_gateway_connections{proto=\"http\"",
    "portico_gateway_bytes_total{direction=\"out\"",
    "portico_gateway_retry_budget_exhausted_total",
    "portico_gateway_pool_connections{service=\"hello\",state=\"idle\"",
    "portico_gateway_pool_reuse_failures_total",
    "portico_gateway_breaker_state{service=\"hello\"",
    "portico_gateway_panic_mode{service=\"hello\"",
    "portico_gateway_ejections_total{service=\"weak\"",
    "portico_gateway_cache_requests_total{route=\"api\",level=",
    "portico_gateway_cache_bytes{level=\"l1\"",
    "portico_gateway_cache_entries{level=\"l1\"",
    "portico_gateway_singleflight_waiters",
    "portico_gateway_stale_served_total",
    "portico_gateway_snapshot_build_seconds_bucket",
    "portico_gateway_snapshot_age_seconds",
    "portico_gateway_snapshot_seq",
    "portico_gateway_worker_busy_ratio{worker=\"0\"",
    "portico_gateway_certificate_expiry_seconds{name=\"cert\"",
];

#[tokio::test]
async fn the_metrics_are_those_of_the_specification_and_promtool_reads_them() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(
        folder.path().join("key.pem"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    let text = "[listen]\nhttps = \"127.0.0.1:0\"\n[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n";
    std::fs::write(folder.path().join("portico.toml"), text).unwrap();
    let house = House::at(folder, &[]);
    let hello = RawServer::start(|mut stream, _| {
        while read_head(&mut stream).is_some() {
            let text =
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhi";
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    });
    let weak = failing("502 Bad Gateway", &Arc::new(AtomicBool::new(true)));
    house.register("hello", hello.port(), json!({})).await;
    house.register("weak", weak.port(), json!({})).await;
    until("every family has its figures", || async {
        house.get("/api/hello/").await;
        house.get("/api/weak/").await;
        let text = metrics(&house).await;
        FAMILIES
            .iter()
            .all(|name| text.lines().any(|line| line.starts_with(name)))
    })
    .await;
    let text = metrics(&house).await;
    let expiry = house
        .metric("portico_gateway_certificate_expiry_seconds{name=\"cert\"")
        .await;
    assert!(expiry > 86_400.0, "{expiry}");
    let idle = house
        .metric("portico_gateway_pool_connections{service=\"hello\",state=\"idle\"")
        .await;
    assert!((1.0..=16.0).contains(&idle), "{idle}");
    for name in text
        .lines()
        .filter(|l| l.starts_with("portico_gateway_worker_busy_ratio{"))
    {
        let share: f64 = name.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((0.0..=1.0).contains(&share), "{name}");
    }
    promtool(&text);
}

async fn metrics(house: &House) -> String {
    let request = client().get(format!("{}/metrics", house.admin));
    answer(request).await.unwrap().text
}

fn promtool(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        return skip("promtool is not installed");
    };
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn two_replicas_count_together_and_obey_together() {
    let Some(pair) = Pair::start() else { return };
    let (first, second) = (&pair.first, &pair.second);
    let (one, two) = (saying("one"), saying("two"));
    let id = first
        .register("pair", one.port(), json!({ "instance_key": "a" }))
        .await;
    first
        .register("pair", two.port(), json!({ "instance_key": "b" }))
        .await;
    until("both know the service", || async {
        second.get("/api/pair/").await.status == 200 && first.get("/api/pair/").await.status == 200
    })
    .await;
    let sent = |map: &Value| {
        let nodes = map["nodes"].as_array().unwrap();
        let node = nodes
            .iter()
            .find(|n| n["kind"] == "service" && n["service"] == "pair");
        let id = node.map(|n| n["id"].as_str().unwrap().to_owned());
        id.and_then(|id| edge(map, &id)?["requests"].as_u64())
    };
    for _ in 0..20 {
        first.get("/api/pair/").await;
        second.get("/api/pair/").await;
    }
    let path = "/api/gateway/topology?window=15m";
    until("each counts what both served", || async {
        let (a, b) = (get(first, path).await, get(second, path).await);
        let enough = sent(&a) >= Some(42) && sent(&a) == sent(&b);
        enough && a["complete"] == true && a["replicas"].as_array().map(Vec::len) == Some(2)
    })
    .await;
    let mut watching = Events::open(second).await;
    let forced = decide(first, &id, "open", Some(json!({ "for_s": 600 }))).await;
    assert_eq!(forced.status, 200, "{}", forced.text);
    until("the other obeys", || async {
        breaker(second, &id).await["forced"] == "open"
    })
    .await;
    assert_eq!(texts(second, "/api/pair/", 20).await, ["two"]);
    watching
        .until("who watches there is told", |e| {
            happened(e, "breaker.changed", "pair")
        })
        .await;
    decide(second, &id, "auto", None).await;
    until("and both forget it", || async {
        breaker(first, &id).await["forced"] == Value::Null
    })
    .await;
}

#[tokio::test]
async fn pools_take_new_limits_without_a_restart() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("portico.toml");
    let house = House::at(Arc::clone(&folder), &[]);
    let hello = saying("hello");
    house.register("hello", hello.port(), json!({})).await;
    for _ in 0..20 {
        house.get("/api/hello/").await;
    }
    let kept = hello.connections();
    assert!(kept < 20, "connections are used again: {kept}");
    let text = "[settings]\n\"gateway.pool.idle_per_instance\" = 0\n";
    std::fs::write(&file, text).unwrap();
    house.signal(Signal::SIGHUP);
    until("every request has a connection of its own", || async {
        let before = hello.connections();
        for _ in 0..10 {
            house.get("/api/hello/").await;
        }
        hello.connections() == before + 10
    })
    .await;
}

#[tokio::test]
async fn breakers_and_retries_take_new_settings_without_a_restart() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("portico.toml");
    let lenient = "[settings]\n\"gateway.breaker.failures\" = 1000\n\"gateway.breaker.min_requests\" = 100000\n";
    std::fs::write(&file, lenient).unwrap();
    let house = House::at(Arc::clone(&folder), &[]);
    let weak = failing("502 Bad Gateway", &Arc::new(AtomicBool::new(true)));
    let id = house.register("weak", weak.port(), json!({})).await;
    assert_eq!(
        texts(&house, "/api/weak/", 30).await,
        [""],
        "the service's own 502"
    );
    assert_eq!(breaker(&house, &id).await["state"], "closed");
    let strict = "[settings]\n\"gateway.breaker.failures\" = 2\n\"gateway.breaker.open_s\" = 300\n";
    std::fs::write(&file, strict).unwrap();
    house.signal(Signal::SIGHUP);
    until("two failures are enough", || async {
        house.get("/api/weak/").await;
        breaker(&house, &id).await["state"] == "open"
    })
    .await;
    let left = breaker(&house, &id).await["tries_again_ms"]
        .as_u64()
        .unwrap();
    assert!(
        left > 200_000,
        "it stays open for as long as is set: {left}"
    );
}
