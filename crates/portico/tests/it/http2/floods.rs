//! Floods: the connection is closed or held back, memory stays, the others are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::frames::{
    DATA, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, Got, PADDED, PING, PRIORITY, PROTOCOL_ERROR, Peer,
    frame, get, headers, request, reset, settings, window_update,
};
use crate::crowd::memory;
use crate::house::House;
use crate::raw::{RawServer, answer_always, read_head};

/// How much one flood may add.
const ROOM: u64 = 48 * 1024 * 1024;

struct Flooded {
    house: House,
    before: u64,
    /// Requests that a slow instance was asked.
    asked: Arc<AtomicUsize>,
    _servers: [RawServer; 3],
}

impl Flooded {
    async fn start() -> Self {
        let house = House::start(&[]);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let hanging = RawServer::start(move |mut stream, _| {
            while read_head(&mut stream).is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let large = RawServer::start(|stream, _| answer_always(stream, &"x".repeat(1024 * 1024)));
        let good = RawServer::start(|stream, _| answer_always(stream, "fine"));
        house.register("hanging", hanging.port(), json!({})).await;
        house.register("large", large.port(), json!({})).await;
        house.register("good", good.port(), json!({})).await;
        assert_eq!(house.get("/api/good/").await.text, "fine");
        let before = memory(house.pid());
        Self {
            house,
            before,
            asked,
            _servers: [hanging, large, good],
        }
    }

    /// Floods over `count` connections with what `piece` makes, `pieces` times each, while another
    /// client is served. Answers how each connection ended.
    async fn flood(
        &self,
        count: usize,
        pieces: usize,
        begin: Vec<u8>,
        piece: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
    ) -> Vec<End> {
        let piece = Arc::new(piece);
        let floods: Vec<_> = (0..count)
            .map(|_| {
                let (address, piece, begin) = (
                    self.house.address().to_owned(),
                    Arc::clone(&piece),
                    begin.clone(),
                );
                tokio::task::spawn_blocking(move || {
                    let mut peer = Peer::connect(&address);
                    peer.send(&begin);
                    let sent = (0..pieces).take_while(|n| peer.send(&piece(*n))).count();
                    let got = peer.until_ping(Duration::from_secs(3));
                    End {
                        stopped: sent < pieces,
                        closed: peer.closed,
                        code: got.iter().find(|g| g.kind == GOAWAY).map(Got::code),
                    }
                })
            })
            .collect();
        let mut most = 0;
        let end = Instant::now() + Duration::from_secs(60);
        while !floods.iter().all(tokio::task::JoinHandle::is_finished) {
            assert!(Instant::now() < end, "the flood does not end");
            assert_eq!(
                self.house.get("/api/good/").await.text,
                "fine",
                "the others are served"
            );
            most = most.max(memory(self.house.pid()).saturating_sub(self.before));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(most < ROOM, "{most} bytes more during the flood");
        let mut ends = Vec::new();
        for flood in floods {
            ends.push(flood.await.unwrap());
        }
        ends
    }
}

#[derive(Debug)]
struct End {
    /// Not everything could be sent.
    stopped: bool,
    closed: bool,
    code: Option<u32>,
}

fn all_closed(ends: &[End]) {
    for end in ends {
        assert!(end.closed || end.code.is_some(), "{ends:?}");
        assert!(
            matches!(end.code, None | Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)),
            "{ends:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection() {
    let flooded = Flooded::start().await;
    let ends = flooded
        .flood(4, 200, Vec::new(), |n| {
            (0..50_u32)
                .flat_map(|m| {
                    let stream = 2 * (50 * u32::try_from(n).unwrap() + m) + 1;
                    [get(stream, "/api/hanging/"), reset(stream)].concat()
                })
                .collect()
        })
        .await;
    all_closed(&ends);
    let asked = flooded.asked.load(Ordering::SeqCst);
    assert!(
        asked < 4000,
        "{asked} of 40000 requests that were taken back reached the instance"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_makes_us_reset_is_sent_away() {
    let flooded = Flooded::start().await;
    let ends = flooded
        .flood(2, 400, Vec::new(), |n| {
            (0..25_u32)
                .flat_map(|m| {
                    let stream = 2 * (25 * u32::try_from(n).unwrap() + m) + 1;
                    [get(stream, "/api/hanging/"), window_update(stream, 0)].concat()
                })
                .collect()
        })
        .await;
    all_closed(&ends);
    let asked = flooded.asked.load(Ordering::SeqCst);
    assert!(asked < 5000, "{asked} requests reached the instance");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_control_frames_are_held_back() {
    let flooded = Flooded::start().await;
    let pings = frame(PING, 0, 0, b"12345678").repeat(500);
    flooded
        .flood(2, 200, Vec::new(), move |_| pings.clone())
        .await;
    let changes = settings(&[(4, 70_000), (3, 100)]).repeat(500);
    flooded
        .flood(2, 200, Vec::new(), move |_| changes.clone())
        .await;
    let priorities = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]).repeat(500);
    flooded
        .flood(1, 200, Vec::new(), move |_| priorities.clone())
        .await;
    let credit = window_update(0, 1).repeat(500);
    flooded
        .flood(1, 200, Vec::new(), move |_| credit.clone())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_empty_data_do_not_pile_up() {
    let flooded = Flooded::start().await;
    let begin = headers(1, 0, &request("POST", "/api/hanging/", &[]));
    let empty = frame(DATA, 0, 1, b"").repeat(1000);
    let padded = frame(DATA, PADDED, 1, &[3, 0, 0, 0]).repeat(1000);
    flooded
        .flood(2, 500, begin.clone(), move |_| empty.clone())
        .await;
    flooded.flood(2, 200, begin, move |_| padded.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_block_does_not_become_a_large_head() {
    let flooded = Flooded::start().await;
    // One field of 3,900 bytes in the table, then named 4,000 times with one byte each: 15 MB.
    let mut block = request("GET", "/api/good/", &[]);
    block.extend([0x40, 1, b'x', 0x7f]);
    let mut rest = 3900_usize - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend([b'y'; 3900]);
    block.extend([0xbe; 4000]);
    let bomb = move |n: usize| headers(2 * u32::try_from(n).unwrap() + 1, END_STREAM, &block);
    flooded.flood(4, 50, Vec::new(), bomb).await;
    let asked = flooded.house.metric("portico_gateway_requests_total").await;
    assert!(asked < 1000.0, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_windows_hold_little() {
    let flooded = Flooded::start().await;
    let begin = settings(&[(4, 0)]);
    // 100 answers of a megabyte each are asked for and never taken; then a byte of each.
    let ends = flooded
        .flood(3, 100, begin, |n| {
            get(2 * u32::try_from(n).unwrap() + 1, "/api/large/")
        })
        .await;
    assert!(ends.iter().all(|end| !end.stopped), "{ends:?}");
}
