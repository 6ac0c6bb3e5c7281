//! The other forms of Redis (SC-2): a cluster, a master that Sentinel names and moves, and TLS.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use portico_state::testing::RedisServer;
use portico_state::{Deps, Event, Limit, RedisOptions, State};
use portico_telemetry::metrics::Registry;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::wait::{PATIENCE, until};

const LONG: Duration = Duration::from_secs(60);

/// Ports that were free a moment ago.
fn ports<const N: usize>() -> [u16; N] {
    let taken = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap().port())
}

async fn open(options: &RedisOptions) -> (State, DropGuard) {
    let deps = Deps::system(&Registry::default());
    let (state, driver) = State::redis(options, &deps).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(driver.run(stop.clone()));
    let connected = tokio::time::timeout(PATIENCE, state.connected()).await;
    assert!(connected.is_ok(), "{:?}", state.status());
    (state, stop.drop_guard())
}

/// A little of everything, between two replicas.
async fn works(options: &RedisOptions) {
    let ((one, _one), (two, _two)) = (open(options).await, open(options).await);
    let value = Bytes::from_static(b"value");
    one.store().put("a", value.clone(), LONG).await.unwrap();
    assert_eq!(two.store().get("a").await.unwrap(), Some(value));
    let generation = one.store().generation("n").await.unwrap();
    assert_eq!(two.store().generation("n").await.unwrap(), generation);
    assert!(one.store().claim("once", LONG).await.unwrap());
    assert!(!two.store().claim("once", LONG).await.unwrap());
    let mut heard = two.bus().subscribe("t");
    one.bus().publish("t", "hello");
    let event = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap();
    assert_eq!(event, Event::Message(Bytes::from_static(b"hello")));
    one.heartbeats("x").touch("id", 7, Bytes::new()).unwrap();
    until("a heartbeat", async || {
        !two.heartbeats("x").scan().await.is_empty()
    })
    .await;
    assert!(one.limiter().check(1, Limit::new(1.0, 5), 1).allowed);
    assert!(one.limiter().is_shared());
}

fn run(port: u16, command: &[&str]) -> String {
    let port = port.to_string();
    let output = Command::new("redis-cli")
        .args(["-p", &port])
        .args(command)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_cluster() {
    let [port, bus] = ports();
    let server = RedisServer::start_with(|_| {
        let args = [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus.to_string(),
        ];
        let url = format!("redis-cluster://127.0.0.1:{port}");
        (args.map(str::to_owned).to_vec(), url)
    });
    let Some(server) = server else { return };
    run(port, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let ready = async || run(port, &["CLUSTER", "INFO"]).contains("cluster_state:ok");
    until("the cluster", ready).await;
    works(&RedisOptions::new(server.url())).await;
}

fn plain(port: u16) -> impl FnOnce(&Path) -> (Vec<String>, String) {
    move |_| {
        let args = ["--port", &port.to_string(), "--bind", "127.0.0.1"];
        (
            args.map(str::to_owned).to_vec(),
            format!("redis://127.0.0.1:{port}"),
        )
    }
}

#[tokio::test]
async fn a_master_that_sentinel_moves() {
    let [first, second, watch] = ports();
    let (Some(_first), Some(_second)) = (
        RedisServer::start_with(plain(first)),
        RedisServer::start_with(plain(second)),
    ) else {
        return;
    };
    run(second, &["REPLICAOF", "127.0.0.1", &first.to_string()]);
    let linked = async || run(second, &["INFO", "replication"]).contains("link_status:up");
    until("replication", linked).await;
    let sentinel = RedisServer::start_with(|dir| {
        let config = dir.join("sentinel.conf");
        let text = format!(
            "port {watch}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {first} 1\nsentinel down-after-milliseconds main 500\n"
        );
        std::fs::write(&config, text).unwrap();
        let args = vec![config.display().to_string(), "--sentinel".to_owned()];
        (args, format!("redis-sentinel://127.0.0.1:{watch}/main"))
    })
    .unwrap();
    let options = RedisOptions::new(sentinel.url());
    works(&options).await;
    let (state, _guard) = open(&options).await;
    let known = async || {
        !run(watch, &["SENTINEL", "REPLICAS", "main"])
            .trim()
            .is_empty()
    };
    until("the replica in Sentinel", known).await;
    let ordered = async || run(watch, &["SENTINEL", "FAILOVER", "main"]).starts_with("OK");
    until("the failover", ordered).await;
    let moved = async || run(second, &["ROLE"]).starts_with("master");
    until("the new master", moved).await;
    // The old master refuses writes or goes away; the state finds the new one by itself.
    let arrived = async || {
        let put = state.store().put("b", Bytes::from_static(b"1"), LONG).await;
        put.is_ok() && run(second, &["GET", "portico:kv:b"]).trim() == "1"
    };
    until("a value at the new master", arrived).await;
}

/// A certificate authority and a server's certificate, by the program of OpenSSL.
fn certificates(dir: &Path) -> Option<()> {
    let run = |text: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(dir).args(text.split(' '));
        let output = command.output().ok()?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(())
    };
    run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca")?;
    run("req -newkey rsa:2048 -nodes -keyout key.pem -out cert.csr -subj /CN=localhost")?;
    std::fs::write(dir.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
    run(
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem",
    )
}

#[tokio::test]
async fn tls_with_a_certificate_that_is_checked() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let [port] = ports();
    let mut authority = None;
    let server = RedisServer::start_with(|dir| {
        if certificates(dir).is_some() {
            authority = std::fs::read(dir.join("ca.pem")).ok();
        }
        let file = |name: &str| dir.join(name).display().to_string();
        let args = [
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--tls-cert-file",
            &file("cert.pem"),
            "--tls-key-file",
            &file("key.pem"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            "no",
        ];
        (
            args.map(str::to_owned).to_vec(),
            format!("rediss://localhost:{port}"),
        )
    });
    let (Some(server), Some(authority)) = (server, authority) else {
        return;
    };
    let mut options = RedisOptions::new(server.url());
    options.ca_pem = Some(authority);
    works(&options).await;
    // Without the authority there is no connection, and the status says why.
    let deps = Deps::system(&Registry::default());
    let (state, driver) = State::redis(&RedisOptions::new(server.url()), &deps).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(driver.run(stop.clone()));
    let told = async || state.status().redis.unwrap().last_error.is_some();
    until("the reason", told).await;
    let error = state.status().redis.unwrap().last_error.unwrap();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    stop.cancel();
}
