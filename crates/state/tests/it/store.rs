//! Small values, nonces, generations and heartbeats.

use std::time::Duration;

use bytes::Bytes;
use portico_state::testing::{Backend, each_backend};
use portico_state::{Beat, ShelfUse};

use crate::wait::until;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn values_come_and_go() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let store = replica.state.store();
        assert_eq!(store.get("a").await.unwrap(), None);
        let bytes = Bytes::from(vec![0, 255, 10]);
        store.put("a", bytes.clone(), LONG).await.unwrap();
        assert_eq!(
            store.get("a").await.unwrap(),
            Some(bytes),
            "{}",
            backend.name()
        );
        store.remove("a").await.unwrap();
        assert_eq!(store.get("a").await.unwrap(), None);
        store
            .put("short", Bytes::from_static(b"x"), Duration::from_millis(1))
            .await
            .unwrap();
        let gone = async || store.get("short").await.unwrap().is_none();
        until("the end of a short life", gone).await;
        let huge = Bytes::from(vec![0; 17 << 20]);
        assert!(store.put("huge", huge, LONG).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_nonce_is_taken_once() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let store = replica.state.store();
        let claims = (0..20).map(|_| store.claim("nonce:1", LONG));
        let outcomes = futures_util::future::join_all(claims).await;
        let first = outcomes
            .into_iter()
            .filter(|o| *o.as_ref().unwrap())
            .count();
        assert_eq!(first, 1, "{}", backend.name());
        assert!(
            store
                .claim("nonce:2", Duration::from_millis(1))
                .await
                .unwrap()
        );
        let claimed = async || store.claim("nonce:2", LONG).await.unwrap();
        until("the end of a claim", claimed).await;
        store.remove("nonce:2").await.unwrap();
        assert!(store.claim("nonce:2", LONG).await.unwrap(), "given back");
    })
    .await;
}

#[tokio::test]
async fn a_new_generation_never_repeats_an_old_one() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let store = replica.state.store();
        let first = store.generation("music").await.unwrap();
        assert_eq!(store.generation("music").await.unwrap(), first);
        assert_ne!(store.generation("video").await.unwrap(), first);
        let second = store.bump("music").await.unwrap();
        assert_ne!(second, first, "{}", backend.name());
        assert_eq!(store.generation("music").await.unwrap(), second);
        if let Some(server) = backend.server() {
            server.start_again();
            replica.state.connected().await;
            // The restart may be noticed by this very command.
            let asked = async || store.generation("music").await.is_ok();
            until("an answer", asked).await;
            let third = store.generation("music").await.unwrap();
            assert!(
                third != first && third != second,
                "a flushed Redis brings nothing back"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn heartbeats_are_told_and_gathered() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let beats = replica.state.heartbeats("registry");
        beats
            .touch("a", 1_000, Bytes::from_static(b"{\"load\":1}"))
            .unwrap();
        beats.touch("a", 900, Bytes::new()).unwrap();
        beats
            .touch("b", 2_000, Bytes::from(vec![0; 10_000]))
            .unwrap();
        assert_eq!(
            beats.known("a").unwrap().at_ms,
            1_000,
            "an older beat is ignored"
        );
        let mut all = beats.scan().await;
        all.sort_by(|x, y| x.0.cmp(&y.0));
        assert_eq!(all.len(), 2, "{}", backend.name());
        assert_eq!(&all[0].1.data[..], b"{\"load\":1}");
        assert!(
            all[1].1.data.is_empty(),
            "data that is too long is left out"
        );
        beats.forget(["a"]);
        assert_eq!(beats.scan().await.len(), 1);
        for i in 0..100_000 {
            let _ = beats.touch(&format!("n{i}"), 1, Bytes::new());
        }
        assert!(beats.touch("one too many", 1, Bytes::new()).is_err());
    })
    .await;
}

#[tokio::test]
async fn heartbeats_reach_other_replicas_and_survive_an_outage() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let (one, two) = (backend.replica().await, backend.replica().await);
    let (a, b) = (
        one.state.heartbeats("registry"),
        two.state.heartbeats("registry"),
    );
    a.touch("x", 1_000, Bytes::from_static(b"one")).unwrap();
    let arrived = async |wanted: Beat| {
        let is_there = async || b.scan().await.contains(&("x".to_owned(), wanted.clone()));
        until("a heartbeat", is_there).await;
    };
    let beat = |at_ms, data| Beat {
        at_ms,
        data: Bytes::from_static(data),
    };
    arrived(beat(1_000, b"one")).await;
    let server = backend.server().unwrap();
    server.kill();
    a.touch("x", 2_000, Bytes::from_static(b"two")).unwrap();
    assert_eq!(b.scan().await.len(), 1, "what is known is the answer");
    server.start_again();
    arrived(beat(2_000, b"two")).await;
}

#[tokio::test]
async fn a_shelf_keeps_what_lasts_longest() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let replica = backend.replica().await;
    let (shelf, other) = (
        replica.state.store().shelf("a"),
        replica.state.store().shelf("b"),
    );
    let value = || Bytes::from(vec![7; 10_000]);
    for n in 0..20_u64 {
        // Later ones end sooner.
        let ttl = Duration::from_secs(3600 - n);
        shelf.put(&format!("a:{n}"), value(), ttl).await.unwrap();
    }
    other.put("b:1", value(), LONG).await.unwrap();
    let all = shelf.trim(1 << 30).await.unwrap();
    assert_eq!((all.entries, all.evicted), (20, 0));
    assert!((200_000..210_000).contains(&all.bytes), "{}", all.bytes);
    let rest = shelf.trim(100_000).await.unwrap();
    assert!(rest.bytes <= 90_000 && rest.entries == 8, "{rest:?}");
    assert_eq!(rest.evicted, 12);
    assert!(shelf.get("a:0").await.unwrap().is_some());
    assert!(shelf.get("a:19").await.unwrap().is_none());
    assert!(other.get("b:1").await.unwrap().is_some(), "another shelf's");

    // What is written again, removed or over is counted once, and not any more.
    shelf.put("a:0", value(), LONG).await.unwrap();
    assert_eq!(shelf.trim(1 << 30).await.unwrap().entries, 8);
    shelf.remove("a:0").await.unwrap();
    shelf
        .put("a:1", value(), Duration::from_millis(1))
        .await
        .unwrap();
    let counted = async || shelf.trim(1 << 30).await.unwrap().entries == 6;
    until("what is over is not counted", counted).await;
}

#[tokio::test]
async fn a_shelf_of_one_process_is_its_store() {
    let replica = Backend::local().replica().await;
    let shelf = replica.state.store().shelf("a");
    let value = Bytes::from_static(b"v");
    shelf.put("k", value.clone(), LONG).await.unwrap();
    assert_eq!(shelf.trim(0).await.unwrap(), ShelfUse::default());
    assert_eq!(shelf.get("k").await.unwrap(), Some(value));
    shelf.remove("k").await.unwrap();
    assert_eq!(shelf.get("k").await.unwrap(), None);
}
