//! How many connections there may be, and how they are spread.

use std::sync::atomic::Ordering;

use super::backend::Backend;
use super::client::eventually;
use super::rig::{Rig, Setup};
use crate::serve::ServeLimits;

#[test]
fn too_many_connections_are_told_so() {
    let backend = Backend::echo();
    let limits = ServeLimits {
        connections: 20,
        ..ServeLimits::default()
    };
    let rig = Rig::with(
        &backend,
        Setup {
            limits,
            ..Setup::default()
        },
    );
    let open: Vec<_> = (0..20).map(|_| rig.client()).collect();
    eventually(|| (rig.control().totals().open == 20).then_some(()));
    let answer = rig.client().until_close();
    assert!(
        answer.starts_with("HTTP/1.1 503 ")
            && answer.contains("connection: close\r\n")
            && answer.contains("retry-after: 1\r\n"),
        "{answer}"
    );
    assert_eq!(rig.seen.refused.lock()[0], (503, "too_many_connections"));
    drop(open);
    eventually(|| (rig.control().totals().open == 0).then_some(()));
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 200, "room again");
}

#[test]
fn loopback_is_exempt_from_the_limit_of_one_address() {
    let backend = Backend::echo();
    let limits = ServeLimits {
        connections_per_address: 1,
        ..ServeLimits::default()
    };
    let rig = Rig::with(
        &backend,
        Setup {
            limits,
            ..Setup::default()
        },
    );
    for mut client in (0..5).map(|_| rig.client()).collect::<Vec<_>>() {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().status(), 200);
    }
}

#[test]
fn workers_share_a_listener() {
    let backend = Backend::echo();
    let rig = Rig::with(
        &backend,
        Setup {
            workers: 3,
            ..Setup::default()
        },
    );
    let mut clients: Vec<_> = (0..60).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().status(), 200);
    }
    let control = rig.control();
    let used = control.stats().filter(|s| s.requests.get() > 0).count();
    assert!(used >= 2, "60 connections came to {used} of 3 workers");
    assert_eq!(control.totals().requests, 60);
    assert!(backend.connections.load(Ordering::SeqCst) <= 60);
}
