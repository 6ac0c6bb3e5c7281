//! PostgreSQL away and back: what was promised is there once, what was refused says so, and who cannot serve is unready.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use portico_db::testing::{PrivateServer, ServerTls};
use portico_state::testing::RedisServer;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client, command, until};

const KEYS: &str =
    "[keys]\nmaster = \"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\"\n";

fn house(database: &str, more: &[&str]) -> House {
    let text = format!("{KEYS}[database]\nacquire_timeout_ms = 1000\n");
    House::configured(&text, &[&["--database", database], more].concat())
}

async fn register(house: &House, number: usize) -> Answer {
    let body = json!({
        "name": format!("word-{number}"), "version": "1.0.0", "host": "127.0.0.1",
        "port": 20_000 + number, "default_access": "public",
    });
    house
        .operate(Method::POST, "/api/registry/register", Some(&body))
        .await
}

/// Names of the services with the number of their instances.
async fn registered(house: &House) -> Vec<(String, usize)> {
    let list = house
        .operate(Method::GET, "/api/registry/services?limit=200", None)
        .await
        .json();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for item in items {
        let name = item["name"].as_str().unwrap().to_owned();
        if !name.starts_with("word-") {
            continue;
        }
        let one = format!("/api/registry/services/{name}");
        let one = house.operate(Method::GET, &one, None).await.json();
        let instances = one["instances"].as_array().map_or(0, Vec::len);
        all.push((name, instances));
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_by_an_outage() {
    let Some(mut postgres) = PrivateServer::start() else {
        return;
    };
    let house = house(&postgres.url(), &[]);
    let mut promised = BTreeSet::new();
    for number in 0..10 {
        assert_eq!(register(&house, number).await.status, 201);
        promised.insert(number);
    }
    postgres.down();
    for number in 10..20 {
        let begun = Instant::now();
        let refused = register(&house, number).await;
        let problem: Value = refused.json();
        assert_eq!(
            (refused.status, problem["code"].as_str()),
            (503, Some("system.database_unavailable")),
            "{}",
            refused.text
        );
        assert_eq!(refused.headers["retry-after"], "5");
        assert_eq!(refused.headers["content-type"], "application/problem+json");
        assert!(problem["request_id"].is_string(), "{problem}");
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "it waited too long"
        );
        assert!(!refused.text.contains("postgres@"), "{}", refused.text);
    }
    let healthy = answer(client().get(format!("{}/readyz", house.admin)));
    assert_eq!(healthy.await.unwrap().status, 200, "the gateway serves on");
    until("the process says what is missing", || async {
        house.metric("portico_degraded{reason=\"database\"}").await > 0.5
    })
    .await;
    postgres.up();
    // A client does as it was told: it tries again.
    for number in 10..20 {
        until("the write is taken", || async {
            matches!(register(&house, number).await.status, 200 | 201)
        })
        .await;
        promised.insert(number);
    }
    let all: Vec<(String, usize)> = {
        let mut all: Vec<_> = promised
            .iter()
            .map(|number| (format!("word-{number}"), 1))
            .collect();
        all.sort();
        all
    };
    assert_eq!(registered(&house).await, all);
    until("it is well again", || async {
        house.metric("portico_degraded{reason=\"database\"}").await < 0.5
    })
    .await;
    let mut house = house;
    assert_eq!(house.stop(), 0, "{}", house.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_needs_the_database_is_unready_without_it() {
    let Some(mut postgres) = PrivateServer::start() else {
        return;
    };
    let house = house(&postgres.url(), &["--roles", "registry"]);
    let ready = || async {
        let asked = answer(client().get(format!("{}/readyz", house.admin)));
        asked.await.unwrap().status
    };
    assert_eq!(ready().await, 200);
    postgres.down();
    until("it is unready", || async { ready().await == 503 }).await;
    let live = answer(client().get(format!("{}/livez", house.admin)));
    assert_eq!(live.await.unwrap().status, 200, "it is alive nevertheless");
    postgres.up();
    until("it is ready again", || async { ready().await == 200 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_certificate_ends_the_start_with_its_reason() {
    let make = || generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = make();
    let Some(server) = PrivateServer::start_tcp(Some(&ServerTls {
        certificate: cert.pem(),
        key: signing_key.serialize_pem(),
        client_authority: None,
    })) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |pem: String| {
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        let text = format!("{KEYS}[database.tls]\nca_file = \"ca.pem\"\n");
        std::fs::write(folder.path().join("portico.toml"), text).unwrap();
    };
    write(make().cert.pem());
    let url = server.tcp_url("localhost");
    let begun = Instant::now();
    let failed = command(
        folder.path(),
        &["--no-demo", "--data-dir", "data", "--database", &url],
    );
    let text = String::from_utf8_lossy(&failed.stderr).to_lowercase();
    assert_eq!(failed.status.code(), Some(5), "{text}");
    assert!(text.contains("certificate"), "{text}");
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "waiting does not help"
    );
    // With the right one it starts, and no line says that the way is not encrypted.
    let text = format!("{KEYS}[database.tls]\nca_file = \"{{folder}}/ca.pem\"\n");
    let good = std::sync::Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(good.path().join("ca.pem"), cert.pem()).unwrap();
    let text = text.replace("{folder}", &good.path().display().to_string());
    std::fs::write(good.path().join("portico.toml"), text).unwrap();
    let house = House::at(good, &["--database", &url]);
    assert_eq!(house.get("/healthz").await.status, 200);
    assert!(!house.log().contains("not encrypted"), "{}", house.log());
}

/// SC-13: Redis is trusted by the authority of `redis.ca_file` alone, and what is wrong with it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_known_by_the_authority_that_is_configured() {
    let make = || generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = make();
    let Some(redis) = RedisServer::start_with(|dir| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = free.unwrap().port();
        std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        let (cert, key, tls) = (file("cert.pem"), file("key.pem"), port.to_string());
        let arguments = [
            ["--port", "0"],
            ["--tls-port", &tls],
            ["--bind", "127.0.0.1"],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &cert],
            ["--tls-auth-clients", "no"],
        ];
        let arguments = arguments.concat().into_iter().map(str::to_owned);
        (arguments.collect(), format!("rediss://localhost:{port}"))
    }) else {
        return;
    };
    let start = |authority: &str| {
        let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, authority).unwrap();
        let text = format!("[redis]\nca_file = {file:?}\n");
        std::fs::write(folder.path().join("portico.toml"), text).unwrap();
        House::at(folder, &["--redis", redis.url()])
    };
    let state = async |house: &House| {
        let url = format!("{}/health", house.admin);
        let health = answer(client().get(url)).await.unwrap().json();
        let checks = health["checks"].as_array().cloned().unwrap_or_default();
        let redis = checks.into_iter().find(|check| check["name"] == "redis");
        redis.unwrap_or_default().to_string()
    };
    let house = start(&cert.pem());
    until("Redis is there", || async {
        state(&house).await.contains("\"ok\"")
    })
    .await;
    assert!(!house.log().contains("not encrypted"), "{}", house.log());
    let house = start(&make().cert.pem());
    until("the reason is told", || async {
        state(&house).await.to_lowercase().contains("certificate")
    })
    .await;
}
