//! Jobs and schedules of the whole program: over its API, from the shell, and with processes killed.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::PrivateServer;
use portico_db::{Db, DbOptions};
use portico_testkit::TestApp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{House, command, skip, until};

const SWEEP: &str = "ops.jobs_sweep";

/// A process whose sweep runs each second.
fn every_second(more: &str, arguments: &[&str]) -> House {
    let text = format!("{more}\n[settings]\n\"ops.jobs.sweep_schedule\" = \"* * * * * *\"\n");
    House::configured(&text, arguments)
}

async fn runs(house: &House) -> Vec<Value> {
    let path = format!("/api/control/cron/{SWEEP}");
    let entry = house.operate(Method::GET, &path, None).await.json();
    entry["runs"].as_array().cloned().unwrap_or_default()
}

/// All jobs of the sweep.
async fn sweeps(house: &House) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/control/jobs?kind={SWEEP}&limit=200{cursor}");
        let page = house.operate(Method::GET, &path, None).await.json();
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Two real processes on one database, one of them killed while both run a schedule of every second: each
/// moment has one job, and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_run_each_moment_once_and_one_may_be_killed() {
    let Some(postgres) = PrivateServer::start() else {
        return skip("PostgreSQL is not installed");
    };
    let keys = format!("[keys]\nmaster = \"{}\"\n", "5a".repeat(32));
    let url = postgres.url();
    let mut first = every_second(&keys, &["--database", &url]);
    let second = every_second(&keys, &["--database", &url]);
    let ran = async |wanted: usize| {
        until("more moments have passed", || async {
            sweeps(&second).await.len() >= wanted
        })
        .await;
    };
    ran(4).await;
    first.signal(Signal::SIGKILL);
    tokio::task::block_in_place(|| first.wait());
    let before = sweeps(&second).await.len();
    ran(before + 4).await;
    // The last one that the killed process had is done by the other once its lease is over.
    let off = json!({ "enabled": false });
    let path = format!("/api/control/cron/{SWEEP}");
    second.operate(Method::PATCH, &path, Some(&off)).await;
    until("all have ended", || async {
        sweeps(&second)
            .await
            .iter()
            .all(|job| job["state"] == "done")
    })
    .await;
    let all = sweeps(&second).await;
    let ticks: BTreeSet<&str> = all
        .iter()
        .map(|job| job["tick"].as_str().unwrap())
        .collect();
    assert_eq!(ticks.len(), all.len(), "a moment has two jobs");
    for run in runs(&second).await {
        let outcome = run["outcome"].as_str().unwrap();
        assert!(matches!(outcome, "done" | "refused"), "{run}");
    }
}

/// An order for many users, its process killed again and again: each user is disabled once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_many_users_that_is_killed_does_each_of_them_once() {
    const USERS: usize = 60;
    let mut house = House::start(&[]);
    let mut ids = Vec::new();
    for n in 0..USERS {
        let wish = json!({ "username": format!("user-{n}") });
        let made = house
            .operate(Method::POST, "/api/identity/users", Some(&wish))
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
        ids.push(made.json()["id"].as_str().unwrap().to_owned());
    }
    let order = json!({ "order": { "action": "disable" }, "ids": ids });
    let ordered = house
        .operate(Method::POST, "/api/identity/users/bulk", Some(&order))
        .await
        .json();
    let path = format!(
        "/api/identity/users/bulk/{}",
        ordered["batch_id"].as_str().unwrap()
    );
    let mut kills = 0;
    let report = loop {
        let report = house.operate(Method::GET, &path, None).await.json();
        if report["finished_at"] != Value::Null {
            break report;
        }
        if kills < 3 && report["done"].as_u64().unwrap_or(0) >= kills * 15 {
            kills += 1;
            house.signal(Signal::SIGKILL);
            tokio::task::block_in_place(|| house.wait());
            let folder = house.folder.clone();
            house = tokio::task::block_in_place(|| House::at(folder, &[]));
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&report["done"], &report["failed"]),
        (&json!(USERS), &json!(0))
    );
    assert!(kills > 0);
    // Each left one event, in the transaction of its change.
    let url = format!("sqlite://{}", house.data_dir().join("portico.db").display());
    let db = Db::connect(
        &DbOptions::new(url),
        std::sync::Arc::new(portico_base::SystemClock),
    )
    .await
    .unwrap();
    let mut told = Query::select();
    told.expr_as(Expr::col("key").count(), "n")
        .expr_as(Expr::col("key").count_distinct(), "d")
        .from("outbox")
        .and_where(Expr::col("topic").eq("identity.user.disabled"));
    let row = db.reader().query_one(&told).await.unwrap().unwrap();
    let count = |name: &str| row.try_get::<i64>("", name).unwrap();
    assert_eq!((count("n"), count("d")), (USERS as i64, USERS as i64));
    db.close().await;
}

