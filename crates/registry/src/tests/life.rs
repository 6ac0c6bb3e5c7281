//! A life: heartbeats, silence, leaving, orders, restarts, new secrets.

use portico_base::id;
use portico_contract::directory::InstanceState;
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::{House, operator, user};
use crate::ops::{rotate, versions};
use crate::{beats, jobs};

#[tokio::test]
async fn silence_makes_late_inactive_and_gone_and_a_heartbeat_brings_back() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let id = house.enter("hello", 9001).await;
        house.advance(59);
        house.tick().await;
        assert_eq!(house.state(&id), "ready");
        house.advance(2);
        house.tick().await;
        assert_eq!(house.state(&id), "late");
        let service = house
            .directory()
            .find(id::TENANT_DEFAULT, "hello")
            .cloned()
            .unwrap();
        assert_eq!(
            service.instances[0].state,
            InstanceState::Late,
            "the gateway sees it"
        );
        let (status, answer) = house.beat(&operator(), &id).await;
        assert_eq!(
            (status, answer["state"].as_str()),
            (200, Some("ready")),
            "{answer}"
        );
        assert_eq!(
            (answer["next_s"].as_u64(), answer["drain"].as_bool()),
            (Some(30), Some(false))
        );
        house.advance(301);
        house.tick().await;
        assert_eq!(house.state(&id), "inactive");
        let (_, list) = house.get(&operator(), "/services").await;
        assert_eq!(
            list["items"].as_array().unwrap().len(),
            0,
            "inactive ones are not listed"
        );
        let (_, list) = house.get(&operator(), "/services?state=all").await;
        assert_eq!(list["items"][0]["state"], "inactive");
        house.advance(86_401);
        house.tick().await;
        assert_eq!(house.state(&id), "gone");
        assert_eq!(house.beat(&operator(), &id).await.0, 404);
        let (_, history) = house
            .get(&operator(), &format!("/services/{id}/history"))
            .await;
        let steps: Vec<&str> = history["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|s| s["to"].as_str())
            .collect();
        assert_eq!(steps, ["removed", "inactive", "ready", "late", "ready"]);
    })
    .await;
}

#[tokio::test]
async fn heartbeats_are_no_writes_until_they_are_flushed() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let id = house.enter("hello", 9001).await;
        let before = house.core.model.read().seq;
        for _ in 0..5 {
            house.advance(30);
            assert_eq!(house.beat(&operator(), &id).await.0, 200);
        }
        assert_eq!(house.core.model.read().seq, before);
        assert_eq!(beats::flush(&house.core).await.unwrap(), 1);
        assert_eq!(beats::flush(&house.core).await.unwrap(), 0);
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        let kept = after
            .core
            .model
            .read()
            .instances()
            .next()
            .map(|e| e.instance.last_heartbeat);
        assert_eq!(kept, Some(portico_base::Clock::now(&house.clock)));
        let told = json!({"service_id": id, "load": 0.5, "numbers": {"queue": 3}});
        assert_eq!(
            house.call(&operator(), "POST", "/heartbeat", told).await.0,
            200
        );
        let (_, list) = house.get(&operator(), "/services").await;
        assert_eq!(
            (
                &list["items"][0]["load"],
                &list["items"][0]["numbers"]["queue"]
            ),
            (&json!(0.5), &json!(3.0))
        );
        let bad = json!({"service_id": id, "status": "odd", "load": -1, "numbers": {"a": "b"}});
        let (status, problem) = house.call(&operator(), "POST", "/heartbeat", bad).await;
        assert_eq!((status, super::faults(&problem).len()), (400, 3));
    })
    .await;
}

