//! Wake-ups: within a process, between replicas, for slow subscribers, over an outage.

use bytes::Bytes;
use portico_state::Event;
use portico_state::testing::{Backend, each_backend};

use crate::wait::PATIENCE;

fn message(text: &str) -> Event {
    Event::Message(Bytes::copy_from_slice(text.as_bytes()))
}

#[tokio::test]
async fn subscribers_of_a_topic_are_woken_once_each() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let bus = replica.state.bus();
        let (mut a, mut b, mut other) =
            (bus.subscribe("t"), bus.subscribe("t"), bus.subscribe("u"));
        bus.publish("t", "one");
        bus.publish("t", "two");
        for subscription in [&mut a, &mut b] {
            assert_eq!(
                subscription.recv().await,
                message("one"),
                "{}",
                backend.name()
            );
            assert_eq!(subscription.recv().await, message("two"));
        }
        assert_eq!(other.try_recv(), None);
    })
    .await;
}

#[tokio::test]
async fn a_slow_subscriber_is_told_to_look_for_itself() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let bus = replica.state.bus();
        let mut slow = bus.subscribe("t");
        for i in 0..1_000 {
            bus.publish("t", i.to_string());
        }
        assert_eq!(slow.recv().await, Event::Lagged);
        assert_eq!(slow.recv().await, message("744"), "the newest 256 are kept");
        bus.publish("t", vec![0; 100_000]);
        let last = std::iter::from_fn(|| slow.try_recv()).last();
        assert_eq!(
            last,
            Some(message("")),
            "a payload that is too long is left out"
        );
    })
    .await;
}

#[tokio::test]
async fn replicas_wake_each_other_and_nobody_twice() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let (one, two) = (backend.replica().await, backend.replica().await);
    let (mut here, mut there) = (
        one.state.bus().subscribe("t"),
        two.state.bus().subscribe("t"),
    );
    for i in 0..50 {
        one.state.bus().publish("t", i.to_string());
    }
    two.state.bus().publish("t", "end");
    for i in 0..50 {
        assert_eq!(here.recv().await, message(&i.to_string()));
    }
    // What came from outside: the other's `end`, and none of our own again.
    assert_eq!(here.recv().await, message("end"));
    let mut seen = Vec::new();
    while seen.len() < 51 {
        seen.push(tokio::time::timeout(PATIENCE, there.recv()).await.unwrap());
    }
    assert_eq!(seen.iter().filter(|e| **e == message("end")).count(), 1);
    seen.retain(|e| *e != message("end"));
    assert_eq!(
        seen,
        (0..50).map(|i| message(&i.to_string())).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn after_an_outage_everybody_is_told_to_look() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let server = backend.server().unwrap();
    let (one, two) = (backend.replica().await, backend.replica().await);
    let mut there = two.state.bus().subscribe("t");
    server.kill();
    // Within the process messages go on.
    let mut here = one.state.bus().subscribe("t");
    one.state.bus().publish("t", "lost to the others");
    assert_eq!(here.recv().await, message("lost to the others"));
    server.start_again();
    let event = tokio::time::timeout(PATIENCE, there.recv()).await.unwrap();
    assert_eq!(event, Event::Lagged);
    one.state.connected().await;
    two.state.connected().await;
    one.state.bus().publish("t", "again");
    loop {
        let event = tokio::time::timeout(PATIENCE, there.recv()).await.unwrap();
        if event == message("again") {
            break;
        }
        assert_eq!(event, Event::Lagged);
    }
}
