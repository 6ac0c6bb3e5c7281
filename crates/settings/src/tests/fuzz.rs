//! Anything that is sent is answered: no fault of ours, nothing half, what is stored fits its declaration.

use portico_base::Random as _;
use portico_base::random::SeededRandom;
use portico_contract::settings_tree::SettingsTree as _;
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Map, Value, json};

use super::rig::{DECLARATIONS, DEFAULT, Rig, SYSTEM, With};
use crate::tree::Tree;

const ROUNDS: usize = 400;

fn pick<'a, T>(random: &SeededRandom, all: &'a [T]) -> &'a T {
    &all[usize::try_from(random.below(all.len() as u64)).unwrap()]
}

fn anything(random: &SeededRandom, depth: u32) -> Value {
    match random.below(if depth > 3 { 8 } else { 10 }) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 => json!(random.below(2_000)),
        3 => json!(-5),
        4 => json!(1.5e300),
        5 => json!(*pick(
            random,
            &[
                "",
                "a",
                "demo.low",
                "\u{0}",
                "ü\n\r\t\"",
                "system",
                "penc_AQ",
                "2026-01-01T00:00:00Z"
            ]
        )),
        6 => json!(u64::MAX),
        7 => json!(DEFAULT),
        8 => Value::Array(
            (0..random.below(4))
                .map(|_| anything(random, depth + 1))
                .collect(),
        ),
        _ => {
            let names = ["key", "value", "version", "a", "", "b.c"];
            let pairs = (0..random.below(4)).map(|_| {
                (
                    pick(random, &names).to_string(),
                    anything(random, depth + 1),
                )
            });
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

fn fitting(random: &SeededRandom, key: &str) -> Value {
    let n = random.below(60);
    match key {
        "demo.on" => json!(n.is_multiple_of(2)),
        "demo.data" => json!({ "n": n }),
        "demo.low" | "demo.asked" => json!(n),
        "demo.high" => json!(500 + n),
        "demo.word" => json!("a"),
        _ => json!(format!("text {n}")),
    }
}

fn one_change(random: &SeededRandom) -> Value {
    let keys = [
        "demo.low",
        "demo.high",
        "demo.on",
        "demo.text",
        "demo.data",
        "demo.word",
        "demo.secret",
        "demo.asked",
        "demo.nothing",
        "listen.http",
        "",
    ];
    let key = *pick(random, &keys);
    let mut one = Map::from_iter([("key".to_owned(), json!(key))]);
    match random.below(8) {
        0 => one.insert("reset".to_owned(), json!(true)),
        1 | 2 => one.insert("value".to_owned(), anything(random, 0)),
        _ => one.insert("value".to_owned(), fitting(random, key)),
    };
    if random.below(4) == 0 {
        one.insert("version".to_owned(), json!(random.below(6)));
    }
    Value::Object(one)
}

fn body(random: &SeededRandom) -> Value {
    let changes = (0..=random.below(3) / 2).map(|_| one_change(random));
    let mut out = Map::from_iter([("changes".to_owned(), Value::Array(changes.collect()))]);
    for (name, value, odds) in [
        ("base_seq", json!(1_000_000), 15),
        ("confirm", json!(true), 12),
        ("scope", json!(DEFAULT), 5),
        ("comment", anything(random, 3), 1),
        ("dry_run", json!(true), 2),
        ("odd", json!(1), 1),
    ] {
        if random.below(16) < odds {
            out.insert(name.to_owned(), value);
        }
    }
    Value::Object(out)
}

#[tokio::test]
async fn nothing_that_is_sent_breaks_settings() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let tree = Tree(rig.core.clone());
        let random = SeededRandom::new(7);
        let paths = ["/changes", "/changes", "/changes", "/changes", "/import", "/rollback", "/demo.low/rollback", "/export", "/secrets/rotate"];
        let mut done = 0;
        for _ in 0..ROUNDS {
            let path = *pick(&random, &paths);
            let sent = if random.below(4) == 0 { anything(&random, 0) } else { body(&random) };
            let sent = if path == "/changes" || random.below(2) == 0 {
                sent
            } else {
                json!({ "settings": anything(&random, 0), "version": random.below(3), "seq": random.below(9) })
            };
            let (status, answer) = rig.ask("POST", path, Some(sent.clone())).await;
            assert!(status < 500 && status != 422, "{path} {sent} → {status} {answer}");
            done += usize::from(status == 200 && answer["id"].is_string());
            let keys = ["demo/low", "demo/data", "demo//low", "", "/", "demo/low/", "plugin/x/y", "demo/text"];
            let value = anything(&random, 0).to_string();
            let cut = usize::try_from(random.below(value.len() as u64 + 1)).unwrap();
            let bytes = &value.as_bytes()[..cut];
            let key: &&str = pick(&random, &keys);
            let _ = tree.write(&rig.operator(), key, Some(bytes), Some(random.below(5))).await;
        }
        assert!(done > 5, "only {done} changes got through: the rest tells nothing");
        let again = Rig::another(db, With::default()).await;
        for rig in [&rig, &again] {
            let state = rig.core.live.state();
            for taken in state.rows() {
                let declared = DECLARATIONS.iter().find(|d| *d.key == *taken.stored.key).expect("only what is declared");
                assert!(taken.refused.is_none());
                if let Some(value) = &taken.stored.value {
                    assert_eq!(declared.check(value), Ok(()));
                }
            }
            assert!(super::rig::low_below_high(&rig.settings, SYSTEM).is_empty());
        }
    })
    .await;
}
