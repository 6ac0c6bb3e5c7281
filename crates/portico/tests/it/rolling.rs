//! A rolling restart under load: no failed request, no doubled order, streams told to go elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::signal::Signal;
use portico_db::testing::PrivateServer;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::house::{House, until};
use crate::scaled::redis;
use crate::shop::{Ledger, Shop, Town, check_orders};
use crate::wire::Wire;

/// Requests a second in total; `PORTICO_TEST_RATE` asks for another.
fn rate() -> u32 {
    std::env::var("PORTICO_TEST_RATE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300)
}

const PATRONS: u32 = 24;
const TALKERS: usize = 100;
const READERS: usize = 20;
/// HTTP/2 connections, and streams open on each.
const BUNDLES: usize = 8;
const IN_BUNDLE: usize = 10;
const STREAMS: usize = TALKERS + READERS + BUNDLES * IN_BUNDLE;

const CONFIG: &str =
    "[shutdown]\ndrain_delay_s = 2\ngrace_s = 4\nforce_s = 20\n[keys]\nmaster = \"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one scene, read from top to bottom")]
async fn a_rolling_restart_fails_no_request_and_doubles_no_order() {
    let Some(postgres) = PrivateServer::start() else {
        return;
    };
    let Some(redis) = redis() else { return };
    let (database, state) = (postgres.url(), redis.url().to_owned());
    let arguments = ["--database", database.as_str(), "--redis", state.as_str()];
    let text = format!("{CONFIG}{}\"\n", "5a".repeat(32));
    let mut houses = [0, 1].map(|_| House::configured(&text, &arguments));
    let ledger = Ledger::default();
    for key in ["a", "b", "c"] {
        let shop = Shop::open(&ledger).await;
        houses[0]
            .register("shop", shop.port, json!({ "instance_key": key }))
            .await;
    }
    until("both replicas know the shop", || async {
        houses[1].get("/api/shop/item?id=1").await.text == "1"
    })
    .await;

    let town = Town::new(&[&houses[0], &houses[1]]);
    let mut patrons = JoinSet::new();
    let period = Duration::from_secs(1) * PATRONS / rate();
    for n in 0..PATRONS as usize {
        patrons.spawn(Arc::clone(&town).patron(n, n % 3 == 0, period, true));
    }
    let mut streams = JoinSet::new();
    for n in 0..TALKERS {
        streams.spawn(talker(Arc::clone(&town), n));
    }
    for n in 0..READERS {
        streams.spawn(reader(Arc::clone(&town), n));
    }
    for n in 0..BUNDLES {
        streams.spawn(bundle(Arc::clone(&town), n));
    }
    let begun = Instant::now();
    until("all streams are open", || async {
        town.streams.load(Ordering::SeqCst) >= STREAMS
    })
    .await;

    for index in [0, 1] {
        let told = town.told.load(Ordering::SeqCst);
        houses[index].signal(Signal::SIGTERM);
        let code = tokio::task::block_in_place(|| houses[index].wait());
        assert_eq!(code, 0, "{}", houses[index].log());
        // Event streams of HTTP/1.1 have no word for going away: they last as long as the grace.
        let log = houses[index].log();
        let cut: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("cut at the stop"))
            .collect();
        assert!(
            cut.iter().all(|line| line.ends_with("GET /api/shop/feed")),
            "{cut:?}"
        );
        let folder = houses[index].folder.clone();
        houses[index] = tokio::task::block_in_place(|| House::at(folder, &arguments));
        town.place(index, &houses[index]);
        until("all streams are open again", || async {
            assert_eq!(town.failures(), "");
            town.streams.load(Ordering::SeqCst) >= STREAMS
        })
        .await;
        let told = town.told.load(Ordering::SeqCst) - told;
        assert!(
            told >= STREAMS / 3,
            "only {told} streams were told to leave replica {index}"
        );
        let now = town.done();
        until("the load goes on", || async { town.done() > now + 50 }).await;
    }

    let seconds = begun.elapsed().as_secs_f64();
    let done = town.done();
    let (failures, acknowledged) = town.close(patrons).await;
    streams.abort_all();
    assert!(
        failures.is_empty(),
        "{} of {done} failed, the first: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    let orders = check_orders(&ledger, &acknowledged);
    assert_eq!(
        orders,
        acknowledged.len(),
        "an order that nobody acknowledged"
    );
    let line = format!(
        "rolling restart: {done} requests in {seconds:.1} s ({:.0}/s, {orders} orders), {STREAMS} streams, {} of them told to leave, 0 failed\n",
        done as f64 / seconds,
        town.told.load(Ordering::SeqCst),
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_an_instance_that_leaves_are_told_so() {
    let house = House::start(&[]);
    let ledger = Ledger::default();
    let (first, second) = (Shop::open(&ledger).await, Shop::open(&ledger).await);
    let leaving = house
        .register("shop", first.port, json!({ "instance_key": "a" }))
        .await;
    let town = Town::new(&[&house]);
    let mut talkers = JoinSet::new();
    for n in 0..10 {
        talkers.spawn(talker(Arc::clone(&town), n));
    }
    until("all talk", || async {
        town.streams.load(Ordering::SeqCst) == 10
    })
    .await;
    house
        .register("shop", second.port, json!({ "instance_key": "b" }))
        .await;
    let drain = format!("/api/registry/deregister/{leaving}");
    let answer = house
        .operate(reqwest::Method::POST, &drain, Some(&json!({})))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    until("all were told, and talk to the other", || async {
        assert_eq!(town.failures(), "");
        town.told.load(Ordering::SeqCst) == 10 && town.streams.load(Ordering::SeqCst) == 10
    })
    .await;
}

/// A WebSocket client: everything it says comes back, until it is told that the server goes away.
async fn talker(town: Arc<Town>, n: usize) {
    while !town.stopped() {
        let address = town.find(n).await;
        let request = format!("ws://{address}/api/shop/talk");
        let stream = TcpStream::connect(&address).await;
        let made = match stream {
            Ok(stream) => tokio_tungstenite::client_async(request, stream)
                .await
                .map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let mut socket = match made {
            Ok((socket, _)) => socket,
            Err(error) => return town.fail(format!("no WebSocket: {error}")),
        };
        town.streams.fetch_add(1, Ordering::SeqCst);
        let end = converse(&mut socket, n).await;
        town.streams.fetch_sub(1, Ordering::SeqCst);
        match end {
            Ok(CloseCode::Away) => town.told.fetch_add(1, Ordering::SeqCst),
            other => return town.fail(format!("a WebSocket ended with {other:?}")),
        };
    }
}

async fn converse<S>(
    socket: &mut tokio_tungstenite::WebSocketStream<S>,
    n: usize,
) -> Result<CloseCode, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let (mut said, mut heard) = (0_u64, 0_u64);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                socket.send(Message::text(format!("{n} {said}"))).await.map_err(|e| format!("send: {e}"))?;
                said += 1;
            }
            got = socket.next() => match got {
                Some(Ok(Message::Text(text))) if text.as_str() == format!("{n} {heard}") => heard += 1,
                Some(Ok(Message::Close(Some(frame)))) => {
                    // The answer to the Close goes out with the next turn.
                    while let Some(Ok(_)) = socket.next().await {}
                    return Ok(frame.code);
                }
                other => return Err(format!("{other:?}")),
            }
        }
    }
}

