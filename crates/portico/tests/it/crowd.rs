//! Crowds: ten thousand connections, readers that do not read, heads without an end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::house::{House, until};
use crate::raw::{RawServer, answer_always, read_head, status};

/// Resident memory of a process in bytes.
pub(crate) fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// As many sockets as the system lets this process have, at most 10,000.
fn crowd_size() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let room = usize::try_from(hard)
        .unwrap_or(usize::MAX)
        .saturating_sub(1000);
    let size = room.min(10_000);
    if size < 10_000 {
        let line =
            format!("the limit of open files is {hard}: a crowd of {size} instead of 10000\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    size
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_cost_little_and_keep_nobody_out() {
    let house = House::start(&[]);
    let hello = RawServer::start(|stream, _| answer_always(stream, "hello"));
    house.register("hello", hello.port(), json!({})).await;
    let size = crowd_size();
    assert!(size >= 500, "too few open files are allowed");
    assert_eq!(house.get("/api/hello/").await.text, "hello");
    let before = memory(house.pid());
    let word = json!({ "path": { "exact": "/word" }, "target": { "fixed": { "status": 200, "body": "here" } } });
    house.save("routes", "word", word).await;
    let request = format!("GET /word HTTP/1.1\r\nHost: {}\r\n\r\n", house.address());
    let ask = |stream: &mut TcpStream| stream.write_all(request.as_bytes()).unwrap();
    let is_served = |stream: &mut TcpStream| {
        let mut body = [0; 4];
        let status = read_head(stream).map_or(0, |head| status(&head));
        status == 200 && stream.read_exact(&mut body).is_ok() && &body == b"here"
    };
    let mut crowd = Vec::with_capacity(size);
    while crowd.len() < size {
        // A connection that never asks is cut after the time for a head; one that was served may idle.
        let mut some: Vec<TcpStream> = (0..250.min(size - crowd.len()))
            .map(|_| TcpStream::connect(house.address()).unwrap())
            .collect();
        some.iter_mut().for_each(&ask);
        assert!(some.iter_mut().all(&is_served));
        crowd.append(&mut some);
    }
    until("all are counted", || async {
        house.metric("portico_gateway_connections").await >= size as f64
    })
    .await;
    let each = memory(house.pid()).saturating_sub(before) / size as u64;
    assert!(each < 32 * 1024, "{each} bytes for each idle connection");
    for _ in 0..20 {
        assert_eq!(house.get("/api/hello/").await.text, "hello");
    }
    for stream in crowd.iter_mut().step_by(500) {
        ask(stream);
        assert!(
            is_served(stream),
            "an idle connection is as good as a new one"
        );
    }
    drop(crowd);
    until("all are let go", || async {
        house.metric("portico_gateway_connections").await < 100.0
    })
    .await;
}

#[tokio::test]
async fn readers_that_do_not_read_hold_back_the_writer_and_nobody_else() {
    const SIZE: usize = 20 * 1024 * 1024;
    let house = House::start(&[]);
    let large = RawServer::start(|mut stream, _| {
        if read_head(&mut stream).is_none() {
            return;
        }
        let _ = stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes());
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..SIZE / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let hello = RawServer::start(|stream, _| answer_always(stream, "hello"));
    house.register("large", large.port(), json!({})).await;
    house.register("hello", hello.port(), json!({})).await;
    assert_eq!(house.get("/api/hello/").await.text, "hello");
    let before = memory(house.pid());
    let mut readers: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(house.address()).unwrap();
            write!(
                stream,
                "GET /api/large/ HTTP/1.1\r\nHost: {}\r\n\r\n",
                house.address()
            )
            .unwrap();
            assert_eq!(status(&read_head(&mut stream).unwrap()), 200);
            stream
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(house.get("/api/hello/").await.text, "hello");
    }
    let grown = memory(house.pid()).saturating_sub(before);
    assert!(
        grown < 16 * 1024 * 1024,
        "{grown} bytes for 20 readers that do not read 400 MB"
    );
    // A reader that goes on gets everything.
    let mut got = 0;
    let mut piece = vec![0; 256 * 1024];
    readers[0]
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    while got < SIZE {
        got += readers[0].read(&mut piece).unwrap();
    }
    assert_eq!(got, SIZE);
}

#[tokio::test]
async fn heads_without_an_end_are_cut_off() {
    let house = House::start(&[]);
    assert_eq!(house.get("/healthz").await.status, 200);
    let before = memory(house.pid());
    let mut bombs = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(house.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let _ = write!(
            stream,
            "GET /healthz HTTP/1.1\r\nHost: {}\r\n",
            house.address()
        );
        let line = format!("X-Long: {}\r\n", "y".repeat(8000));
        for _ in 0..50 {
            if stream.write_all(line.as_bytes()).is_err() {
                break;
            }
        }
        bombs.push(stream);
    }
    for mut stream in bombs {
        let mut out = Vec::new();
        // A reset may swallow the answer; an open connection would end in a time-out.
        let end = stream.read_to_end(&mut out);
        let timed_out = end.as_ref().is_err_and(|e| {
            matches!(
                e.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            )
        });
        assert!(!timed_out, "the connection stays open");
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(out.is_empty() || status(&text) == 431, "{text}");
    }
    let grown = memory(house.pid()).saturating_sub(before);
    assert!(
        grown < 16 * 1024 * 1024,
        "{grown} bytes for 100 heads without an end"
    );
    assert_eq!(house.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn floods_of_continuation_frames_are_cut_off() {
    let house = House::start(&[]);
    let mut stream = TcpStream::connect(house.address()).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut out = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        out.extend_from_slice(payload);
        out
    };
    stream.write_all(&frame(1, &[0x82])).unwrap();
    // Literal fields `a: b` (RFC 7541 §6.2.2), 16 KB of them in each of 4,000 frames.
    let fields = [0x00, 1, b'a', 1, b'b'].repeat(3200);
    let flood = frame(9, &fields);
    let sent = (0..4000)
        .take_while(|_| stream.write_all(&flood).is_ok())
        .count();
    assert!(sent < 4000, "64 MB of one head were taken");
    assert_eq!(house.get("/healthz").await.status, 200);
}
