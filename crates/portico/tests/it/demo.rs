//! The demo plug-ins: what they answer and never answer, and that a restart takes the old ones' places.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::house::{Answer, answer, binary, client, until};

/// A process of the binary that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One demo plug-in, started by hand.
struct Plugin {
    _process: Running,
    url: String,
}

impl Plugin {
    async fn start(which: &str, more: &[&str]) -> Self {
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let process = Command::new(binary())
            .args(["demo", which, "--port", &port.to_string()])
            .args(more)
            .spawn()
            .unwrap();
        let plugin = Self {
            _process: Running(process),
            url: format!("http://127.0.0.1:{port}"),
        };
        until("the plug-in listens", || async {
            answer(client().get(format!("{}/healthz", plugin.url)))
                .await
                .is_ok()
        })
        .await;
        plugin
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = client().request(method, format!("{}{path}", self.url));
        answer(request.header("accept", "text/html").body(body.to_owned()))
            .await
            .unwrap()
    }
}

/// What a browser could take for a page of ours.
fn is_harmless(found: &Answer) {
    assert_eq!(
        found.headers["x-content-type-options"], "nosniff",
        "{found:?}"
    );
    let kind = found
        .headers
        .get("content-type")
        .map_or("", |v| v.to_str().unwrap());
    assert!(
        [
            "",
            "text/plain",
            "text/plain; charset=utf-8",
            "application/json",
            "application/problem+json",
            "text/event-stream"
        ]
        .contains(&kind),
        "{kind}"
    );
}

#[tokio::test]
async fn echo_says_what_it_saw_and_is_never_a_page() {
    let echo = Plugin::start("echo", &[]).await;
    let page = "<html><script>alert(1)</script>";
    for (method, path) in [
        (Method::POST, "/x.html?y=<b>"),
        (Method::GET, "/healthz"),
        (Method::GET, "/ws"),
        (Method::POST, "/events"),
        (Method::GET, "/x?status=abc"),
        (Method::GET, "/x?bytes=10"),
        (Method::PUT, "/x?status=404"),
        (Method::GET, "/x?status=204"),
    ] {
        is_harmless(&echo.ask(method, path, page).await);
    }
    let seen = echo.ask(Method::POST, "/a/b?c=d", page).await.json();
    assert_eq!(
        (
            &seen["method"],
            &seen["path"],
            &seen["query"],
            &seen["body"]
        ),
        (&"POST".into(), &"/a/b".into(), &"c=d".into(), &page.into())
    );
    assert_eq!(seen["headers"]["accept"], "text/html");
}

#[tokio::test]
async fn echo_keeps_its_bounds() {
    let echo = Plugin::start("echo", &[]).await;
    let wrong = echo
        .ask(
            Method::GET,
            "/?bytes=10000001&delay_ms=30001&status=199",
            "",
        )
        .await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    for field in ["bytes", "delay_ms", "status"] {
        let faults = wrong.json()["errors"].clone();
        let named = faults
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["field"] == field);
        assert!(named, "{field}: {faults}");
    }
    let most = echo.ask(Method::GET, "/?bytes=10000000", "").await;
    assert_eq!((most.status, most.text.len()), (200, 10_000_000));
    assert_eq!(echo.ask(Method::GET, "/?status=503", "").await.status, 503);
    let large = echo
        .ask(Method::POST, "/", &"x".repeat(64 * 1024 + 1))
        .await;
    assert_eq!(large.status, 413, "{}", large.text);
    let begun = std::time::Instant::now();
    echo.ask(Method::GET, "/?delay_ms=150", "").await;
    assert!(begun.elapsed().as_millis() >= 150);
}

#[tokio::test]
async fn clock_tells_its_version_and_may_be_cached() {
    let clock = Plugin::start("clock", &["--show-version", "2.0.0"]).await;
    let now = clock.ask(Method::GET, "/", "").await;
    is_harmless(&now);
    assert_eq!(now.json()["version"], "2.0.0");
    assert!(now.headers.get("cache-control").is_none());
    let cached = clock.ask(Method::GET, "/cached", "").await;
    assert_eq!(cached.headers["cache-control"], "public, max-age=1");
}

/// A start without any argument but the addresses, demo included.
struct Whole {
    process: Running,
    http: String,
}