/// Reads events over HTTP/1.1 until the server ends them.
async fn reader(town: Arc<Town>, n: usize) {
    while !town.stopped() {
        let address = town.find(n).await;
        let Ok(mut wire) = Wire::connect(&address).await else {
            return town.fail("no connection for events");
        };
        let request =
            "GET /api/shop/feed HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n";
        if wire.send(request.as_bytes()).await.is_err() {
            return town.fail("no request for events");
        }
        match wire.head().await {
            Ok(head) if head.starts_with("HTTP/1.1 200") => {}
            other => return town.fail(format!("no events: {other:?}")),
        }
        town.streams.fetch_add(1, Ordering::SeqCst);
        while let Ok(Some(_)) = wire.chunk().await {}
        town.streams.fetch_sub(1, Ordering::SeqCst);
        town.moved.fetch_add(1, Ordering::SeqCst);
    }
}

/// Several event streams over one HTTP/2 connection, and requests beside them, until GOAWAY.
async fn bundle(town: Arc<Town>, n: usize) {
    while !town.stopped() {
        let address = town.find(n).await;
        if let Err(error) = one_bundle(&town, &address).await {
            return town.fail(format!("HTTP/2: {error}"));
        }
    }
}

/// Takes what comes, as a reader of events does.
async fn read_on(mut body: h2::RecvStream) {
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
}

