//! Two replicas on one PostgreSQL and one Redis: what is made on one holds on the other, and both outlive outages.

mod cache;
mod limits;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portico_db::testing::PrivateServer;
use portico_state::testing::RedisServer;
use reqwest::Method;
use serde_json::json;

use crate::house::{House, answer, client, until};
use crate::raw::{RawServer, answer_always};

/// Both replicas with what they stand on.
pub(crate) struct Pair {
    pub(crate) first: House,
    pub(crate) second: House,
    postgres: PrivateServer,
    redis: RedisServer,
}

impl Pair {
    /// Nothing, with a line that says so, where a program is missing.
    pub(crate) fn start() -> Option<Self> {
        let (postgres, redis) = (PrivateServer::start()?, redis()?);
        let text = format!("[keys]\nmaster = \"{}\"\n", "5a".repeat(32));
        let (database, state) = (postgres.url(), redis.url().to_owned());
        let house = || House::configured(&text, &["--database", &database, "--redis", &state]);
        Some(Self {
            first: house(),
            second: house(),
            postgres,
            redis,
        })
    }
}

/// On a free port, because the configuration knows no socket files for Redis.
pub(crate) fn redis() -> Option<RedisServer> {
    RedisServer::start_with(|_| {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .unwrap()
            .port();
        let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1"].map(str::to_owned);
        (arguments.to_vec(), format!("redis://127.0.0.1:{port}"))
    })
}

fn upstream(text: &'static str) -> RawServer {
    RawServer::start(move |stream, _| answer_always(stream, text))
}

#[tokio::test]
async fn what_is_registered_on_one_replica_is_routed_by_the_other() {
    let Some(pair) = Pair::start() else { return };
    let (hello, other) = (upstream("hello"), upstream("other"));
    let id = pair.first.register("hello", hello.port(), json!({})).await;
    until("the second replica knows it", || async {
        pair.second.get("/api/hello/").await.text == "hello"
    })
    .await;
    pair.second.register("other", other.port(), json!({})).await;
    until("and the other way round", || async {
        pair.first.get("/api/other/").await.text == "other"
    })
    .await;

    let now = json!({ "now": true });
    pair.second
        .operate(
            Method::POST,
            &format!("/api/registry/deregister/{id}"),
            Some(&now),
        )
        .await;
    until("it is gone from the first", || async {
        pair.first.get("/api/hello/").await.status == 503
    })
    .await;

    let doc = json!({ "path": { "exact": "/word" }, "target": { "fixed": { "status": 200, "body": "everywhere" } } });
    pair.first.save("routes", "word", doc).await;
    until("the route is in force", || async {
        pair.second.get("/word").await.text == "everywhere"
    })
    .await;
    pair.second
        .operate(Method::DELETE, "/api/gateway/routes/word", None)
        .await;
    until("and gone", || async {
        pair.first.get("/word").await.status == 404
    })
    .await;
}

#[tokio::test]
async fn consul_clients_see_one_catalogue_on_both() {
    let Some(pair) = Pair::start() else { return };
    let url = |house: &House, path: &str| format!("{}/v1/{path}", house.consul);
    let hello = upstream("hello");
    let body = json!({ "Name": "hello", "Address": "127.0.0.1", "Port": hello.port(), "Meta": { "portico_public": "true" } });
    let made = answer(
        client()
            .put(url(&pair.first, "agent/service/register"))
            .json(&body),
    )
    .await
    .unwrap();
    assert_eq!(made.status, 200, "{}", made.text);
    until("the other lists it", || async {
        answer(client().get(url(&pair.second, "health/service/hello")))
            .await
            .unwrap()
            .text
            .contains(&hello.port().to_string())
    })
    .await;
    until("and routes to it", || async {
        pair.second.get("/api/hello/").await.text == "hello"
    })
    .await;
    let put = answer(
        client()
            .put(url(&pair.second, "kv/shared/key"))
            .body("value"),
    )
    .await
    .unwrap();
    assert_eq!((put.status, put.text.trim()), (200, "true"));
    until("the key is on the first", || async {
        answer(client().get(url(&pair.first, "kv/shared/key?raw")))
            .await
            .unwrap()
            .text
            == "value"
    })
    .await;
}

/// Requests without a pause, until dropped; every answer but 200 is remembered.
struct Traffic {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(usize, Vec<String>)>,
}

