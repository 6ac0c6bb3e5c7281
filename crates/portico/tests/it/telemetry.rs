//! What the process tells of itself: spans at a collector, series within their budget, a reload of the target.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use portico_testkit::TestKeys;
use prost::Message as _;
use reqwest::Method;
use serde_json::json;

use crate::house::{House, answer, client, command, token, until};
use crate::recorder::Recorder;

/// A span as the collector got it.
#[derive(Debug, Clone)]
struct Seen {
    scope: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    failed: bool,
    attributes: BTreeMap<String, String>,
}

/// An OTLP collector over HTTP.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    async fn start() -> Self {
        let spans: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let sink = Arc::clone(&spans);
        let take = async move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = request
                .resource_spans
                .into_iter()
                .flat_map(|r| r.scope_spans);
            let seen = scopes.flat_map(|s| {
                let scope = s.scope.map(|s| s.name).unwrap_or_default();
                s.spans.into_iter().map(move |span| Seen {
                    scope: scope.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    failed: span.status.is_some_and(|s| s.code == 2),
                    attributes: span
                        .attributes
                        .into_iter()
                        .filter_map(|a| Some((a.key, text(a.value?.value?))))
                        .collect(),
                })
            });
            sink.lock().unwrap().extend(seen);
        };
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, spans }
    }

    /// A house that sends its spans here.
    fn house(&self, ratio: f64) -> (House, TestKeys) {
        House::with_users(&self.section(ratio))
    }

    fn section(&self, ratio: f64) -> String {
        format!(
            "[telemetry.traces]\notlp_endpoint = \"http://{}\"\nprotocol = \"http\"\nratio = {ratio}\n",
            self.address
        )
    }

    fn all(&self) -> Vec<Seen> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of a trace, once there are as many.
    async fn trace(&self, trace: &str, least: usize) -> Vec<Seen> {
        until("the trace has arrived", || async {
            self.of(trace).len() >= least
        })
        .await;
        self.of(trace)
    }

    fn of(&self, trace: &str) -> Vec<Seen> {
        let all = self.spans.lock().unwrap();
        all.iter().filter(|s| s.trace == trace).cloned().collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn text(value: Wire) -> String {
    match value {
        Wire::StringValue(text) => text,
        Wire::IntValue(n) => n.to_string(),
        Wire::BoolValue(b) => b.to_string(),
        other => format!("{other:?}"),
    }
}

fn named<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let found = spans.iter().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("no span {name} in {spans:#?}"))
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn parent(trace: &str) -> String {
    format!("00-{trace}-00f067aa0ba902b7-00")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_leaves_one_trace_from_the_door_to_the_statement() {
    let collector = Collector::start().await;
    let (house, _keys) = collector.house(1.0);
    let hello = Recorder::start("hello").await;
    let body = json!({
        "name": "hello", "version": "1.0.0", "host": "127.0.0.1", "port": hello.port(),
        "default_access": "public", "metadata": { "note": "call 13812345678" },
    });
    let made = answer(
        client()
            .post(format!("{}/api/registry/register", house.http))
            .bearer_auth(house.operator())
            .header("traceparent", parent(TRACE))
            .json(&body),
    )
    .await
    .unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    let spans = collector.trace(TRACE, 6).await;
    let server = spans
        .iter()
        .find(|s| s.parent == "00f067aa0ba902b7")
        .unwrap();
    assert_eq!(server.scope, "gateway");
    assert_eq!(server.attributes["http.response.status_code"], "201");
    let built_in = named(&spans, "built-in");
    assert_eq!(
        (
            &built_in.parent,
            built_in.attributes["portico.service"].as_str()
        ),
        (&server.id, "registry")
    );
    let transaction = named(&spans, "transaction");
    assert_eq!(transaction.attributes["portico.db.outcome"], "committed");
    let insert = named(&spans, "insert");
    let commit = named(&spans, "commit");
    assert_eq!(
        (&insert.parent, &commit.parent),
        (&transaction.id, &transaction.id)
    );
    assert_eq!(insert.attributes["db.system.name"], "sqlite");
    assert_eq!(insert.attributes["portico.db.fingerprint"].len(), 16);
    assert!(insert.attributes["db.query.text"].contains('?'));
    let everything = format!("{:?}", collector.all());
    for secret in ["13812345678", &house.operator()] {
        assert!(!everything.contains(secret), "{secret}");
    }
    until("the record of the change names its trace", || async {
        let log = house.log();
        let mut lines = log.lines();
        lines.any(|line| line.contains("\"target\":\"audit\"") && line.contains(TRACE))
    })
    .await;
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|s| &s.id).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_has_a_span_and_the_instance_hangs_below_it() {
    let collector = Collector::start().await;
    let (house, _keys) = collector.house(1.0);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let url = format!("{}/api/hello/x", house.http);
    let got = answer(client().get(&url).header("traceparent", parent(TRACE))).await;
    assert_eq!(got.unwrap().status, 200);
    let spans = collector.trace(TRACE, 2).await;
    let attempt = named(&spans, "attempt");
    let server = spans.iter().find(|s| s.id == attempt.parent).unwrap();
    assert_eq!(server.parent, "00f067aa0ba902b7");
    assert_eq!(attempt.attributes["http.response.status_code"], "200");
    assert_eq!(attempt.attributes["portico.attempt"], "1");
    let sent = hello.last().header("traceparent").to_owned();
    assert_eq!(sent, format!("00-{TRACE}-{}-01", attempt.id));
}

/// OB-11: the look in the cache is a span beside the attempt, and what it found is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_in_the_cache_is_a_span() {
    let collector = Collector::start().await;
    let (house, _keys) = collector.house(1.0);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let rule = json!({ "scope": { "path_prefix": "/api/hello" }, "policy": { "mode": "on", "ttl_s": 60 } });
    house.save("cache-rules", "all", rule).await;
    let url = format!("{}/api/hello/x", house.http);
    for (trace, wanted) in [
        ("a".repeat(32), &["miss", "miss"][..]),
        ("b".repeat(32), &["hit"]),
    ] {
        let got = answer(client().get(&url).header("traceparent", parent(&trace))).await;
        assert_eq!(got.unwrap().status, 200);
        let spans = collector.trace(&trace, 2 * wanted.len()).await;
        let server = spans
            .iter()
            .find(|s| s.parent == "00f067aa0ba902b7")
            .unwrap();
        let looks: Vec<_> = spans.iter().filter(|s| s.name == "cache look-up").collect();
        let found: Vec<&str> = { looks.iter() }
            .map(|s| s.attributes["portico.cache"].as_str())
            .collect();
        assert_eq!(found, wanted, "{spans:?}");
        assert!(looks.iter().all(|s| s.parent == server.id), "{spans:?}");
        let attempts = spans.iter().filter(|s| s.name == "attempt").count();
        assert_eq!(attempts, wanted.len() - 1, "{spans:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_may_read_traces_can_ask_for_one_and_failures_are_kept() {
    let collector = Collector::start().await;
    let (house, keys) = collector.house(0.0);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let url = format!("{}/api/hello/x", house.http);
    let trace = |n: u32| format!("{n:032x}");
    let ask = |n: u32, bearer: Option<String>| {
        let mut request = client()
            .get(&url)
            .header("traceparent", parent(&trace(n)))
            .header("x-portico-trace", "1");
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        answer(request)
    };
    assert_eq!(ask(1, None).await.unwrap().status, 200);
    let user = token(&keys, &["user"], "");
    assert_eq!(ask(2, Some(user)).await.unwrap().status, 200);
    assert!(!hello.last().headers.contains_key("x-portico-trace"));
    assert!(hello.last().header("traceparent").ends_with("-00"));
    assert_eq!(ask(3, Some(house.operator())).await.unwrap().status, 200);
    assert!(hello.last().header("traceparent").ends_with("-01"));
    collector.trace(&trace(3), 2).await;
    // A request that fails is kept although nobody asked.
    let gone = format!("{}/api/gone/x", house.http);
    house.register("gone", 9, json!({})).await;
    let failed = answer(client().get(&gone).header("traceparent", parent(&trace(4)))).await;
    assert!(failed.unwrap().status >= 502);
    let spans = collector.trace(&trace(4), 1).await;
    assert!(spans.iter().all(|s| s.failed), "{spans:?}");
    assert!(collector.of(&trace(1)).is_empty(), "nobody may not ask");
    assert!(collector.of(&trace(2)).is_empty(), "a user may not ask");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_jobs_have_traces_of_their_own() {
    let collector = Collector::start().await;
    let (_house, _keys) = collector.house(1.0);
    until("a job has run", || async {
        collector.all().iter().any(|s| s.scope == "jobs")
    })
    .await;
    let all = collector.all();
    let run = all.iter().find(|s| s.scope == "jobs").unwrap();
    assert_eq!(
        (run.parent.as_str(), &run.attributes["portico.job"]),
        ("", &run.name)
    );
    assert!(run.name.contains('.'), "{run:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_moves_the_collector_and_the_trusted_proxies() {
    let (first, second) = (Collector::start().await, Collector::start().await);
    let (house, _keys) = first.house(1.0);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let ask = || async {
        let url = format!("{}/api/hello/x", house.http);
        let sent = client().get(url).header("x-forwarded-for", "203.0.113.9");
        assert_eq!(answer(sent).await.unwrap().status, 200);
        hello.last().header("x-forwarded-for").to_owned()
    };
    assert_eq!(ask().await, "127.0.0.1", "a stranger's word");

    let file = house.folder.path().join("portico.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&first.address.to_string(), &second.address.to_string());
    let text = format!("{text}[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    std::fs::write(&file, text).unwrap();
    house.signal(nix::sys::signal::Signal::SIGHUP);
    until("spans go to the new collector", || async {
        ask().await;
        !second.all().is_empty()
    })
    .await;
    until("the proxy is believed", || async {
        ask().await.starts_with("203.0.113.9")
    })
    .await;
    assert!(
        house
            .metric("portico_config_reloads_total{result=\"done\"}")
            .await
            >= 1.0
    );
    assert!(house.metric("portico_trace_spans_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn baggage_of_strangers_stays_at_the_door_but_for_listed_keys() {
    let text = "[settings]\n\"gateway.trace.baggage\" = [\"region\"]\n";
    let house = House::configured(text, &[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    for (given, kept) in [
        ("region=eu, user=alice", "region=eu"),
        ("user=alice", ""),
        ("nonsense", ""),
    ] {
        let url = format!("{}/api/hello/x", house.http);
        let sent = client().get(url).header("baggage", given);
        assert_eq!(answer(sent).await.unwrap().status, 200);
        assert_eq!(hello.last().header("baggage"), kept, "{given}");
    }
}

/// The series of a scrape: name, labels.
fn series(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series.split_once('{').unwrap_or((series, "")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_services_and_random_paths_stay_within_the_budget() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    for n in 0..300 {
        let name = format!("service-{n}");
        house.register(&name, hello.port(), json!({})).await;
    }
    let http = client();
    for n in 0..300 {
        let path = format!("/api/service-{n}/private-path-{n}/{}?q={n}", n * 7919);
        let sent = http.get(format!("{}{path}", house.http));
        assert_eq!(answer(sent).await.unwrap().status, 200);
    }
    for n in 0..500 {
        let method = Method::from_bytes(format!("ODD{n}").as_bytes()).unwrap();
        let sent = http.request(method, format!("{}/nowhere-{n}/{n}", house.http));
        assert!(answer(sent).await.unwrap().status >= 400);
    }
    let scrape = || async {
        let sent = client().get(format!("{}/metrics", house.admin));
        answer(sent).await.unwrap().text
    };
    until("all requests are counted", || async {
        house.metric("portico_gateway_requests_total").await >= 800.0
    })
    .await;
    let text = scrape().await;
    let all = series(&text);
    assert!(all.len() <= 20_000, "{} series", all.len());
    assert!(text.len() <= 2 << 20, "{} bytes", text.len());
    assert!(all.len() > 2_000, "{} series are no test", all.len());
    assert!(
        !text.contains("private-path") && !text.contains("nowhere-"),
        "a path is a label"
    );
    assert!(!text.contains("ODD1"), "a client's word is a label");
    assert!(
        all.iter()
            .any(|(_, labels)| labels.contains("service=\"other\""))
    );
    assert!(house.metric("portico_metrics_overflow_total").await >= 1.0);
    let instance = house.register("service-1", 9, json!({})).await;
    assert!(!scrape().await.contains(&instance), "an id is a label");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_is_declared_and_the_promised_families_are_there() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    house.get("/api/hello/").await;
    let docs = command(house.folder.path(), &["docs", "metrics"]);
    let docs = String::from_utf8(docs.stdout).unwrap();
    let text = answer(client().get(format!("{}/metrics", house.admin)))
        .await
        .unwrap()
        .text;
    for (name, _) in series(&text) {
        let family = ["_bucket", "_sum", "_count", ""]
            .iter()
            .filter_map(|end| name.strip_suffix(end))
            .find(|family| docs.contains(&format!("| `{family}` |")));
        assert!(family.is_some(), "{name} is not in docs/metrics.md");
    }
    for begin in [
        "portico_build_info{version=",
        "portico_process_role{role=\"all\"}",
        "portico_db_pool_connections{pool=\"reader\",state=\"max\"}",
        "portico_db_acquire_seconds_count",
        "portico_db_query_seconds_count{op=\"commit\"}",
        "portico_db_errors_total{kind=",
        "portico_db_busy_total",
        "portico_db_wal_bytes",
        "portico_lease_held",
        "portico_runtime_busy_ratio{runtime=\"gateway\"}",
        "portico_runtime_busy_ratio{runtime=\"shared\"}",
        "portico_runtime_queue_depth{runtime=\"shared\"}",
        "portico_runtime_tasks{runtime=\"gateway\"}",
        "portico_runtime_blocking_threads",
        "portico_log_dropped_total",
        "portico_clock_skew_seconds",
        "portico_host_cpu_ratio",
        "portico_host_load1",
        "portico_host_memory_bytes{state=",
        "portico_host_disk_bytes{volume=\"data\",state=",
        "portico_host_network_bytes_total{direction=",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        until(begin, || async {
            let sent = client().get(format!("{}/metrics", house.admin));
            let text = answer(sent).await.unwrap().text;
            text.lines().any(|line| line.starts_with(begin))
        })
        .await;
    }
}
