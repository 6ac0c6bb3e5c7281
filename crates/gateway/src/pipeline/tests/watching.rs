//! The map live: what watchers get, second by second, when they keep up and when they do not.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use portico_base::SystemClock;
use portico_contract::directory::{Service, ServiceKey};
use portico_db::testing::{self, TestDb};
use portico_host::Spawner;
use serde_json::Value;
use uuid::Uuid;

use super::rig::{Backend, Rig, service};
use crate::error::Error;
use crate::figures::Pools;
use crate::live::Watcher;
use crate::pipeline::operate::Audience;
use crate::surface::DoorControl;
use crate::topology::{Parts, Topology};

async fn topology(rig: &Rig) -> (Topology, TestDb) {
    let test = testing::sqlite().await;
    let spawner = Spawner::new(tokio::runtime::Handle::current());
    let topology = Topology::new(Parts {
        name: "here".into(),
        id: Uuid::from_u128(9),
        clock: Arc::new(SystemClock),
        db: test.db.clone(),
        bus: None,
        control: DoorControl::new(spawner),
        health: Arc::new(OnceLock::new()),
        pools: Pools::default(),
    });
    topology.bind(&rig.gate);
    (topology, test)
}

/// Name and data of the next event.
async fn next(watcher: &mut Watcher) -> (String, Value) {
    let text = watcher.next().await.expect("the stream goes on");
    let text = String::from_utf8(text.to_vec()).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.unwrap_or_default().to_owned()
    };
    let data = serde_json::from_str(&field("data: ")).unwrap();
    (field("event: "), data)
}

fn named(data: &Value, list: &str, field: &str) -> Vec<String> {
    let all = data[list].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|item| item[field].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn steps_follow_the_whole_and_who_misses_one_gets_the_whole_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let backend = Backend::answering("hi");
    let hello = || service("hello", vec![backend.instance(1, "1")]);
    let inner = || Service {
        key: ServiceKey {
            tenant: Some(Uuid::from_u128(77)),
            name: "inner".into(),
        },
        ..service("inner", vec![backend.instance(2, "1")])
    };
    let rig = Rig::new(vec![hello()]);
    let (topology, _db) = runtime.block_on(topology(&rig));
    let mut sampler = topology.sampler(Arc::clone(&rig.gate));
    let mut directory = rig.gate.directory();
    let mut tick = || topology.tick(&mut sampler, &mut directory);
    let watch = |audience| topology.live().watch(&topology, audience).unwrap();
    let next = |watcher: &mut Watcher| runtime.block_on(next(watcher));
    let (mut all, mut other) = (
        watch(Audience::All),
        watch(Audience::Tenant(Uuid::from_u128(78))),
    );
    assert_eq!(
        (next(&mut all).0, next(&mut other).0),
        ("map".into(), "map".into())
    );
    tick();
    assert_eq!(
        (next(&mut all).0, next(&mut other).0),
        ("step".into(), "step".into())
    );

    assert_eq!(rig.get("/api/hello/x").status, 200);
    rig.set(vec![hello(), inner()]);
    tick();
    let (name, step) = next(&mut all);
    assert_eq!(name, "step");
    assert!(
        named(&step, "edges", "to")
            .iter()
            .any(|to| to.starts_with("instance:"))
    );
    let happened = ["service.registered", "instance.registered"];
    assert_eq!(named(&step, "happenings", "kind"), happened);
    let told = next(&mut other).1;
    assert!(told["happenings"].as_array().unwrap().is_empty(), "{told}");
    assert!(!told.to_string().contains("inner"), "{told}");

    // What the worker still counts of the request comes first; then nothing differs any more.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        tick();
        let step = next(&mut all).1;
        let empty = |list: &str| step[list].as_array().unwrap().is_empty();
        if empty("nodes") && empty("edges") {
            break;
        }
        assert!(Instant::now() < end, "it never becomes quiet: {step}");
    }
    rig.set(vec![hello()]);
    tick();
    tick();
    let (name, whole) = next(&mut all);
    assert_eq!(name, "map", "a second was missed");
    assert!(!named(&whole, "nodes", "service").contains(&"inner".to_owned()));
    drop(other);
    topology.live().end();
    assert!(runtime.block_on(all.next()).is_none());
    let again = topology.live().watch(&topology, Audience::All);
    assert!(matches!(again, Err(Error::NotServing)));
}