#[tokio::test]
async fn leaving_drains_first() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let id = house.enter("hello", 9001).await;
        let (status, answer) = house
            .call(
                &operator(),
                "POST",
                &format!("/deregister/{id}"),
                Value::Null,
            )
            .await;
        assert_eq!((status, answer["state"].as_str()), (200, Some("draining")));
        assert_eq!(house.beat(&operator(), &id).await.1["drain"], true);
        house.advance(29);
        house.tick().await;
        assert_eq!(house.state(&id), "draining");
        house.advance(2);
        house.tick().await;
        assert_eq!(house.state(&id), "gone");
        let (status, problem) = house.beat(&operator(), &id).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("registry.drained"))
        );
        let service = house.directory().find(id::TENANT_DEFAULT, "hello").cloned();
        assert_eq!(
            service.map(|s| s.instances.len()),
            Some(0),
            "the service is known still"
        );

        let id = house.enter("hello", 9001).await;
        let path = format!("/services/{id}?now=true");
        let (status, answer) = house.call(&operator(), "DELETE", &path, Value::Null).await;
        assert_eq!((status, answer["state"].as_str()), (200, Some("removed")));
        assert_eq!(
            house
                .call(&operator(), "DELETE", &path, Value::Null)
                .await
                .0,
            404
        );
        assert_eq!(
            house
                .call(&operator(), "POST", "/deregister/nonsense", Value::Null)
                .await
                .0,
            404
        );
        let id = house.enter("hello", 9002).await;
        let leave = json!({"now": true, "reason": "done"});
        let (_, answer) = house
            .call(&operator(), "POST", &format!("/deregister/{id}"), leave)
            .await;
        assert_eq!(answer["state"], "removed");
        let id = house.enter("hello", 9003).await;
        let (_, answer) = house
            .call(
                &operator(),
                "POST",
                "/heartbeat",
                json!({"service_id": id, "status": "draining"}),
            )
            .await;
        assert_eq!(
            (answer["state"].as_str(), answer["drain"].as_bool()),
            (Some("draining"), Some(true))
        );
        let body = json!({"name": "hello", "port": 9003, "host": "127.0.0.1", "version": "1.0.0"});
        let (status, answer) = house.register(&operator(), body).await;
        assert_eq!(
            (status, answer["state"].as_str()),
            (200, Some("ready")),
            "it came back"
        );
    })
    .await;
}

#[tokio::test]
async fn operators_take_out_bring_back_and_weigh() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let id = house.enter("hello", 9001).await;
        let post = async |verb: &str, body: Value| {
            house
                .call(&operator(), "POST", &format!("/services/{id}/{verb}"), body)
                .await
        };
        let (status, answer) = post("maintenance", json!({"reason": "disk"})).await;
        assert_eq!(
            (status, answer["state"].as_str()),
            (200, Some("maintenance"))
        );
        house.advance(1_000);
        house.tick().await;
        assert_eq!(house.state(&id), "maintenance", "maintenance does not age");
        house.beat(&operator(), &id).await;
        assert_eq!(post("resume", Value::Null).await.1["state"], "ready");
        assert_eq!(post("weight", json!({"weight": 3})).await.0, 200);
        let weight = |house: &House| {
            house
                .directory()
                .find(id::TENANT_DEFAULT, "hello")
                .map(|s| s.instances[0].weight)
        };
        assert_eq!(weight(&house), Some(3));
        assert_eq!(post("weight", json!({"weight": null})).await.0, 200);
        assert_eq!(weight(&house), Some(100));
        assert_eq!(post("weight", json!({"weight": 1001})).await.0, 400);
        assert_eq!(post("drain", Value::Null).await.1["state"], "draining");
        assert_eq!(post("resume", Value::Null).await.1["state"], "ready");
        let user = user(id::TENANT_DEFAULT);
        let (status, _) = house
            .call(&user, "POST", &format!("/services/{id}/drain"), Value::Null)
            .await;
        assert_eq!(status, 403);
        let switch = json!({"enabled": false, "tenant": "default"});
        let (status, answer) = house
            .call(&operator(), "POST", "/services/hello/enabled", switch)
            .await;
        assert_eq!(
            (status, answer["enabled"].as_bool()),
            (200, Some(true)),
            "{answer}"
        );
        let service = house
            .directory()
            .find(id::TENANT_DEFAULT, "hello")
            .cloned()
            .unwrap();
        assert_eq!(&*service.disabled_for, [id::TENANT_DEFAULT]);
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        let service = after
            .directory()
            .find(id::TENANT_DEFAULT, "hello")
            .cloned()
            .unwrap();
        assert_eq!(
            &*service.disabled_for,
            [id::TENANT_DEFAULT],
            "it survives a restart"
        );
    })
    .await;
}

#[tokio::test]
async fn a_restart_restores_what_was_known_as_late() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let hello = house.enter("hello", 9001).await;
        let body = json!({"name": "other", "port": 9002, "host": "127.0.0.1", "tags": ["x"],
            "metadata": {"b": "1", "a": "2"}, "endpoints": [{"path": "/a", "rate_limit": 5}],
            "protocol": "h2c", "zone": "z", "heartbeat_s": 5, "weight": 0, "default_access": "public"});
        let (_, other) = house.register(&operator(), body.clone()).await;
        house.advance(3_600);
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        assert_eq!(after.state(&hello), "late");
        let (was, is) = (house.directory(), after.directory());
        let (was, is) = (was.find(id::TENANT_DEFAULT, "other").unwrap(), is.find(id::TENANT_DEFAULT, "other").unwrap());
        assert_eq!((&was.endpoints, was.default_access), (&is.endpoints, is.default_access));
        assert_eq!(was.instances[0].metadata, is.instances[0].metadata);
        assert_eq!(is.instances[0].secret.as_ref().unwrap().expose(), other["instance_secret"].as_str().unwrap());
        after.tick().await;
        assert_eq!(after.state(&hello), "late", "an hour of silence, and sixty seconds of grace");
        let (status, again) = after.register(&operator(), body).await;
        assert_eq!((status, &again["id"], again["state"].as_str()), (200, &other["id"], Some("ready")));
        assert_eq!(after.beat(&operator(), &hello).await.1["state"], "ready");
        after.advance(61);
        after.tick().await;
        assert_eq!(after.state(&hello), "late");
        let third = House::build(db.db.clone(), db.clock.clone(), "three", Vec::new()).await;
        third.advance(301);
        third.tick().await;
        assert_eq!(third.state(&hello), "inactive", "nothing was heard in its grace");
    })
    .await;
}