#[tokio::test]
async fn tenants_see_their_own_jobs_and_payloads_without_secrets() {
    let app = TestApp::start().await;
    app.tenant("globex").await;
    let admin = app.person("admin", "default", &["tenant_admin"]).await;
    let foreign = app.person("foreign", "globex", &["tenant_admin"]).await;
    let user = app.person("user", "default", &[]).await;
    let order = json!({ "order": { "action": "log_out" }, "ids": [user.id] });
    let ordered = admin.caller.post("/api/identity/users/bulk", &order).await;
    ordered.expect(202);
    let path = "/api/control/jobs?kind=identity.users.bulk";
    let listed = admin.caller.get(path).await.expect(200).json();
    let job = &listed["items"][0];
    assert_eq!(job["tenant_id"], json!(portico_base::id::TENANT_DEFAULT));
    let one = format!("/api/control/jobs/{}", job["id"].as_str().unwrap());
    let shown = admin.caller.get(&one).await.expect(200).json();
    assert!(shown["payload"]["batch"].is_string(), "{shown}");
    assert_eq!(
        foreign.caller.get(path).await.expect(200).json()["items"],
        json!([])
    );
    foreign
        .caller
        .get(&one)
        .await
        .expect_problem(404, "control.job_not_found");
    let retry = format!("{one}/retry");
    foreign
        .caller
        .post(&retry, &json!({}))
        .await
        .expect_problem(404, "control.job_not_found");
    let theirs = format!("{path}&tenant={}", portico_base::id::TENANT_DEFAULT);
    foreign
        .caller
        .get(&theirs)
        .await
        .expect_problem(403, "identity.permission_denied");
    // What is of all tenants is nobody's who belongs to one.
    for path in [
        "/api/control/cron",
        "/api/control/queues",
        "/api/control/system",
    ] {
        admin
            .caller
            .get(path)
            .await
            .expect_problem(403, "identity.permission_denied");
    }
    let operator = app.operator();
    for bad in ["state=good", "limit=0", "nonsense=1"] {
        let path = format!("/api/control/jobs?{bad}");
        assert_eq!(operator.get(&path).await.code(), 400, "{bad}");
    }
    app.stop().await;
}

