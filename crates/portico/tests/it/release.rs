//! Progressive delivery with the real binary: steps, guards that stop a bad candidate, switches and the way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use portico_base::SystemClock;
use portico_db::testing::PrivateServer;
use portico_db::{Db, DbOptions};
use portico_testkit::TestPlugin;
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client, until};
use crate::scaled::redis;

/// How one version behaves; it can change while it runs.
#[derive(Default)]
struct Manner {
    /// Every so manieth request is answered with 500; none when 0.
    fails_every: AtomicUsize,
    slow: AtomicBool,
    seen: AtomicUsize,
}

/// A version of a service that answers with its own name.
struct Edition {
    plugin: TestPlugin,
    manner: Arc<Manner>,
}

impl Edition {
    async fn start(version: &'static str) -> Self {
        let manner = Arc::new(Manner::default());
        let own = Arc::clone(&manner);
        let router = Router::new().fallback(move || {
            let manner = Arc::clone(&own);
            async move {
                let number = manner.seen.fetch_add(1, Ordering::SeqCst);
                if manner.slow.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(80)).await;
                }
                match manner.fails_every.load(Ordering::SeqCst) {
                    0 => (StatusCode::OK, version),
                    every if number % every == 0 => (StatusCode::INTERNAL_SERVER_ERROR, version),
                    _ => (StatusCode::OK, version),
                }
            }
        });
        Self {
            plugin: TestPlugin::with(router).await,
            manner,
        }
    }

    fn fail_every(&self, every: usize) {
        self.manner.fails_every.store(every, Ordering::SeqCst);
    }

    async fn join(&self, house: &House, version: &str) -> String {
        let more = json!({ "version": version, "instance_key": version });
        house
            .register("shop", self.plugin.address.port(), more)
            .await
    }
}

/// Both versions behind the door.
async fn two(house: &House) -> (Edition, Edition) {
    let (old, new) = (Edition::start("1.0.0").await, Edition::start("2.0.0").await);
    old.join(house, "1.0.0").await;
    new.join(house, "2.0.0").await;
    (old, new)
}

const RELEASE: &str = "/api/gateway/releases/shop";

async fn put(house: &House, doc: Value) -> Value {
    let body = json!({ "doc": doc });
    let saved = house.operate(Method::PUT, RELEASE, Some(&body)).await;
    assert_eq!(saved.status, 200, "{}", saved.text);
    saved.json()
}

async fn release(house: &House) -> Value {
    let answer = house.operate(Method::GET, RELEASE, None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        answer.headers["etag"].to_str().unwrap(),
        format!("\"{}\"", answer.json()["version"])
    );
    answer.json()
}

async fn order(house: &House, verb: &str) -> Answer {
    house
        .operate(Method::POST, &format!("{RELEASE}/{verb}"), None)
        .await
}

