//! Clients that take their time: heads, bodies, reading, doing nothing.

use std::io::Read;
use std::time::Duration;

use super::backend::Backend;
use super::client::eventually;
use super::rig::{Rig, Setup};
use crate::serve::{Outcome, ServeLimits};

const SHORT: Duration = Duration::from_millis(100);

fn rig(backend: &Backend, change: impl FnOnce(&mut ServeLimits)) -> Rig {
    let mut limits = ServeLimits::default();
    change(&mut limits);
    Rig::with(
        backend,
        Setup {
            limits,
            ..Setup::default()
        },
    )
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_408() {
    let backend = Backend::echo();
    let rig = rig(&backend, |l| l.header_time = SHORT);
    let answer = rig.once("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("gateway.header_timeout"),
        "{answer}"
    );
    assert_eq!(rig.seen.refused.lock()[0], (408, "header_timeout"));
}

#[test]
fn dripping_does_not_renew_the_time_of_a_head() {
    let backend = Backend::echo();
    let rig = rig(&backend, |l| l.header_time = Duration::from_millis(300));
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let mut sender = client.stream.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        while std::io::Write::write_all(&mut sender, b"x: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(client.until_close().starts_with("HTTP/1.1 408 "));
    drop(client);
    dripping.join().unwrap();
}

#[test]
fn a_preface_that_does_not_come_to_its_end_is_not_waited_for() {
    let backend = Backend::echo();
    let rig = rig(&backend, |l| l.header_time = SHORT);
    assert!(rig.once("PRI * HTTP/2").starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_silent_connection_is_closed_without_an_answer() {
    let backend = Backend::echo();
    let rig = rig(&backend, |l| l.header_time = SHORT);
    assert_eq!(rig.once(""), "");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let backend = Backend::echo();
    let rig = rig(&backend, |l| l.keep_alive = SHORT);
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    assert_eq!(client.until_close(), "");
    eventually(|| (rig.control().totals().open == 0).then_some(()));
}

#[test]
fn a_body_slower_than_the_least_is_408() {
    let backend = Backend::echo();
    let rig = rig(&backend, |l| {
        l.body_time = SHORT;
        l.body_bytes = 1024;
    });
    let answer = rig.once("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc");
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[test]
fn a_client_that_does_not_read_is_cut_and_holds_little() {
    let backend = Backend::new(|mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 209715200\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        for _ in 0..200 {
            if std::io::Write::write_all(&mut served.stream, &block).is_err() {
                return;
            }
        }
    });
    let rig = rig(&backend, |l| l.write_stall = Duration::from_millis(300));
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    let end = rig.ends(1)[0];
    assert_eq!(end.outcome, Outcome::ClientGone);
    // The kernel's buffers of the two sockets hold some MiB; nothing was read in advance beyond them.
    assert!(
        end.sent < 40 << 20,
        "{} bytes were taken from the back end",
        end.sent
    );
}

#[test]
fn a_slow_reader_gets_all_of_a_long_answer() {
    let size = 200 << 20;
    let backend = Backend::new(move |mut served| {
        served.request();
        served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
        let block = vec![b'x'; 1 << 20];
        for _ in 0..200 {
            served.send(&block);
        }
    });
    let rig = rig(&backend, |_| {});
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().contains("content-length: 209715200\r\n"));
    let before = resident();
    let mut room = vec![0; 64 * 1024];
    let (mut got, mut worst) = (0, 0);
    while got + client.buffered() < size {
        match client.stream.read(&mut room).unwrap() {
            0 => break,
            n => got += n,
        }
        worst = worst.max(resident().saturating_sub(before));
    }
    assert_eq!(got + client.buffered(), size);
    assert!(worst < 64 << 20, "memory grew by {worst} bytes");
}

/// This process's resident memory; other tests run beside, so only large growth means something.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