impl Whole {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(binary())
            .args(["--ready-json", "--data-dir", "data"])
            .args([
                "--listen",
                "127.0.0.1:0",
                "--consul-listen",
                "off",
                "--admin-listen",
                "off",
                "--grpc-listen",
                "off",
                "--internal-listen",
                "off",
            ])
            .current_dir(folder)
            .env_remove("PORTICO_URL")
            .env_remove("PORTICO_TOKEN")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                serde_json::from_str::<Value>(&line)
                    .ok()
                    .filter(|v| v["event"] == "ready")
            })
            .unwrap();
        // Somebody must read on, or the process would wait for a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).count());
        Self {
            process: Running(process),
            http: ready["http"].as_str().unwrap().to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        answer(client().get(format!("{}{path}", self.http)))
            .await
            .unwrap()
    }

    /// All instances, whatever their state.
    async fn instances(&self, folder: &Path) -> Vec<Value> {
        let line = std::fs::read_to_string(folder.join("data/operator.token")).unwrap();
        let token = line
            .trim()
            .trim_start_matches("Authorization: Bearer ")
            .to_owned();
        let url = format!("{}/api/registry/services?state=all", self.http);
        let list = answer(client().get(url).bearer_auth(token))
            .await
            .unwrap()
            .json();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    async fn complete(&self, folder: &Path) {
        until(
            "three demo copies are ready, and nobody else is listed",
            || async {
                let all = self.instances(folder).await;
                all.len() == 3 && all.iter().all(|i| i["state"] == "ready")
            },
        )
        .await;
    }
}

#[tokio::test]
async fn the_demo_is_behind_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let house = Whole::start(folder.path());
    house.complete(folder.path()).await;

    let all = house.instances(folder.path()).await;
    let names: Vec<&str> = all.iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["clock", "clock", "echo"]);
    assert!(all.iter().all(|i| i["tags"][0] == "demo"));
    for version in ["1.0.0", "2.0.0"] {
        let clock = house.get(&format!("/api/clock@{version}/")).await;
        assert_eq!(
            (clock.status, &clock.json()["version"]),
            (200, &version.into())
        );
    }
    let first = house.get("/api/clock/cached").await;
    assert_eq!(first.headers["x-cache"], "MISS");

    let echo = answer(
        client()
            .get(format!("{}/api/echo/hello?x=1", house.http))
            .header("x-portico-user", "root"),
    )
    .await
    .unwrap();
    let seen = echo.json();
    assert_eq!(
        (&seen["path"], &seen["headers"]["x-portico-user"]),
        (&"/hello".into(), &"".into())
    );
    assert!(
        seen["headers"]["x-portico-signature"]
            .as_str()
            .unwrap()
            .starts_with("v1=")
    );

    let mut events = client()
        .get(format!("{}/api/echo/events", house.http))
        .send()
        .await
        .unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains("data: 1") {
        text.push_str(&String::from_utf8_lossy(
            &events.chunk().await.unwrap().unwrap(),
        ));
    }
    assert!(
        text.contains("event: tick") && text.contains("data: 0"),
        "{text}"
    );

    let address = house.http.replace("http://", "ws://");
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("{address}/api/echo/ws"))
        .await
        .unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("hello")
    );
}

#[tokio::test]
async fn after_a_kill_9_the_new_copies_take_the_places_of_the_dead() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = Whole::start(folder.path());
    house.complete(folder.path()).await;
    let before = house.instances(folder.path()).await;
    kill(
        Pid::from_raw(i32::try_from(house.process.0.id()).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    house.process.0.wait().unwrap();

    let house = Whole::start(folder.path());
    house.complete(folder.path()).await;
    let after = house.instances(folder.path()).await;
    let ids = |list: &[Value]| list.iter().map(|i| i["id"].to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after), "the same places");
    let ports = |list: &[Value]| {
        list.iter()
            .map(|i| i["port"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_ne!(ports(&before), ports(&after), "other programs");
    assert_eq!(house.get("/api/clock/").await.status, 200);
}

#[tokio::test]
async fn after_a_clean_stop_nobody_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = Whole::start(folder.path());
    house.complete(folder.path()).await;
    let pid = Pid::from_raw(i32::try_from(house.process.0.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(house.process.0.wait().unwrap().success());
    let house = Whole::start(folder.path());
    house.complete(folder.path()).await;
}