async fn one_bundle(town: &Town, address: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| format!("connect: {e}"))?;
    let (client, connection) = h2::client::handshake(stream)
        .await
        .map_err(|e| format!("handshake: {e}"))?;
    let driver = tokio::spawn(connection);
    let mut bodies = JoinSet::new();
    let end = match open_all(town, &client, address, &mut bodies).await {
        Opened::All => beside(town, &client, address).await,
        Opened::ToldToLeave => Ok(()),
        Opened::Failed(why) => Err(why),
    };
    town.streams.fetch_sub(bodies.len(), Ordering::SeqCst);
    if end.is_ok() {
        town.told.fetch_add(bodies.len(), Ordering::SeqCst);
    }
    // Streams still open are let go by us, so that the server need not wait for them.
    drop(bodies);
    drop(client);
    let _ended = tokio::time::timeout(Duration::from_secs(5), driver).await;
    end
}

enum Opened {
    All,
    /// GOAWAY came before the last of them: nobody has seen that one, it may be asked elsewhere (RFC 9113 §6.8).
    ToldToLeave,
    Failed(String),
}

fn is_goodbye(error: &h2::Error) -> bool {
    error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}

async fn open_all(
    town: &Town,
    client: &h2::client::SendRequest<bytes::Bytes>,
    address: &str,
    bodies: &mut JoinSet<()>,
) -> Opened {
    for _ in 0..IN_BUNDLE {
        let asked = async {
            let mut client = client.clone().ready().await?;
            let request = http::Request::get(format!("http://{address}/api/shop/feed"))
                .body(())
                .unwrap();
            client.send_request(request, true)?.0.await
        };
        match asked.await {
            Ok(answer) if answer.status() == 200 => {
                bodies.spawn(read_on(answer.into_body()));
                town.streams.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) => return Opened::Failed(format!("events: {}", answer.status())),
            Err(error) if is_goodbye(&error) => return Opened::ToldToLeave,
            Err(error) => return Opened::Failed(format!("events: {error}")),
        }
    }
    Opened::All
}

/// Requests on the connection of the streams, until the server says that it goes away.
async fn beside(
    town: &Town,
    client: &h2::client::SendRequest<bytes::Bytes>,
    address: &str,
) -> Result<(), String> {
    loop {
        // A client that respects GOAWAY asks nothing more on this connection.
        let Ok(mut client) = client.clone().ready().await else {
            break Ok(());
        };
        let id = town.id();
        let request = http::Request::get(format!("http://{address}/api/shop/item?id={id}"))
            .body(())
            .unwrap();
        let Ok((answer, _)) = client.send_request(request, true) else {
            break Ok(());
        };
        match answer.await {
            Ok(answer) if answer.status() == 200 => {
                let mut body = answer.into_body();
                let mut text = Vec::new();
                while let Some(data) = body.data().await {
                    match data {
                        Ok(data) => text.extend_from_slice(&data),
                        Err(error) => {
                            text.extend_from_slice(error.to_string().as_bytes());
                            break;
                        }
                    }
                }
                if text != id.as_bytes() {
                    break Err(format!(
                        "{id} answered {:?}",
                        String::from_utf8_lossy(&text)
                    ));
                }
                town.done.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) if is_goodbye(&error) => break Ok(()),
            other => break Err(format!("{id}: {other:?}")),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
