//! Hostile values on every reading route and parameter, on both databases: rows or a refusal, never an error of ours (SC-15).

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use portico_testkit::{Caller, TestApp, TestOptions, TestPlugin};
use reqwest::Method;
use serde_json::{Value, json};

/// Quotes, comments, wildcards, placeholders, NUL, control and direction characters, numbers beyond any type, length.
fn hostile() -> Vec<String> {
    let mut values: Vec<String> = [
        "'",
        "\"",
        "' OR '1'='1",
        "'; DROP TABLE services; --",
        "\"; SELECT pg_sleep(9); /*",
        "x) UNION SELECT * FROM registration_tokens --",
        "%",
        "_%\\",
        "$1",
        "?1",
        ":name",
        "\u{0}",
        "a\u{0}b",
        "\r\n",
        "\u{202e}\u{feff}",
        "99999999999999999999",
        "-1",
        "NaN",
        "{}",
        "[]",
        "null",
        "../../etc/passwd",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push("x".repeat(2_000));
    values
}

fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// A status, or 0 for an answer that does not begin within two seconds: a watch that was taken. Consul says
/// 500 with a text of its own where others say 400; such a refusal counts as one.
async fn status(caller: &Caller, path: &str) -> u16 {
    let asked = caller.request(Method::GET, path).send();
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(Ok(response)) if response.status() == 500 => {
            let text = response.text().await.unwrap();
            let refused = text.starts_with("Failed to create boolean expression evaluator")
                || text.ends_with("UUID must be 36 characters");
            assert!(refused, "{path}: {text}");
            400
        }
        Ok(Ok(response)) => response.status().as_u16(),
        Ok(Err(error)) => panic!("{path}: {error}"),
        Err(_) => 0,
    }
}

/// Every reading path of our own API, with the names of its parameters in path and query.
fn reading_paths() -> BTreeMap<String, (Vec<String>, Vec<String>)> {
    let own = [
        ("registry", portico_registry::openapi()),
        ("gateway", portico_gateway::openapi()),
    ];
    let document: Value = serde_json::to_value(portico_gateway::openapi_of(&own)).unwrap();
    let mut all = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(get) = item.get("get") else { continue };
        let declared = get["parameters"].as_array().cloned().unwrap_or_default();
        let of = |place: &str| {
            let here = declared.iter().filter(|p| p["in"] == place);
            here.filter_map(|p| Some(p["name"].as_str()?.to_owned()))
                .collect()
        };
        all.insert(path.clone(), (of("path"), of("query")));
    }
    all
}

async fn tried(app: &TestApp) -> BTreeMap<String, u16> {
    let operator = app.operator();
    let mut answers = BTreeMap::new();
    for (path, (segments, parameters)) in reading_paths() {
        let plain = segments.iter().fold(path.clone(), |path, name| {
            path.replace(&format!("{{{name}}}"), "hello")
        });
        for value in hostile() {
            let value = encoded(&value);
            for name in &segments {
                let bad = path.replace(&format!("{{{name}}}"), &value);
                let bad = segments.iter().fold(bad, |path, other| {
                    path.replace(&format!("{{{other}}}"), "hello")
                });
                answers.insert(bad.clone(), status(&operator, &bad).await);
            }
            for name in parameters
                .iter()
                .map(String::as_str)
                .chain(["cursor", "limit"])
            {
                let bad = format!("{plain}?{name}={value}");
                answers.insert(bad.clone(), status(&operator, &bad).await);
            }
        }
    }
    answers
}

/// The Consul-compatible listener: names, keys, tags, filters.
async fn tried_consul(app: &TestApp) -> BTreeMap<String, u16> {
    let consul = app.consul();
    let mut answers = BTreeMap::new();
    for value in hostile() {
        let value = encoded(&value);
        for path in [
            format!("/v1/kv/{value}"),
            format!("/v1/kv/{value}?recurse"),
            format!("/v1/kv/?keys&separator={value}"),
            format!("/v1/catalog/service/{value}"),
            format!("/v1/catalog/service/hello?tag={value}"),
            format!("/v1/catalog/services?filter={value}"),
            format!("/v1/catalog/nodes?near={value}"),
            format!("/v1/catalog/node/{value}"),
            format!("/v1/health/service/{value}?passing"),
            format!("/v1/health/node/{value}"),
            format!("/v1/health/state/{value}"),
            format!("/v1/agent/services?filter={value}"),
            format!("/v1/session/info/{value}"),
            format!("/v1/session/node/{value}"),
            format!("/v1/event/list?name={value}"),
        ] {
            answers.insert(path.clone(), status(&consul, &path).await);
        }
    }
    answers
}

async fn house(database: Option<String>) -> (TestApp, TestPlugin) {
    let app = TestApp::with(TestOptions {
        database,
        ..TestOptions::default()
    })
    .await;
    let plugin = TestPlugin::echo("hello").await;
    let body = plugin.registration("hello", &json!({}));
    let made = app.operator().post("/api/registry/register", &body).await;
    assert_eq!(made.code(), 201, "{made:?}");
    (app, plugin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_values_are_rows_or_a_refusal_on_both_databases() {
    let server = portico_db::testing::PrivateServer::start();
    let databases = [None, server.as_ref().map(|s| s.url())];
    let mut of_both: Vec<BTreeMap<String, u16>> = Vec::new();
    for database in databases {
        if database.is_none() && !of_both.is_empty() {
            continue;
        }
        let (app, _plugin) = house(database).await;
        let mut answers = tried(&app).await;
        answers.extend(tried_consul(&app).await);
        assert!(answers.len() > 500, "only {} requests", answers.len());
        let broken: Vec<_> = answers.iter().filter(|(_, s)| **s >= 500).collect();
        assert!(broken.is_empty(), "{broken:#?}");
        let names = app
            .operator()
            .get("/api/registry/services")
            .await
            .expect(200);
        assert!(
            names.json()["items"]
                .as_array()
                .is_some_and(|i| !i.is_empty())
        );
        app.stop().await;
        of_both.push(answers);
    }
    if let [sqlite, postgres] = of_both.as_slice() {
        // PostgreSQL's text holds no NUL: there it may be refused where SQLite finds nothing.
        let differing: Vec<_> = sqlite
            .iter()
            .filter(|(path, _)| !path.contains("%00"))
            .filter(|(path, status)| postgres.get(*path) != Some(*status))
            .map(|(path, status)| (path, status, postgres.get(path)))
            .collect();
        assert!(differing.is_empty(), "{differing:#?}");
    }
}
