//! Bad neighbours for a while: whatever some plug-ins do, the others are served and nothing grows (PL-9).

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::crowd::memory;
use crate::house::{House, until};
use crate::raw::{RawServer, read_head};
use crate::shop::{Ledger, Shop, Town, check_orders};
use crate::wire::Wire;

/// How long it goes on.
const FOR: Duration = Duration::from_secs(8);

/// Services that do everything wrong, each in its way.
fn bad_ones() -> Vec<(&'static str, RawServer)> {
    let gone = |mut stream: std::net::TcpStream| while stream.write_all(&[b'x'; 8192]).is_ok() {};
    vec![
        (
            "hangs",
            RawServer::start(|mut stream, _| while read_head(&mut stream).is_some() {}),
        ),
        (
            "garbage",
            RawServer::start(|mut stream, _| {
                read_head(&mut stream);
                let _ = stream.write_all(b"\x16\x03\x01 nonsense\r\n\r\n");
            }),
        ),
        (
            "endless-head",
            RawServer::start(move |mut stream, _| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
                gone(stream);
            }),
        ),
        (
            "endless-body",
            RawServer::start(move |mut stream, _| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                gone(stream);
            }),
        ),
        (
            "trickles",
            RawServer::start(|mut stream, _| {
                read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }),
        ),
        (
            "interim",
            RawServer::start(|mut stream, _| {
                read_head(&mut stream);
                while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
            }),
        ),
        (
            "errors",
            RawServer::start(|mut stream, _| {
                while read_head(&mut stream).is_some() {
                    if stream
                        .write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
                        .is_err()
                    {
                        return;
                    }
                }
            }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_plugins_cost_the_others_nothing_and_nothing_grows() {
    let house = House::configured(
        "[settings]\n\"gateway.timeouts.first_byte_ms\" = 1000\n\"gateway.timeouts.between_bytes_ms\" = 2000\n",
        &[],
    );
    let ledger = Ledger::default();
    let shop = Shop::open(&ledger).await;
    house.register("shop", shop.port, json!({})).await;
    let bad = bad_ones();
    for (name, server) in &bad {
        house.register(name, server.port(), json!({})).await;
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    house.register("refuses", port, json!({})).await;
    drop(closed);

    let town = Town::new(&[&house]);
    let mut patrons = JoinSet::new();
    for n in 0..4 {
        patrons.spawn(Arc::clone(&town).patron(0, n == 0, Duration::from_millis(20), true));
    }
    until("the good one is served", || async { town.done() > 100 }).await;
    let before = memory(house.pid());
    let stop = Arc::new(AtomicBool::new(false));
    let mut victims = JoinSet::new();
    let names = bad.iter().map(|(name, _)| *name).chain(["refuses"]);
    for name in names {
        for _ in 0..6 {
            let (address, stop) = (house.address().to_owned(), Arc::clone(&stop));
            victims.spawn(async move {
                let mut asked = 0_usize;
                while !stop.load(Ordering::SeqCst) {
                    // Some give up early, some never read what they get.
                    let ask = async {
                        let mut wire = Wire::connect(&address).await?;
                        let request =
                            format!("GET /api/{name}/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
                        wire.ask(&request).await
                    };
                    let patience = Duration::from_millis(200 + 400 * (asked as u64 % 4));
                    let _ = tokio::time::timeout(patience, ask).await;
                    asked += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                asked
            });
        }
    }
    let (begun, at_begin) = (Instant::now(), town.done());
    until("it went on for long enough", || async {
        begun.elapsed() > FOR
    })
    .await;
    let served = town.done() - at_begin;
    let grown = memory(house.pid()).saturating_sub(before);
    stop.store(true, Ordering::SeqCst);
    let asked: usize = victims.join_all().await.into_iter().sum();
    let (failures, acknowledged) = town.close(patrons).await;
    assert!(
        failures.is_empty(),
        "{} failed: {:?}",
        failures.len(),
        failures.first()
    );
    assert_eq!(check_orders(&ledger, &acknowledged), acknowledged.len());
    assert!(asked > 200, "only {asked} requests to the bad ones");
    assert!(served > 50, "only {served} requests in {FOR:?} beside them");
    assert!(
        grown < 48 * 1024 * 1024,
        "{grown} bytes more after {asked} requests to bad plug-ins"
    );
    until("nothing of it is left open", || async {
        house.metric("portico_gateway_in_flight").await == 0.0
    })
    .await;
}