#[tokio::test]
async fn everything_that_is_due_is_listed_and_the_system_says_how_it_does() {
    let app = TestApp::start().await;
    let operator = app.operator();
    let named = async |name: &str| {
        loop {
            let listed = operator.get("/api/control/cron").await.expect(200).json();
            let items = listed["items"].as_array().unwrap();
            let known = |entry: &&Value| {
                // A schedule is entered before its expression is read.
                let defined = entry["form"] == "interval" || entry["expression"].is_string();
                entry["name"] == name && defined
            };
            if let Some(entry) = items.iter().find(known) {
                return entry.clone();
            }
        }
    };
    let sweep = named(SWEEP).await;
    assert_eq!(sweep["expression"], "17 * * * *");
    assert_eq!(sweep["setting"], "ops.jobs.sweep_schedule");
    assert_eq!(sweep["next"].as_array().unwrap().len(), 5);
    let beat = named("ops.replicas").await;
    assert_eq!(
        (&beat["form"], &beat["every_s"]),
        (&json!("interval"), &json!(5.0))
    );
    let off = json!({ "enabled": false });
    let fixed = operator.request(Method::PATCH, "/api/control/cron/ops.replicas");
    operator
        .send(fixed.json(&off))
        .await
        .expect_problem(409, "control.cron_fixed");
    let system = operator.get("/api/control/system").await.expect(200).json();
    let items = system["items"].as_array().unwrap();
    let names: Vec<&str> = items
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    let wanted = [
        "version",
        "replicas",
        "database",
        "redis",
        "objects",
        "certificates",
        "disk",
        "clock",
        "jobs",
    ];
    assert_eq!(names, wanted);
    for item in items {
        assert!(!item["verdict"].as_str().unwrap().is_empty(), "{item}");
        assert!(!item["verdict_zh"].as_str().unwrap().is_empty(), "{item}");
    }
    let process = &items[1]["facts"]["replicas"][0];
    assert!(
        process["numbers"]["memory_bytes"].as_f64().unwrap() > 1e6,
        "{process}"
    );
    assert!(process["numbers"]["registry_seq"].is_number(), "{process}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_schedules_and_the_doctor_are_asked_from_the_shell() {
    let house = every_second("", &[]);
    until("a moment has passed", || async {
        !runs(&house).await.is_empty()
    })
    .await;
    let data = house.data_dir();
    let portico = |words: &[&str]| {
        let more = ["--data-dir", data.to_str().unwrap()];
        let output = command(house.folder.path(), &[words, &more].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text, errors)
    };
    let done = |words: &[&str]| {
        let (code, text, errors) = portico(words);
        assert_eq!(code, Some(0), "{words:?}: {text}{errors}");
        text
    };
    assert!(done(&["cron", "list"]).contains("* * * * * *"));
    let pause = json!({ "kind": SWEEP, "action": "pause", "reason": "a look at it" });
    house
        .operate(Method::POST, "/api/control/jobs/bulk", Some(&pause))
        .await;
    until("one waits", || async {
        let path = format!("/api/control/jobs?kind={SWEEP}&state=ready");
        let page = house.operate(Method::GET, &path, None).await.json();
        !page["items"].as_array().unwrap().is_empty()
    })
    .await;
    let listed = done(&[
        "jobs", "list", "--kind", SWEEP, "--state", "ready", "--json",
    ]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let id = listed[0]["id"].as_str().unwrap();
    assert!(done(&["jobs", "show", id]).contains("ready"));
    assert!(done(&["jobs", "cancel", id]).contains("cancelled"));
    let (code, _, errors) = portico(&["cron", "run", "no.such"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("control.cron_not_found"), "{errors}");
    assert!(done(&["jobs", "retry", "--kind", SWEEP, "--dry-run"]).contains("0 jobs"));
    let told = done(&["doctor"]);
    assert!(
        told.contains("look  jobs") && told.contains(SWEEP),
        "{told}"
    );
    assert!(told.contains("ok    database"), "{told}");
    assert_eq!(portico(&["doctor", "--strict"]).0, Some(1));
    let resume = json!({ "kind": SWEEP, "action": "resume" });
    house
        .operate(Method::POST, "/api/control/jobs/bulk", Some(&resume))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_level_is_raised_for_a_while_and_falls_back() {
    let house = House::start(&[]);
    let levels = async || {
        let system = house
            .operate(Method::GET, "/api/control/system", None)
            .await;
        system.json()["log_levels"].clone()
    };
    let before = levels().await["configured"].clone();
    let wish = json!({ "target": "portico_identity", "level": "debug", "for_s": 2 });
    let path = "/api/control/system/log-level";
    let raised = house.operate(Method::PUT, path, Some(&wish)).await;
    assert_eq!(raised.status, 200, "{}", raised.text);
    let now = levels().await;
    assert_eq!(now["raised"][0]["target"], "portico_identity");
    assert_eq!(now["configured"], before);
    until("it has fallen back", || async {
        levels().await["raised"].as_array().unwrap().is_empty()
    })
    .await;
    assert_eq!(levels().await["configured"], before);
    let bad = json!({ "target": "a b", "level": "loud", "for_s": 9_999 });
    let refused = house.operate(Method::PUT, path, Some(&bad)).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 3);
}
