//! The real process: registers, serves what the gateway signed, and drains on SIGTERM.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../crates/sdk/tests/it/fake_gateway.rs"]
#[expect(
    dead_code,
    reason = "made for the SDK's own tests, which use all of it"
)]
mod fake_gateway;

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portico_sdk::{Identity, signed_headers};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use fake_gateway::FakeGateway;

const PATIENCE: Duration = Duration::from_secs(20);

fn notes(gateway: &FakeGateway) -> Child {
    Command::new(env!("CARGO_BIN_EXE_notes"))
        .env_remove("PORTICO_INSTANCE_SECRET")
        .env_remove("PORTICO_SERVICE")
        .env_remove("PORT")
        .env("PORTICO_URL", &gateway.url)
        .env("PORTICO_TOKEN", "prt_test")
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn headers(method: &str, target: &str, tenant: &str) -> reqwest::header::HeaderMap {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .try_into()
        .unwrap();
    let who = Identity {
        tenant: Some(tenant.to_owned()),
        request_id: "req-1234".to_owned(),
        ..Identity::default()
    };
    signed_headers(&who, "pis_first", method, target, now)
}

async fn get(port: u64, target: &str, tenant: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .get(format!("http://127.0.0.1:{port}{target}"))
        .headers(headers("GET", target, tenant));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn registers_serves_and_drains() {
    let mut gateway = FakeGateway::start([]).await;
    let mut process = notes(&gateway);
    let said = gateway.next("register").await;
    let port = said.body["port"].as_u64().unwrap();
    let writes = json!(["notes:note:write"]);
    let guarded = said.body["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["required_permissions"] == writes);
    assert_eq!(guarded.count(), 2);
    assert_eq!(
        get(port, "/notes", "acme").await,
        (200, json!({"items": [], "next_cursor": null}))
    );

    // A request is half here when the process is told to stop: it is finished before the end.
    let body = br#"{"title": "milk", "text": "buy some"}"#;
    let mut slow = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap()))
        .await
        .unwrap();
    let mut head = format!(
        "POST /notes HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in &headers("POST", "/notes", "acme") {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    slow.write_all(format!("{head}\r\n").as_bytes())
        .await
        .unwrap();
    slow.write_all(&body[..10]).await.unwrap();
    // The half request was accepted when a later one has been answered.
    assert_eq!(get(port, "/notes", "acme").await.0, 200);
    let pid = Pid::from_raw(i32::try_from(process.id().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let said = gateway.next("deregister").await;
    assert_eq!(
        (said.path.as_str(), said.header("authorization")),
        ("/api/registry/deregister/i-1", "Bearer pis_first")
    );
    slow.write_all(&body[10..]).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, slow.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    let status = timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_means_now() {
    let mut gateway = FakeGateway::start([]).await;
    let mut process = notes(&gateway);
    let port = gateway.next("register").await.body["port"]
        .as_u64()
        .unwrap();
    // A request that never ends would hold the process for 30 s.
    let mut stuck = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap()))
        .await
        .unwrap();
    stuck
        .write_all(b"POST /notes HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n")
        .await
        .unwrap();
    assert_eq!(get(port, "/notes", "acme").await.0, 200);
    let pid = Pid::from_raw(i32::try_from(process.id().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    gateway.next("deregister").await;
    kill(pid, Signal::SIGTERM).unwrap();
    timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
}
