//! Settings on several replicas: in force everywhere within a second, without Redis, and through an outage of
//! the database.

use std::time::{Duration, Instant};

use portico_db::testing::PrivateServer;
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{House, until};
use crate::scaled::redis;

const KEY: &str = "gateway.breaker.open_s";

fn keys() -> String {
    format!("[keys]\nmaster = \"{}\"\n", "5a".repeat(32))
}

async fn value(house: &House) -> Value {
    let path = format!("/api/settings/{KEY}");
    house.operate(Method::GET, &path, None).await.json()
}

async fn set(house: &House, number: u64) -> u16 {
    let body = json!({ "changes": [{ "key": KEY, "value": number }], "base_seq": u32::MAX });
    house
        .operate(Method::POST, "/api/settings/changes", Some(&body))
        .await
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_three_replicas_within_a_second_with_redis_killed() {
    let (Some(postgres), Some(redis)) = (PrivateServer::start(), redis()) else {
        return;
    };
    let (database, state) = (postgres.url(), redis.url().to_owned());
    let house = || House::configured(&keys(), &["--database", &database, "--redis", &state]);
    let houses = [house(), house(), house()];
    redis.kill();
    let mut slowest = Duration::ZERO;
    for number in 1..=20 {
        let writer = &houses[usize::try_from(number % 3).unwrap()];
        assert_eq!(set(writer, number).await, 200);
        let begun = Instant::now();
        for house in &houses {
            until("it is in force", || async {
                value(house).await["value"] == number
            })
            .await;
        }
        slowest = slowest.max(begun.elapsed());
    }
    let line = format!("slowest of 20 changes on three replicas without Redis: {slowest:?}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    until("everybody said where they are", || async {
        let path = "/api/settings/applied";
        let overview = houses[0].operate(Method::GET, path, None).await.json();
        let replicas = overview["replicas"].as_array().cloned().unwrap_or_default();
        replicas.len() == 3
            && replicas
                .iter()
                .all(|r| r["seq"] == 20 && r["lagging"] == false)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_hold_while_the_database_is_away_and_go_on_after_it() {
    let Some(mut postgres) = PrivateServer::start() else {
        return;
    };
    let text = format!("{}[database]\nacquire_timeout_ms = 1000\n", keys());
    let house = || House::configured(&text, &["--database", &postgres.url()]);
    let (first, second) = (house(), house());
    assert_eq!(set(&first, 7).await, 200);
    until("the other has it", || async {
        value(&second).await["value"] == 7
    })
    .await;
    postgres.down();
    assert_eq!(set(&first, 8).await, 503);
    for house in [&first, &second] {
        assert_eq!(value(house).await["value"], 7, "the last value holds");
    }
    let overview = first
        .operate(Method::GET, "/api/settings/applied", None)
        .await;
    assert_eq!(overview.status, 200, "{}", overview.text);
    assert!(overview.json()["replicas"][0]["age_s"].is_number());
    postgres.up();
    until("changes are taken again", || async {
        set(&first, 9).await == 200
    })
    .await;
    until("the other follows", || async {
        value(&second).await["value"] == 9
    })
    .await;
}
