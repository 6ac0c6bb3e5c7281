//! Connections to instances: reuse, dead ones, wrong answers, time limits, queues.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::backend::Backend;
use super::client::eventually;
use super::rig::{Rig, Setup};
use crate::serve::Outcome;
use crate::upstream::{Endpoint, PoolLimits, Protocol, SendOptions, Target};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn wrong_answers_are_502_and_their_connection_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 777 Strange\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ] {
        let backend = Backend::new(move |mut served| {
            served.request();
            served.send(answer);
        });
        let rig = Rig::new(&backend);
        let mut client = rig.client();
        client.send(GET);
        let got = client.answer();
        assert_eq!(
            got.status(),
            502,
            "{:?}: {}",
            String::from_utf8_lossy(answer),
            got.text()
        );
        client.send(GET);
        assert_eq!(client.answer().status(), 502);
        assert_eq!(
            backend.connections(),
            2,
            "{:?}",
            String::from_utf8_lossy(answer)
        );
    }
}

#[test]
fn bytes_behind_an_answer_never_become_the_next_answer() {
    let backend = Backend::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(client.answer().text(), "ok");
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn bytes_that_come_late_spoil_a_pooled_connection() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (told, sent) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::new(move |mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        // Only when the gateway has put the connection away: an answer that nobody asked for.
        if wait.lock().recv().is_ok() {
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            told.send(()).unwrap();
            served.some();
        }
    });
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    for method in ["GET", "POST", "GET", "POST"] {
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(client.answer().text(), "ok");
        go.send(()).unwrap();
        sent.recv().unwrap();
    }
    assert_eq!(backend.connections(), 4);
}

#[test]
fn a_body_shorter_than_announced_breaks_the_answer_instead_of_ending_it() {
    let backend = Backend::new(|mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    });
    let rig = Rig::new(&backend);
    let got = rig.once(GET);
    assert!(
        got.contains("content-length: 10\r\n") && got.ends_with("half"),
        "{got}"
    );
    assert_eq!(rig.ends(1)[0].outcome, Outcome::Broken);
    let backend = Backend::new(|mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    });
    let rig = Rig::new(&backend);
    let got = rig.once(GET);
    assert!(
        got.contains("half") && !got.contains("\r\n0\r\n"),
        "no end is made up: {got}"
    );
}

#[test]
fn a_back_end_that_cannot_be_reached_is_502_at_once() {
    let free = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = Endpoint::Tcp {
        host: "127.0.0.1".into(),
        port: free.port(),
    };
    let target = Arc::new(Target::new("gone", endpoint, Protocol::Http1, None));
    let rig = Rig::start(Setup {
        target: Some(target),
        ..Setup::default()
    });
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.answer().status(), 502);
}

#[test]
fn a_name_is_resolved_and_a_unix_socket_is_spoken_to() {
    let backend = Backend::echo();
    let endpoint = Endpoint::Tcp {
        host: "localhost".into(),
        port: backend.address.port(),
    };
    let rig = Rig::start(Setup {
        target: Some(Arc::new(Target::new(
            "named",
            endpoint,
            Protocol::Http1,
            None,
        ))),
        ..Setup::default()
    });
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.answer().status(), 200);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Read::read(&mut stream, &mut [0; 1024]).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix")
            .unwrap();
    });
    let target = Target::new("unix", Endpoint::Unix(path), Protocol::Http1, None);
    let rig = Rig::start(Setup {
        target: Some(Arc::new(target)),
        ..Setup::default()
    });
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.answer().text(), "unix");
}

/// Answers with the request's path, and after some answers closes without a word.
fn closing_at_random(executed: &Arc<Mutex<Vec<String>>>) -> Backend {
    let executed = Arc::clone(executed);
    let seed = AtomicUsize::new(1);
    Backend::new(move |mut served| {
        // A small generator: the length of life of each connection differs.
        let mut state = seed
            .fetch_add(7919, Ordering::SeqCst)
            .wrapping_mul(2_654_435_761)
            | 1;
        while let Some(raw) = served.request() {
            let path = raw.head.split(' ').nth(1).unwrap().to_owned();
            executed.lock().push(path.clone());
            served.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ));
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state.is_multiple_of(5) {
                return;
            }
        }
    })
}

#[test]
fn idempotent_requests_see_no_error_while_idle_connections_die_at_random() {
    let executed = Arc::default();
    let backend = closing_at_random(&executed);
    let rig = Rig::new(&backend);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let rig = &rig;
            scope.spawn(move || {
                let mut client = rig.client();
                for i in 0..2500 {
                    client.send(format!("GET /{worker}-{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    let answer = client.answer();
                    assert_eq!(
                        (answer.status(), answer.text()),
                        (200, format!("/{worker}-{i}").as_str())
                    );
                }
            });
        }
    });
    assert!(backend.connections() > 100, "connections really died");
}

