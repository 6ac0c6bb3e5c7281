//! Ending: gracefully with a deadline, and single streams by key.

use std::time::Duration;

use parking_lot::Mutex;

use super::backend::Backend;
use super::client::eventually;
use super::rig::Rig;
use crate::serve::Outcome;

/// Answers `/slow` when told to.
fn slow() -> (Backend, std::sync::mpsc::Sender<()>) {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::new(move |mut served| {
        while let Some(raw) = served.request() {
            if raw.head.starts_with("GET /slow") && wait.lock().recv().is_err() {
                return;
            }
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (backend, release)
}

#[test]
fn a_drain_ends_idle_connections_and_waits_for_requests() {
    let (backend, release) = slow();
    let mut rig = Rig::new(&backend);
    let mut idle = rig.client();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status(), 200);
    let mut busy = rig.client();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| backend.received().contains("/slow").then_some(()));
    let answering = std::thread::spawn(move || {
        assert_eq!(
            idle.until_close(),
            "",
            "idle connections are closed at once"
        );
        release.send(()).unwrap();
        let answer = busy.answer();
        (
            answer.status(),
            answer.header("connection").map(str::to_owned),
            busy.until_close(),
        )
    });
    let cut = rig.stop(Duration::from_secs(10));
    assert_eq!(cut, []);
    assert_eq!(
        answering.join().unwrap(),
        (200, Some("close".to_owned()), String::new())
    );
    assert!(
        std::net::TcpStream::connect(rig.address).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn what_is_open_at_the_deadline_is_cut_and_listed() {
    let (backend, _release) = slow();
    let mut rig = Rig::new(&backend);
    let mut busy = rig.client();
    busy.send("GET /slow?token=secret HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| backend.received().contains("/slow").then_some(()));
    let cut = rig.stop(Duration::from_millis(50));
    assert_eq!(cut.len(), 1);
    assert!(
        cut[0].what.starts_with("test 127.0.0.1:") && cut[0].what.ends_with(" GET /slow"),
        "{cut:?}"
    );
    assert_eq!(busy.until_close(), "");
}

#[test]
fn the_streams_of_a_user_are_closed_and_no_others() {
    let backend = Backend::new(|mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        served.some();
    });
    let rig = Rig::new(&backend);
    let mut clients: Vec<_> = ["ann", "bob", "ann"]
        .into_iter()
        .map(|user| {
            let mut client = rig.client();
            client.send(format!(
                "GET /events HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"
            ));
            assert!(client.head().contains("200 OK"));
            client.exactly("5\r\nfirst\r\n".len());
            client
        })
        .collect();
    let control = rig.control();
    assert_eq!(rig.runtime.block_on(control.open_streams()).len(), 3);
    assert_eq!(rig.runtime.block_on(control.close_streams("user:ann")), 2);
    assert_eq!(clients[0].until_close(), "");
    assert_eq!(clients[2].until_close(), "");
    assert_eq!(
        rig.ends(2)
            .iter()
            .filter(|e| e.outcome == Outcome::Cut)
            .count(),
        2
    );
    eventually(|| (rig.runtime.block_on(control.open_streams()).len() == 1).then_some(()));
    clients[1]
        .stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let still = std::io::Read::read(&mut clients[1].stream, &mut [0; 1]).unwrap_err();
    assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock);
}
