//! Switching protocols: only after 101, then bytes both ways until both sides have ended.

use std::time::Duration;

use super::backend::Backend;
use super::client::eventually;
use super::rig::{Rig, Setup};
use crate::serve::{Outcome, ServeLimits};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Says 101 and then echoes.
fn switching() -> Backend {
    Backend::new(|mut served| {
        let head = served.head().unwrap();
        assert!(
            head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"),
            "{head}"
        );
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nearly");
        while let Some(bytes) = served.some() {
            served.send(bytes);
        }
        served.send("bye");
    })
}

#[test]
fn bytes_pass_both_ways_behind_101() {
    let backend = switching();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send(UPGRADE);
    let head = client.head();
    assert!(
        head.starts_with("HTTP/1.1 101 ")
            && head.contains("connection: upgrade\r\n")
            && head.contains("upgrade: websocket\r\n"),
        "{head}"
    );
    assert!(
        head.contains("sec-websocket-accept: x\r\n") && !head.contains("content-length"),
        "{head}"
    );
    assert_eq!(client.exactly(5), b"early");
    for i in 0..10 {
        let text = format!("\0message {i}\r\n\r\n");
        client.send(&text);
        assert_eq!(client.exactly(text.len()), text.as_bytes());
    }
    assert_eq!(rig.control().totals().tunnels, 1);
    client.shut();
    assert_eq!(
        client.until_close(),
        "bye",
        "the other direction goes on after a half-close"
    );
    let end = rig.ends(1)[0];
    assert_eq!((end.outcome, end.received), (Outcome::Complete, 140));
    assert_eq!(end.sent, 140 + 5 + 3);
    eventually(|| (rig.control().totals().tunnels == 0).then_some(()));
}

#[test]
fn bytes_behind_the_request_wait_for_101() {
    let backend = switching();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send(format!("{UPGRADE}hello"));
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(10), b"earlyhello");
}

#[test]
fn a_refused_switch_closes_and_relays_nothing() {
    let backend = Backend::answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let rig = Rig::new(&backend);
    let answer = rig.once(format!(
        "{UPGRADE}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    assert!(
        answer.starts_with("HTTP/1.1 403 ")
            && answer.contains("connection: close\r\n")
            && answer.ends_with("\r\n\r\nno"),
        "{answer}"
    );
    assert!(!backend.received().contains("smuggled"));
}

#[test]
fn other_protocols_are_not_switched_to() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n");
    let text = client.answer().text().to_ascii_lowercase();
    assert!(
        !text.contains("upgrade") && !text.contains("http2-settings"),
        "{text}"
    );
}

#[test]
fn a_tunnel_in_which_nobody_speaks_is_closed() {
    let backend = switching();
    let limits = ServeLimits {
        tunnel_idle: Duration::from_millis(200),
        ..ServeLimits::default()
    };
    let rig = Rig::with(
        &backend,
        Setup {
            limits,
            ..Setup::default()
        },
    );
    let mut client = rig.client();
    client.send(UPGRADE);
    client.head();
    assert_eq!(client.until_close(), "early");
}

#[test]
fn a_tunnel_is_closed_by_its_key() {
    let backend = switching();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    client.send(UPGRADE.replace("\r\n\r\n", "\r\nX-User: ann\r\n\r\n"));
    client.head();
    client.exactly(5);
    assert_eq!(
        rig.runtime
            .block_on(rig.control().close_streams("user:ann")),
        1
    );
    assert_eq!(client.until_close(), "");
    assert_eq!(rig.ends(1)[0].outcome, Outcome::Cut);
}