#[test]
fn what_is_not_idempotent_is_never_executed_twice() {
    let executed: Arc<Mutex<Vec<String>>> = Arc::default();
    let backend = closing_at_random(&executed);
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    let mut failed = 0;
    for i in 0..2000 {
        client.send(format!(
            "POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        ));
        if client.answer().status() != 200 {
            failed += 1;
        }
    }
    let executed = executed.lock();
    let distinct: HashSet<_> = executed.iter().collect();
    assert_eq!(
        distinct.len(),
        executed.len(),
        "no request was executed twice"
    );
    assert!(
        failed < 100,
        "{failed} of 2000 failed: dead connections are noticed before they are used"
    );
}

#[test]
fn a_held_body_is_sent_again_and_a_long_one_is_not() {
    let backend = Backend::new(|mut served| {
        if served.number == 0 {
            served.request();
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            served.head();
            // Dies with the second request half read.
            return;
        }
        while let Some(raw) = served.request() {
            served.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                raw.body.len(),
                String::from_utf8_lossy(&raw.body)
            ));
        }
    });
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.answer().text(), "ok");
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n{}",
        "x".repeat(30_000)
    ));
    let answer = client.answer();
    assert_eq!((answer.status(), answer.body.len()), (200, 30_000));
    assert_eq!(backend.connections(), 2);
    assert_eq!(rig.control().totals().upstream_reconnects, 1);
}

#[test]
fn the_first_byte_the_next_bytes_and_the_whole_have_limits() {
    let silent = Backend::new(|mut served| {
        served.request();
        served.some();
    });
    let send = SendOptions {
        first_byte: Duration::from_millis(100),
        ..SendOptions::default()
    };
    let rig = Rig::with(
        &silent,
        Setup {
            send,
            ..Setup::default()
        },
    );
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.answer().status(), 504);

    let send = SendOptions {
        total: Some(Duration::from_millis(20)),
        ..SendOptions::default()
    };
    let rig = Rig::with(
        &silent,
        Setup {
            send,
            ..Setup::default()
        },
    );
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.answer().status(), 504);

    let stalling = Backend::new(|mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        served.some();
    });
    let send = SendOptions {
        between_bytes: Duration::from_millis(100),
        ..SendOptions::default()
    };
    let rig = Rig::with(
        &stalling,
        Setup {
            send,
            ..Setup::default()
        },
    );
    assert!(rig.once(GET).ends_with("half"));
    assert_eq!(rig.ends(1)[0].outcome, Outcome::Broken);
}

#[test]
fn a_full_pool_queues_and_a_full_queue_refuses() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::new(move |mut served| {
        while let Some(raw) = served.request() {
            if raw.head.starts_with("GET /slow") {
                wait.lock().recv().unwrap();
            }
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let pool = PoolLimits {
        connections: 1,
        queue: 1,
        queue_wait: Duration::from_secs(10),
        ..PoolLimits::default()
    };
    let rig = Rig::with(
        &backend,
        Setup {
            pool,
            ..Setup::default()
        },
    );
    let mut slow = rig.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| backend.received().contains("/slow").then_some(()));
    let mut queued = rig.client();
    queued.send("GET /queued HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| (rig.control().totals().requests == 2).then_some(()));
    let mut refused = rig.client();
    refused.send(GET);
    assert_eq!(refused.answer().status(), 503);
    release.send(()).unwrap();
    assert_eq!(slow.answer().status(), 200);
    assert_eq!(queued.answer().status(), 200);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_client_that_goes_away_frees_the_back_end() {
    let (told, gone) = std::sync::mpsc::channel();
    let backend = Backend::new(move |mut served| {
        served.request();
        told.send(served.some().is_none()).unwrap();
    });
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send(GET);
    eventually(|| backend.received().contains("GET").then_some(()));
    drop(client);
    assert!(
        gone.recv().unwrap(),
        "the back end's connection is closed with the client's"
    );
}

#[test]
fn idle_connections_are_closed_after_their_life() {
    let (told, gone) = std::sync::mpsc::channel();
    let backend = Backend::new(move |mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        told.send(served.some().is_none()).unwrap();
    });
    let pool = PoolLimits {
        idle_life: Duration::from_millis(100),
        ..PoolLimits::default()
    };
    let rig = Rig::with(
        &backend,
        Setup {
            pool,
            ..Setup::default()
        },
    );
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.answer().status(), 200);
    assert!(gone.recv().unwrap());
}

#[test]
fn an_answer_that_breaks_before_its_first_byte_is_502() {
    let backend = Backend::new(|mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n");
    });
    let rig = Rig::new(&backend);
    let got = rig.once(GET);
    assert!(
        got.starts_with("HTTP/1.1 502 ") && got.contains("gateway.answer_broken"),
        "{got}"
    );
    assert_eq!(rig.ends(1)[0].outcome, Outcome::Broken);
}

#[test]
fn addresses_that_the_policy_forbids_are_not_connected_to() {
    let backend = Backend::echo();
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = Endpoint::Tcp {
            host: host.into(),
            port: backend.address.port(),
        };
        let target = Some(Arc::new(Target::new(
            "inside",
            endpoint,
            Protocol::Http1,
            None,
        )));
        let rig = Rig::start(Setup {
            target,
            policy: Arc::new(|ip| !ip.is_loopback()),
            ..Setup::default()
        });
        let mut client = rig.client();
        client.send(GET);
        let answer = client.answer();
        assert_eq!(
            (answer.status(), answer.text()),
            (502, "the instance's address is not allowed")
        );
    }
    assert_eq!(backend.connections(), 0);
}
