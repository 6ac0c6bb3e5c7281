//! Start, stop, restart, kill −9: what survives and what the outside sees.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::house::{House, answer, client, until};
use crate::raw::{RawServer, answer_always};

#[tokio::test]
async fn a_registration_survives_kill_9_and_is_routable_at_once() {
    let upstream = RawServer::start(|stream, _| answer_always(stream, "still here"));
    let mut house = House::start(&[]);
    house.register("hello", upstream.port(), json!({})).await;
    assert_eq!(house.get("/api/hello/").await.text, "still here");
    house.signal(Signal::SIGKILL);
    house.wait();
    let house = House::at(house.folder.clone(), &[]);
    let again = house.get("/api/hello/").await;
    assert_eq!((again.status, again.text.as_str()), (200, "still here"));
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_exits_with_0() {
    let upstream = RawServer::start(|mut stream, _| {
        use std::io::Write as _;
        if crate::raw::read_head(&mut stream).is_some() {
            std::thread::sleep(std::time::Duration::from_millis(400));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    });
    let mut house = House::start(&[]);
    house.register("slow", upstream.port(), json!({})).await;
    let url = format!("{}/api/slow/", house.http);
    let request = tokio::spawn(async move { answer(client().get(url)).await });
    until("the request is under way", || async {
        upstream.connections() > 0
    })
    .await;
    house.signal(Signal::SIGTERM);
    let answer = request.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (200, "done"));
    assert_eq!(house.wait(), 0, "{}", house.log());
    assert!(!house.data_dir().join("ready.json").exists());
}

#[tokio::test]
async fn health_is_answered_on_its_listeners() {
    let house = House::start(&[]);
    for path in ["/livez", "/readyz", "/startupz", "/health"] {
        let answer = answer(client().get(format!("{}{path}", house.admin)))
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    assert_eq!(house.get("/healthz").await.status, 200);
    let health = answer(client().get(format!("{}/health", house.admin)))
        .await
        .unwrap()
        .json();
    assert_eq!(health["status"], "ok", "{health}");
    assert!(
        health["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "database")
    );
    assert!(house.metric("portico_build_info").await >= 1.0);
}

#[tokio::test]
async fn a_reload_takes_over_settings_and_keeps_the_old_ones_when_broken() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("portico.toml");
    std::fs::write(&file, "[settings]\n\"gateway.breaker.open_s\" = 30\n").unwrap();
    let house = House::at(folder, &[]);
    std::fs::write(
        &file,
        "[settings]\n\"gateway.breaker.open_s\" = \"broken\"\n",
    )
    .unwrap();
    house.signal(Signal::SIGHUP);
    until("the broken file is reported", || async {
        house.log().contains("not reloaded") && house.log().contains("gateway.breaker.open_s")
    })
    .await;
    std::fs::write(&file, "[settings]\n\"gateway.breaker.open_s\" = 10\n").unwrap();
    house.signal(Signal::SIGHUP);
    until("the good file is taken over", || async {
        house.log().contains("configuration reloaded")
    })
    .await;
}