#[tokio::test]
async fn secrets_rotate_with_overlap() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, answer) = house
            .register(
                &operator(),
                json!({"name": "hello", "port": 9001, "host": "127.0.0.1"}),
            )
            .await;
        let (id, old) = (
            answer["id"].as_str().unwrap(),
            answer["instance_secret"].as_str().unwrap(),
        );
        let me = house.find(old).unwrap();
        let cx = house.core.own_context("test");
        assert_eq!(
            rotate::rotate(&house.core, &cx).await.unwrap(),
            0,
            "it is young"
        );
        house.advance(86_400);
        house.beat(&me, id).await;
        assert_eq!(rotate::rotate(&house.core, &cx).await.unwrap(), 1);
        let signs = |house: &House| {
            house
                .directory()
                .find(id::TENANT_DEFAULT, "hello")
                .unwrap()
                .instances[0]
                .secret
                .as_ref()
                .unwrap()
                .expose()
                .clone()
        };
        let new = house.beat(&me, id).await.1["key_rotation"]["instance_secret"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_ne!(new, old);
        assert_eq!(signs(&house), old, "handed out once, not in use");
        house.beat(&me, id).await;
        assert_eq!(signs(&house), old);
        assert_eq!(
            house.beat(&me, id).await.1["key_rotation"]["instance_secret"],
            new.as_str()
        );
        assert_eq!(signs(&house), new);
        assert!(house.beat(&me, id).await.1.get("key_rotation").is_none());
        assert!(
            house.find(old).is_some() && house.find(&new).is_some(),
            "both are accepted"
        );
        house.advance(86_401);
        assert!(house.find(old).is_none() && house.find(&new).is_some());
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        assert!(after.find(&new).is_some());
    })
    .await;
}

#[tokio::test]
async fn versions_without_instances_are_forgotten() {
    each_backend(async |db| {
        let house = House::new(db).await;
        for version in ["1.0.0", "2.0.0"] {
            let body = json!({"name": "hello", "port": 9001, "host": "127.0.0.1", "version": version,
                "endpoints": [{"path": "/a"}]});
            assert!(house.register(&operator(), body).await.0 < 300);
        }
        let count = |house: &House| {
            house.directory().find(id::TENANT_DEFAULT, "hello").map(|s| s.endpoints.len())
        };
        assert_eq!(count(&house), Some(2));
        let cx = house.core.own_context("test");
        assert_eq!(versions::forget(&house.core, &cx).await.unwrap(), 0, "it may come back today");
        house.advance(2 * 86_400);
        assert_eq!(versions::forget(&house.core, &cx).await.unwrap(), 1);
        assert_eq!(count(&house), Some(1));
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        assert_eq!(count(&after), Some(1));
    })
    .await;
}

#[tokio::test]
async fn old_events_and_steps_are_trimmed() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let id = house.enter("hello", 9001).await;
        for weight in 0..5 {
            let path = format!("/services/{id}/weight");
            house
                .call(&operator(), "POST", &path, json!({"weight": weight}))
                .await;
        }
        jobs::trim(&house.core).await.unwrap();
        let kept = crate::store::events::read(db.db.reader(), 0, 100)
            .await
            .unwrap();
        assert_eq!(kept.len(), 7, "service, instance, five weights");
        house.advance(8 * 86_400);
        jobs::trim(&house.core).await.unwrap();
        assert!(
            crate::store::events::read(db.db.reader(), 0, 100)
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            house
                .get(&operator(), &format!("/services/{id}/history"))
                .await
                .1["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        house.advance(30 * 86_400);
        jobs::trim(&house.core).await.unwrap();
        assert_eq!(
            house
                .get(&operator(), &format!("/services/{id}/history"))
                .await
                .1["items"]
                .as_array()
                .unwrap()
                .len(),
            0
        );
    })
    .await;
}
