//! The client side: connections are few and end, calls have deadlines, tries are safe.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portico_base::{Secret, SystemRandom};
use portico_rpc::{Channels, ClientOptions};
use tonic::{Code, Status};

use crate::house::{House, Note, ask};

const OPEN: &str = "/test.v1.Doer/Open";
const PATIENCE: Duration = Duration::from_secs(20);

fn client(targets: Vec<String>) -> Channels {
    let options = ClientOptions {
        connect_timeout: Duration::from_secs(2),
        token: Some(Secret::from("tst_plain")),
        ..ClientOptions::default()
    };
    Channels::new(move || targets.clone(), options, Arc::new(SystemRandom))
}

async fn send(client: &Channels, text: &str, idempotent: bool) -> Result<String, Status> {
    let made = client.call(Duration::from_secs(5), idempotent, |channel, left| {
        let request = client.request(Note::of(text), left);
        async move { Ok(ask(channel, OPEN, request).await?.into_inner().text) }
    });
    made.await
}

#[tokio::test]
async fn a_thousand_calls_share_one_connection_and_leave_nothing() {
    let house = House::start().await;
    let client = Arc::new(client(vec![house.url()]));
    let calls = (0..1_000).map(|n| {
        let client = Arc::clone(&client);
        async move {
            let text = n.to_string();
            assert_eq!(send(&client, &text, true).await.unwrap(), text);
        }
    });
    futures_util::future::join_all(calls).await;
    let running = house.running.as_ref().unwrap();
    assert_eq!(running.connections(), 1);
    assert_eq!(house.doer.reached.load(Ordering::SeqCst), 1_000);
    drop(client);
    let closed = async {
        while running.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    let in_flight = house.metric("portico_rpc_in_flight{service=\"test.v1.Doer\"} ");
    assert_eq!(in_flight, Some(0.0));
    house.stop().await;
}

#[tokio::test]
async fn the_credential_goes_along() {
    let house = House::start().await;
    let client = client(vec![house.url()]);
    let who = send(&client, "who", true).await.unwrap();
    assert!(who.starts_with("api-key tst_plain "), "{who}");
    house.stop().await;
}

#[tokio::test]
async fn only_what_may_be_repeated_is_tried_three_times() {
    let house = House::start().await;
    let client = client(vec![house.url()]);
    let tries = || house.doer.reached.swap(0, Ordering::SeqCst);
    let away = send(&client, "away", true).await.unwrap_err();
    assert_eq!((away.code(), tries()), (Code::Unavailable, 3));
    let away = send(&client, "away", false).await.unwrap_err();
    assert_eq!((away.code(), tries()), (Code::Unavailable, 1));
    let wrong = send(&client, "wrong", true).await.unwrap_err();
    assert_eq!((wrong.code(), tries()), (Code::InvalidArgument, 1));
    house.stop().await;
}

#[tokio::test]
async fn a_dead_target_costs_a_try_and_not_the_call() {
    let house = House::start().await;
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let client = client(vec![dead, house.url()]);
    for n in 0..6 {
        assert!(send(&client, &n.to_string(), true).await.is_ok(), "{n}");
    }
    house.stop().await;
}

#[tokio::test]
async fn the_last_known_targets_survive_the_registrys_absence() {
    let house = House::start().await;
    let list = Arc::new(Mutex::new(vec![house.url()]));
    let shared = Arc::clone(&list);
    let client = Channels::new(
        move || shared.lock().clone(),
        ClientOptions::default(),
        Arc::new(SystemRandom),
    );
    assert!(send(&client, "1", true).await.is_ok());
    list.lock().clear();
    assert!(send(&client, "2", true).await.is_ok());
    let nobody = Channels::new(Vec::new, ClientOptions::default(), Arc::new(SystemRandom));
    let status = send(&nobody, "3", true).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    house.stop().await;
}

#[tokio::test]
async fn the_deadline_holds_over_all_tries() {
    let house = House::start().await;
    let client = client(vec![house.url()]);
    let made = AtomicU32::new(0);
    let begun = Instant::now();
    let limit = Duration::from_millis(120);
    let status = client
        .call(limit, true, |channel, left| {
            made.fetch_add(1, Ordering::SeqCst);
            assert!(left <= limit);
            let request = client.request(Note::of("hang"), left);
            async move { ask(channel, OPEN, request).await }
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(made.load(Ordering::SeqCst), 1);
    assert!(begun.elapsed() < PATIENCE);
    house.stop().await;
}