/// The code of a refused verb, after its status.
async fn refused(house: &House, verb: &str) -> (u16, String) {
    let answer = order(house, verb).await;
    let code = answer.json()["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status, code)
}

/// Requests one after the other; how many were answered by the new version.
async fn visit(house: &House, times: usize) -> usize {
    let (client, url, mut new) = (client(), format!("{}/api/shop/x", house.http), 0);
    for _ in 0..times {
        let answer = answer(client.get(&url)).await.unwrap();
        new += usize::from(answer.text == "2.0.0");
    }
    new
}

async fn phase(house: &House) -> String {
    release(house).await["status"]["phase"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_plan_brings_a_version_in_by_itself() {
    let house = House::start(&[]);
    let _both = two(&house).await;
    let plan = json!({ "steps": [20, 50, 100], "hold_s": 1 });
    let begun = put(
        &house,
        json!({ "candidate": { "version": "2.0.0" }, "sticky": "none", "plan": plan }),
    )
    .await;
    assert_eq!(
        begun["doc"]["stable"], "1.0.0",
        "what served before is said now"
    );
    assert_eq!(begun["status"]["phase"], "progressing");
    assert_eq!(
        (&begun["status"]["weight"], &begun["status"]["step"]),
        (&json!(20.0), &json!(1))
    );
    let share = visit(&house, 100).await;
    assert!((1..=60).contains(&share), "{share} of 100 at 20 %");
    until("the candidate is stable", || async {
        release(&house).await["status"]["stable"] == "2.0.0"
    })
    .await;
    assert_eq!(visit(&house, 30).await, 30);
    let done = release(&house).await;
    assert_eq!(done["status"]["phase"], "steady");
    assert_eq!(done["status"]["rollback"]["version"], "1.0.0");
    let history = house
        .operate(Method::GET, &format!("{RELEASE}/versions"), None)
        .await
        .json();
    let weights: Vec<&Value> = { history["items"].as_array().unwrap().iter().rev() }
        .filter_map(|version| version["doc"]["candidate"].get("weight"))
        .collect();
    assert_eq!(
        weights,
        [20.0, 50.0, 100.0],
        "each step is a version: {history}"
    );
    assert_eq!(
        house
            .metric("portico_gateway_release_weight{service=\"shop\",version=\"2.0.0\"}")
            .await,
        100.0
    );
}

#[tokio::test]
async fn a_candidate_with_five_percent_of_errors_is_stopped_by_itself() {
    let mut house = House::start(&[]);
    let (_old, new) = two(&house).await;
    new.fail_every(20);
    let plan = json!({ "steps": [50, 100], "hold_s": 3600 });
    put(
        &house,
        json!({ "stable": "1.0.0", "sticky": "none", "plan": plan,
        "candidate": { "version": "2.0.0", "matchers": [{ "header": { "name": "x-beta" } }] } }),
    )
    .await;
    assert_eq!(
        house
            .metric("portico_gateway_release_guard{service=\"shop\"")
            .await,
        0.0
    );
    until("the guard stops it", || async {
        visit(&house, 100).await;
        phase(&house).await == "aborted"
    })
    .await;
    assert_eq!(visit(&house, 50).await, 0, "nobody gets it any more");
    let beta = client()
        .get(format!("{}/api/shop/x", house.http))
        .header("x-beta", "1");
    assert_eq!(
        answer(beta).await.unwrap().text,
        "1.0.0",
        "nor do those whom a matcher chose"
    );
    let stopped = release(&house).await;
    let why = &stopped["doc"]["state"]["stopped"];
    assert_eq!(
        (&why["guard"], &why["weight"]),
        (&json!("error_rate"), &json!(50.0)),
        "{why}"
    );
    let numbers = &why["numbers"];
    assert!(
        numbers["measured"].as_f64().unwrap() > numbers["limit"].as_f64().unwrap(),
        "{numbers}"
    );
    for side in ["candidate", "stable"] {
        assert!(
            numbers[side]["requests"].as_u64().unwrap() >= 100,
            "{numbers}"
        );
    }
    assert_eq!(numbers["stable"]["errors"], 0);
    let guard = "portico_gateway_release_guard{service=\"shop\",guard=\"error_rate\"}";
    assert_eq!(house.metric(guard).await, 1.0);
    assert_eq!(
        refused(&house, "promote").await,
        (409, "gateway.release_aborted".to_owned())
    );
    assert_eq!(house.stop(), 0);
    assert!(
        house.log().contains("gateway.release_aborted"),
        "{}",
        house.log()
    );
    let file = house.data_dir().join("portico.db");
    let options = DbOptions::new(format!("sqlite://{}", file.display()));
    let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
    let topics = ["gateway.release.step", "gateway.release.aborted"].map(str::to_owned);
    let rows = db.outbox().read(&topics, 0, 10).await.unwrap();
    let told: Vec<(&str, &Value)> = { rows.iter() }
        .map(|row| (row.topic.as_str(), &row.payload))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(
        (told[0].0, &told[0].1["weight"]),
        ("gateway.release.step", &json!(50.0))
    );
    assert_eq!(
        (told[1].0, &told[1].1["guard"]),
        ("gateway.release.aborted", &json!("error_rate"))
    );
    assert_eq!(&told[1].1["numbers"], numbers);
    db.close().await;
}

#[tokio::test]
async fn a_slow_candidate_is_stopped_also_while_it_is_paused() {
    let house = House::start(&[]);
    let (_old, new) = two(&house).await;
    new.manner.slow.store(true, Ordering::SeqCst);
    let plan = json!({ "steps": [50], "hold_s": 3600 });
    put(&house, json!({ "stable": "1.0.0", "sticky": "none", "plan": plan, "candidate": { "version": "2.0.0" } })).await;
    assert_eq!(order(&house, "pause").await.status, 200);
    until("the guard stops it", || async {
        let visits = (0..10).map(|_| visit(&house, 10));
        futures_util::future::join_all(visits).await;
        phase(&house).await == "aborted"
    })
    .await;
    let why = release(&house).await["doc"]["state"]["stopped"].clone();
    assert_eq!(why["guard"], "p95", "{why}");
    assert!(
        why["numbers"]["measured"].as_f64().unwrap() >= 70.0,
        "{why}"
    );
}

#[tokio::test]
async fn fewer_than_a_hundred_requests_decide_nothing() {
    let house = House::start(&[]);
    let (_old, new) = two(&house).await;
    new.fail_every(1);
    let plan = json!({ "steps": [50], "hold_s": 3600, "guards": { "min_requests": 100 } });
    put(&house, json!({ "stable": "1.0.0", "sticky": "none", "plan": plan, "candidate": { "version": "2.0.0" } })).await;
    visit(&house, 90).await;
    let candidate = new.manner.seen.load(Ordering::SeqCst);
    until("the counts were looked at", || async {
        release(&house).await["status"]["versions"][1]["figures"]["errors"] == candidate
    })
    .await;
    let runs = house
        .metric("portico_jobs_runs_total{kind=\"gateway.release_guard\",result=\"done\"")
        .await;
    until("the guards were asked again", || async {
        house
            .metric("portico_jobs_runs_total{kind=\"gateway.release_guard\",result=\"done\"")
            .await
            >= runs + 2.0
    })
    .await;
    let now = release(&house).await;
    assert_eq!(now["status"]["phase"], "progressing", "{now}");
    for guard in now["status"]["guards"].as_array().unwrap() {
        assert_eq!(guard["verdict"], "too_few_requests", "{guard}");
    }
}

#[tokio::test]
async fn people_steer_and_a_stale_order_is_refused() {
    let house = House::start(&[]);
    let (_old, _new) = two(&house).await;
    assert_eq!(
        refused(&house, "step").await,
        (404, "gateway.object_not_found".to_owned())
    );
    let plan = json!({ "hold_s": 3600 });
    let begun = put(
        &house,
        json!({ "stable": "1.0.0", "plan": plan, "candidate": { "version": "2.0.0" } }),
    )
    .await;
    let send = |verb: &'static str, version: i64| {
        let request = client()
            .post(format!("{}{RELEASE}/{verb}", house.http))
            .bearer_auth(house.operator())
            .header("if-match", format!("\"{version}\""))
            .json(&json!({ "message": "by hand" }));
        async { answer(request).await.unwrap() }
    };
    let version = begun["version"].as_i64().unwrap();
    let paused = send("pause", version).await;
    assert_eq!(paused.status, 200, "{}", paused.text);
    assert_eq!(paused.json()["message"], "by hand");
    assert_eq!(paused.json()["status"]["next_at"], Value::Null);
    let stale = send("step", version).await;
    assert_eq!(
        (stale.status, stale.json()["code"].as_str()),
        (412, Some("gateway.version_mismatch"))
    );
    assert_eq!(
        refused(&house, "pause").await,
        (409, "gateway.release_phase".to_owned())
    );
    // Two orders for one version: one of them is late, whoever it is.
    let (one, other) = tokio::join!(send("step", version + 1), send("step", version + 1));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "{} {}", one.text, other.text);
    let now = release(&house).await;
    assert_eq!(
        (&now["status"]["weight"], &now["status"]["phase"]),
        (&json!(5.0), &json!("paused"))
    );
    assert_eq!(order(&house, "resume").await.status, 200);
    assert_eq!(
        refused(&house, "resume").await,
        (409, "gateway.release_phase".to_owned())
    );
    let body = json!({ "unknown": 1 });
    let bad = house
        .operate(Method::POST, &format!("{RELEASE}/abort"), Some(&body))
        .await;
    assert_eq!(bad.status, 400, "{}", bad.text);
    assert_eq!(order(&house, "abort").await.status, 200);
    assert_eq!(
        refused(&house, "abort").await,
        (409, "gateway.release_phase".to_owned())
    );
    let anew = order(&house, "step").await.json();
    assert_eq!(
        (&anew["status"]["weight"], &anew["status"]["phase"]),
        (&json!(1.0), &json!("progressing"))
    );
    let gone = house.operate(Method::DELETE, RELEASE, None).await;
    assert_eq!(gone.status, 204);
    assert_eq!(
        visit(&house, 5).await,
        5,
        "the highest version serves again"
    );
}

#[tokio::test]
async fn blue_and_green_switch_at_once_and_return_within_the_window() {
    let house = House::start(&[]);
    let (_old, new) = two(&house).await;
    put(&house, json!({ "stable": "1.0.0" })).await;
    assert_eq!(visit(&house, 10).await, 0);
    let green = put(&house, json!({ "stable": "2.0.0" })).await;
    assert_eq!(
        visit(&house, 10).await,
        10,
        "the next request gets the new version"
    );
    assert_eq!(green["status"]["rollback"]["version"], "1.0.0");
    let kept = &green["status"]["versions"][1];
    assert_eq!(
        (&kept["role"], &kept["ready"]),
        (&json!("previous"), &json!(1)),
        "{kept}"
    );
    assert_eq!(
        house.get("/api/shop@1.0.0/x").await.text,
        "1.0.0",
        "it can still be named"
    );
    let back = order(&house, "rollback").await;
    assert_eq!(back.status, 200, "{}", back.text);
    assert_eq!(
        visit(&house, 10).await,
        0,
        "the next request gets the old version"
    );

    // A window that is over, and a version that nobody runs.
    let short = put(&house, json!({ "stable": "2.0.0", "rollback_window_s": 1 })).await;
    assert_eq!(short["doc"]["state"]["previous"]["version"], "1.0.0");
    until("the window is over", || async {
        release(&house).await["doc"]["state"]["previous"]["over"] == true
    })
    .await;
    let late = order(&house, "rollback").await;
    assert_eq!(
        (late.status, late.json()["code"].as_str()),
        (409, Some("gateway.rollback_window_over"))
    );
    assert!(
        late.text.contains("1.0.0 was kept ready until"),
        "{}",
        late.text
    );
    assert_eq!(
        house.get("/api/shop@1.0.0/x").await.status,
        404,
        "nor can it be named"
    );
    let body = json!({ "to": 1, "message": "after all" });
    let restored = house
        .operate(Method::POST, &format!("{RELEASE}/rollback"), Some(&body))
        .await;
    assert_eq!(restored.status, 200, "{}", restored.text);
    assert_eq!(restored.json()["status"]["stable"], "1.0.0");

    let id = new.join(&house, "3.0.0").await;
    put(
        &house,
        json!({ "stable": "1.0.0", "candidate": { "version": "3.0.0" } }),
    )
    .await;
    let path = format!("/api/registry/deregister/{id}");
    house
        .operate(Method::POST, &path, Some(&json!({ "now": true })))
        .await;
    let nobody = refused(&house, "promote").await;
    assert_eq!(nobody, (409, "gateway.version_not_ready".to_owned()));
    assert_eq!(release(&house).await["status"]["stable"], "1.0.0");
}

#[tokio::test]
async fn a_trial_outlives_a_kill_and_goes_on() {
    let mut house = House::start(&[]);
    let (_old, _new) = two(&house).await;
    let plan = json!({ "steps": [30, 60, 100], "hold_s": 2 });
    put(&house, json!({ "stable": "1.0.0", "sticky": "none", "plan": plan, "candidate": { "version": "2.0.0" } })).await;
    until("the second step", || async {
        visit(&house, 20).await;
        release(&house).await["status"]["weight"] == 60.0
    })
    .await;
    house.signal(nix::sys::signal::Signal::SIGKILL);
    house.wait();
    let house = House::at(house.folder.clone(), &[]);
    let found = release(&house).await;
    assert_eq!(found["status"]["candidate"], "2.0.0", "{found}");
    let weight = found["status"]["weight"].as_f64().unwrap();
    assert!(weight >= 60.0, "{found}");
    until("it is brought to its end", || async {
        visit(&house, 20).await;
        release(&house).await["status"]["stable"] == "2.0.0"
    })
    .await;
    assert_eq!(visit(&house, 20).await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_judge_by_what_all_of_them_counted() {
    let Some(postgres) = PrivateServer::start() else {
        return;
    };
    let Some(redis) = redis() else { return };
    let text = format!("[keys]\nmaster = \"{}\"\n", "5a".repeat(32));
    let (database, state) = (postgres.url(), redis.url().to_owned());
    let house = || House::configured(&text, &["--database", &database, "--redis", &state]);
    let (first, second) = (house(), house());
    let (_old, new) = two(&first).await;
    new.fail_every(10);
    until("the second knows both versions", || async {
        second.get("/api/shop@1.0.0/x").await.status == 200
            && second.get("/api/shop@2.0.0/x").await.text == "2.0.0"
    })
    .await;
    let plan = json!({ "steps": [50], "hold_s": 3600 });
    let begun = put(&first, json!({ "stable": "1.0.0", "sticky": "none", "plan": plan, "candidate": { "version": "2.0.0" } })).await;
    until("the second has the release", || async {
        visit(&second, 20).await < 20 && release(&second).await["version"] == begun["version"]
    })
    .await;
    // Neither replica alone has a hundred requests of a side; both together do.
    let begun_with = new.manner.seen.load(Ordering::SeqCst);
    tokio::join!(visit(&first, 160), visit(&second, 160));
    assert!(new.manner.seen.load(Ordering::SeqCst) - begun_with >= 100);
    until("one of them stops it", || async {
        phase(&first).await == "aborted"
    })
    .await;
    let numbers = release(&second).await["doc"]["state"]["stopped"]["numbers"].clone();
    assert!(
        numbers["candidate"]["requests"].as_u64().unwrap() >= 100,
        "{numbers}"
    );
    until("both send nobody to it", || async {
        visit(&first, 10).await + visit(&second, 10).await == 0
    })
    .await;
}