impl Traffic {
    fn start(house: &House, path: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, url) = (Arc::clone(&stop), format!("{}{path}", house.http));
        let task = tokio::spawn(async move {
            let (client, mut count, mut bad) = (client(), 0, Vec::new());
            while !stopped.load(Ordering::SeqCst) {
                count += 1;
                match answer(client.get(&url)).await {
                    Ok(answer) if answer.status == 200 => {}
                    other => bad.push(format!("{other:?}")),
                }
            }
            (count, bad)
        });
        Self { stop, task }
    }

    /// Fails when a request failed.
    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (count, bad) = self.task.await.unwrap();
        assert!(count > 10, "only {count} requests");
        assert!(
            bad.is_empty(),
            "{} of {count} failed, the first: {:?}",
            bad.len(),
            bad.first()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_served_while_postgresql_is_away() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    let (hello, later) = (upstream("hello"), upstream("later"));
    pair.first.register("hello", hello.port(), json!({})).await;
    until("the second replica knows it", || async {
        pair.second.get("/api/hello/").await.status == 200
    })
    .await;
    let traffic = [
        Traffic::start(&pair.first, "/api/hello/"),
        Traffic::start(&pair.second, "/api/hello/"),
    ];
    pair.postgres.down();
    let body = json!({ "name": "later", "host": "127.0.0.1", "port": later.port(), "default_access": "public" });
    for _ in 0..3 {
        let refused = pair
            .first
            .operate(Method::POST, "/api/registry/register", Some(&body))
            .await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (503, Some("system.database_unavailable")),
            "{}",
            refused.text
        );
        assert!(
            refused.headers.contains_key("retry-after"),
            "{:?}",
            refused.headers
        );
    }
    assert_eq!(
        answer(client().get(format!("{}/readyz", pair.first.admin)))
            .await
            .unwrap()
            .status,
        200,
        "it still serves"
    );
    pair.postgres.up();
    until("writing works again", || async {
        pair.first
            .operate(Method::POST, "/api/registry/register", Some(&body))
            .await
            .status
            < 300
    })
    .await;
    until("and the other follows again", || async {
        pair.second.get("/api/later/").await.text == "later"
    })
    .await;
    for traffic in traffic {
        traffic.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_breaks_while_redis_is_away() {
    let Some(pair) = Pair::start() else { return };
    let (hello, later, last) = (upstream("hello"), upstream("later"), upstream("last"));
    pair.first.register("hello", hello.port(), json!({})).await;
    until("the second replica knows it", || async {
        pair.second.get("/api/hello/").await.status == 200
    })
    .await;
    let traffic = [
        Traffic::start(&pair.first, "/api/hello/"),
        Traffic::start(&pair.second, "/api/hello/"),
    ];
    pair.redis.kill();
    pair.first.register("later", later.port(), json!({})).await;
    until("news travel without Redis", || async {
        pair.second.get("/api/later/").await.text == "later"
    })
    .await;
    pair.redis.start_again();
    pair.second.register("last", last.port(), json!({})).await;
    until("and with it again", || async {
        pair.first.get("/api/last/").await.text == "last"
    })
    .await;
    for traffic in traffic {
        traffic.stop().await;
    }
}

#[tokio::test]
async fn a_dead_replica_takes_nothing_with_it() {
    let Some(mut pair) = Pair::start() else {
        return;
    };
    let (hello, more) = (upstream("hello"), upstream("more"));
    pair.first.register("hello", hello.port(), json!({})).await;
    until("the second replica knows it", || async {
        pair.second.get("/api/hello/").await.status == 200
    })
    .await;
    pair.first.signal(nix::sys::signal::Signal::SIGKILL);
    pair.first.wait();
    assert_eq!(pair.second.get("/api/hello/").await.text, "hello");
    pair.second.register("more", more.port(), json!({})).await;
    let (database, state) = (pair.postgres.url(), pair.redis.url().to_owned());
    let third = House::at(
        pair.first.folder.clone(),
        &["--database", &database, "--redis", &state],
    );
    assert_eq!(
        third.get("/api/more/").await.text,
        "more",
        "a new replica knows everything from its start"
    );
    assert_eq!(pair.second.stop(), 0, "{}", pair.second.log());
}
