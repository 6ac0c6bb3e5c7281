//! Redis that dies, freezes and comes back: nobody waits longer than the time-out, and the status tells.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portico_base::ErrorKind;
use portico_state::testing::Backend;
use portico_state::{Deps, RedisOptions, State, StateError};
use portico_telemetry::metrics::{Format, Registry};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_frozen_server_costs_one_time_out_and_then_nothing() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let server = backend.server().unwrap();
    let replica = backend.replica().await;
    let store = replica.state.store();
    store
        .put("a", Bytes::from_static(b"1"), Duration::from_secs(60))
        .await
        .unwrap();
    server.freeze();
    let begin = Instant::now();
    let calls = (0..50).map(|_| store.get("a"));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(matches!(outcome, Err(StateError::Unavailable(_))));
    }
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "together, not one after the other"
    );
    let begin = Instant::now();
    let error = store.get("a").await.unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_millis(250),
        "known to be away: told at once"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let status = replica.state.status().redis.unwrap();
    assert!(!status.up && status.last_error.is_some());
    let text = replica.registry.render(Format::Prometheus);
    assert!(text.contains("portico_redis_up 0\n"), "{text}");
    server.thaw();
    replica.state.connected().await;
    assert_eq!(
        store.get("a").await.unwrap().as_deref(),
        Some(b"1".as_slice())
    );
    let text = replica.registry.render(Format::Prometheus);
    assert!(text.contains("portico_redis_up 1\n"));
    assert!(text.contains("portico_redis_command_seconds_count{command=\"get\"}"));
}

#[tokio::test]
async fn a_start_without_redis_succeeds_and_connects_later() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let server = backend.server().unwrap();
    server.kill();
    let deps = Deps::system(&Registry::default());
    let (state, driver) = State::redis(&RedisOptions::new(server.url()), &deps).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.run(stop.clone()));
    assert!(state.store().get("a").await.is_err());
    assert!(!state.status().redis.unwrap().up);
    server.start_again();
    state.connected().await;
    assert_eq!(state.store().get("a").await.unwrap(), None);
    // The last heartbeats leave before the driver ends.
    state.heartbeats("x").touch("id", 5, Bytes::new()).unwrap();
    stop.cancel();
    running.await.unwrap();
    let other = backend.replica().await;
    assert_eq!(other.state.heartbeats("x").scan().await.len(), 1);
}

#[tokio::test]
async fn an_error_of_the_server_is_no_outage() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let replica = backend.replica().await;
    // A generation is a number; a value of another form under its name is refused, not an outage.
    let store = replica.state.store();
    store.generation("x").await.unwrap();
    let client = redis::Client::open(backend.server().unwrap().url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("SET")
        .arg("portico:gen:x")
        .arg("no number")
        .query_async(&mut connection)
        .await
        .unwrap();
    let error = store.generation("x").await.unwrap_err();
    assert!(matches!(error, StateError::Refused(_)), "{error}");
    assert!(replica.state.status().redis.unwrap().up);
}

#[tokio::test]
async fn wrong_options_are_told_at_once() {
    let deps = Deps::system(&Registry::default());
    let error = State::redis(&RedisOptions::new("http://u:hunter2@x"), &deps).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let options = RedisOptions::new("redis://u:hunter2@x");
    assert!(!format!("{options:?}").contains("hunter2"));
    let _: Arc<dyn Send> = Arc::new(deps);
}
