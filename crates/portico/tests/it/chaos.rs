//! Sudden ends under load: the gateway killed, instances killed and frozen, and nothing answered wrongly.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::house::{House, answer, client, skip, until};
use crate::shop::{Ledger, Shop, Town, check_orders};

/// A request's start for each patron.
const PERIOD: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_gateway_under_load_forgets_nothing_and_answers_nothing_wrongly() {
    let mut house = House::start(&[]);
    let ledger = Ledger::default();
    let shops = [Shop::open(&ledger).await, Shop::open(&ledger).await];
    for (key, shop) in ["a", "b"].into_iter().zip(&shops) {
        house
            .register("shop", shop.port, json!({ "instance_key": key }))
            .await;
    }
    let town = Town::new(&[&house]);
    let mut patrons = JoinSet::new();
    for n in 0..12 {
        patrons.spawn(Arc::clone(&town).patron(0, n % 3 == 0, PERIOD, false));
    }
    let mut journal = Vec::new();
    for round in 0..3 {
        let now = town.done();
        until("the load flows", || async { town.done() > now + 100 }).await;
        let writer = Writer::start(&house, round, shops[0].port);
        until("some changes were acknowledged", || async {
            writer.written() >= 6
        })
        .await;
        house.signal(Signal::SIGKILL);
        tokio::task::block_in_place(|| house.wait());
        journal.extend(writer.stop().await);
        let begun = Instant::now();
        let folder = house.folder.clone();
        house = tokio::task::block_in_place(|| House::at(folder, &[]));
        let line = format!(
            "kill -9 of the gateway: serving again after {:?}\n",
            begun.elapsed()
        );
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        town.place(0, &house);
        for name in &journal {
            assert_known(&house, name).await;
        }
    }
    let now = town.done();
    until("the load flows again", || async { town.done() > now + 100 }).await;
    let (failures, acknowledged) = town.close(patrons).await;
    assert!(
        failures.is_empty(),
        "{} answers were wrong: {:?}",
        failures.len(),
        failures.first()
    );
    check_orders(&ledger, &acknowledged);
    assert!(journal.len() >= 18);
}

/// Saves routes and registers services until it is stopped, and remembers what was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    names: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    fn start(house: &House, round: usize, port: u16) -> Self {
        let (stop, names) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (base, token) = (house.http.clone(), house.operator());
        let task = tokio::spawn(write(
            base,
            token,
            round,
            port,
            Arc::clone(&stop),
            Arc::clone(&names),
        ));
        Self { stop, names, task }
    }

    fn written(&self) -> usize {
        self.names.lock().unwrap().len()
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        std::mem::take(&mut *self.names.lock().unwrap())
    }
}

async fn write(
    base: String,
    token: String,
    round: usize,
    port: u16,
    stop: Arc<AtomicBool>,
    names: Arc<Mutex<Vec<String>>>,
) {
    let client = client();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("word-{round}-{n}");
        let route = json!({ "doc": { "path": { "exact": format!("/{name}") }, "target": { "fixed": { "status": 200, "body": name } } } });
        let service = json!({
            "name": format!("svc-{round}-{n}"), "version": "1.0.0", "host": "127.0.0.1", "port": port, "default_access": "public",
        });
        let (method, path, body) = if n % 2 == 0 {
            (
                Method::PUT,
                format!("{base}/api/gateway/routes/{name}"),
                route,
            )
        } else {
            (
                Method::POST,
                format!("{base}/api/registry/register"),
                service,
            )
        };
        let made = answer(client.request(method, path).bearer_auth(&token).json(&body)).await;
        if made.is_ok_and(|made| made.status < 300) {
            names.lock().unwrap().push(if n % 2 == 0 {
                format!("/{name}")
            } else {
                format!("/api/svc-{round}-{n}/item?id={name}")
            });
        }
    }
}

/// What was acknowledged holds at once, at the first request after the start.
async fn assert_known(house: &House, path: &str) {
    let expected = path.trim_start_matches('/').rsplit('=').next().unwrap();
    let got = house.get(path).await;
    assert_eq!((got.status, got.text.as_str()), (200, expected), "{path}");
}

/// A program of its own that serves and writes every order into a file.
const PROGRAM: &str = r#"
import http.server, os, socketserver, sys, urllib.parse
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in one write: an answer that has begun cannot be asked for again elsewhere.
    wbufsize = 65536
    def say(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        self.say(query.get("id", ["ok"])[0].encode())
    def do_POST(self):
        order = self.rfile.read(int(self.headers["Content-Length"]))
        os.write(log, order + b"\n")
        self.say(order)
    def log_message(self, *_):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

struct Program {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Program {
    /// Starts it on a port, 0 for a free one; nothing where there is no Python.
    fn start(house: &House, name: &str, port: u16) -> Option<Self> {
        let log = house.folder.path().join(format!("{name}.log"));
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM, &port.to_string()])
            .arg(&log)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| skip("no python3"))
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().parse().expect("the program says its port");
        Some(Self { child, port, log })
    }

    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Every order that reached it.
    fn orders(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two programs behind a house whose checks and breakers are quick.
fn two_programs(first_byte_ms: u32) -> Option<(House, Program, Program)> {
    let text = format!(
        "[settings]\n\"gateway.timeouts.first_byte_ms\" = {first_byte_ms}\n\
         \"gateway.breaker.open_s\" = 2\n\"registry.check.interval_s\" = 1\n"
    );
    let house = House::configured(&text, &[]);
    let (a, b) = (
        Program::start(&house, "a", 0)?,
        Program::start(&house, "b", 0)?,
    );
    Some((house, a, b))
}

async fn enrol(house: &House, program: &Program, key: &str) {
    let check = format!("http://127.0.0.1:{}/", program.port);
    house
        .register(
            "shop",
            program.port,
            json!({ "instance_key": key, "health_check_url": check }),
        )
        .await;
}

async fn states(house: &House) -> Vec<String> {
    let answer = house
        .operate(
            Method::GET,
            "/api/registry/services?name=shop&state=all",
            None,
        )
        .await;
    let items = answer.json()["items"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    items
        .iter()
        .map(|item| item["state"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Patrons that look tolerate no error; those that buy tolerate one, but never two of the same order.
fn patrons(town: &Arc<Town>) -> JoinSet<()> {
    let mut patrons = JoinSet::new();
    for n in 0..12 {
        let posts = n % 4 == 0;
        patrons.spawn(Arc::clone(town).patron(0, posts, PERIOD, !posts));
    }
    patrons
}

fn check_programs(
    house: &House,
    programs: &[&Program],
    failures: &[String],
    acknowledged: &[String],
) {
    let first: Vec<_> = failures.iter().take(3).collect();
    let log = house.log();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"status\":50") || !line.contains("\"kind\":\"access\""))
        .collect();
    assert!(
        failures.is_empty(),
        "{} idempotent requests failed: {first:?}\n{}",
        failures.len(),
        told.join("\n")
    );
    let ledger = Ledger::default();
    for program in programs {
        for order in program.orders() {
            *ledger.lock().unwrap().entry(order).or_default() += 1;
        }
    }
    check_orders(&ledger, acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_instance_costs_no_idempotent_request_and_doubles_no_order() {
    let Some((house, a, mut b)) = two_programs(30_000) else {
        return;
    };
    enrol(&house, &a, "a").await;
    enrol(&house, &b, "b").await;
    let town = Town::new(&[&house]);
    let patrons = patrons(&town);
    for _ in 0..2 {
        let now = b.orders().len();
        until("both get orders", || async { b.orders().len() > now + 5 }).await;
        b.signal(Signal::SIGKILL);
        until("the registry knows", || async {
            states(&house).await.contains(&"failing".to_owned())
        })
        .await;
        let now = town.done();
        until("the other serves", || async { town.done() > now + 100 }).await;
        let port = b.port;
        let Some(again) = Program::start(&house, "b", port) else {
            return;
        };
        b = again;
        until("it is ready again", || async {
            states(&house).await == ["ready", "ready"]
        })
        .await;
    }
    let (failures, acknowledged) = town.close(patrons).await;
    check_programs(&house, &[&a, &b], &failures, &acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_instance_is_gone_around_and_comes_back() {
    let Some((house, a, b)) = two_programs(2_000) else {
        return;
    };
    enrol(&house, &a, "a").await;
    enrol(&house, &b, "b").await;
    let town = Town::new(&[&house]);
    let patrons = patrons(&town);
    until("both get orders", || async {
        b.orders().len() > 5 && a.orders().len() > 5
    })
    .await;
    b.signal(Signal::SIGSTOP);
    until("the registry knows", || async {
        states(&house).await.contains(&"failing".to_owned())
    })
    .await;
    // What was under way to it runs into the time-out of two seconds, and is not tried again: it may be at work.
    let begun = Instant::now();
    until("the rest is over", || async {
        begun.elapsed() > Duration::from_secs(3)
    })
    .await;
    let late = town.failures();
    let now = town.done();
    until("the other serves", || async { town.done() > now + 200 }).await;
    assert_eq!(town.failures(), late, "nobody is sent to it any more");
    b.signal(Signal::SIGCONT);
    until("it is ready again", || async {
        states(&house).await == ["ready", "ready"]
    })
    .await;
    let now = b.orders().len();
    until("and gets orders again", || async {
        b.orders().len() > now + 3
    })
    .await;
    let (failures, acknowledged) = town.close(patrons).await;
    let timeouts = failures
        .iter()
        .filter(|text| text.contains("504 ") && text.contains("gateway.upstream_timeout"));
    assert_eq!(timeouts.count(), failures.len(), "{failures:?}");
    assert!(
        failures.len() <= 24,
        "{} requests ran into it: {failures:?}",
        failures.len()
    );
    check_programs(&house, &[&a, &b], &[], &acknowledged);
}
