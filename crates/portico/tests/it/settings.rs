//! Settings of the running binary: changed while it runs, on every replica, through outages and sudden ends.

use std::time::{Duration, Instant};

use portico_proto::settings::v1::WatchRequest;
use portico_proto::settings::v1::settings_service_client::SettingsServiceClient;
use reqwest::Method;
use serde_json::{Value, json};
use tonic::transport::Endpoint;

use crate::house::{Answer, House, answer, client, command, until};
use crate::raw::{RawServer, answer_always};

/// Changes one key, on the version that it has.
async fn set(house: &House, key: &str, value: Value) -> Answer {
    let path = format!("/api/settings/{key}");
    let present = house.operate(Method::GET, &path, None).await.json();
    let body = json!({ "changes": [{ "key": key, "value": value, "version": present["version"] }], "confirm": true });
    house
        .operate(Method::POST, "/api/settings/changes", Some(&body))
        .await
}

async fn value(house: &House, key: &str) -> Value {
    let path = format!("/api/settings/{key}");
    house.operate(Method::GET, &path, None).await.json()["value"].clone()
}

#[tokio::test]
async fn what_is_changed_changes_what_the_house_does_without_a_restart() {
    let house = House::configured("[settings]\n\"gateway.body_max_bytes\" = 1000\n", &[]);
    let upstream = RawServer::start(|stream, _| answer_always(stream, "hello"));
    house.register("hello", upstream.port(), json!({})).await;
    let send = |bytes: usize| {
        let url = format!("{}/api/hello/", house.http);
        answer(client().post(url).body("x".repeat(bytes)))
    };
    assert_eq!(send(2_000).await.unwrap().status, 413, "by the file");
    let shown = house
        .operate(Method::GET, "/api/settings/gateway.body_max_bytes", None)
        .await
        .json();
    assert_eq!(
        shown["source"],
        json!({ "layer": "file", "scope": "system" })
    );

    let begun = Instant::now();
    assert_eq!(
        set(&house, "gateway.body_max_bytes", json!(10_000))
            .await
            .status,
        200
    );
    until("the gateway's limit", || async {
        send(2_000).await.unwrap().status == 200
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(send(20_000).await.unwrap().status, 413);
}

#[tokio::test]
async fn registration_closes_and_opens_while_the_house_runs() {
    let house = House::start(&[]);
    let register = || async {
        let body = json!({ "method": "username", "identifier": "ada", "password": "correct-Horse-9-battery", "device": { "platform": "cli" } });
        let url = format!("{}/api/identity/register", house.http);
        answer(client().post(url).json(&body)).await.unwrap()
    };
    assert_eq!(
        set(&house, "identity.registration.mode", json!("off"))
            .await
            .status,
        200
    );
    let refused = register().await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (403, &json!("identity.registration_closed"))
    );
    assert_eq!(
        set(&house, "identity.registration.mode", json!("open"))
            .await
            .status,
        200
    );
    assert_ne!(
        register().await.json()["code"],
        "identity.registration_closed"
    );
}

#[tokio::test]
async fn configuration_is_shown_and_changed_by_no_api() {
    let house = House::start(&[]);
    let list = house
        .operate(
            Method::GET,
            "/api/settings?prefix=gateway.breaker&limit=2",
            None,
        )
        .await;
    assert_eq!(
        (list.status, list.json()["items"].as_array().map(Vec::len)),
        (200, Some(2)),
        "{}",
        list.text
    );
    let refused = set(&house, "listen.http", json!("127.0.0.1:1")).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (403, &json!("settings.configuration")),
        "{}",
        refused.text
    );
    let lines = house
        .operate(Method::GET, "/api/settings/configuration", None)
        .await
        .json();
    let listen = lines["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["key"] == "listen.http")
        .unwrap();
    assert_eq!(listen["layer"], "flag");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_outlive_a_kill_and_a_set_is_never_half() {
    let mut house = House::start(&[]);
    let pair = ["kv.max_keys", "kv.max_bytes"];
    let mut acknowledged = 0;
    for round in 0..6 {
        let (url, token) = (house.http.clone(), house.operator());
        let writer = tokio::spawn(async move {
            let mut last = 0;
            for n in 1.. {
                // Above the default, which is there before the first change is.
                let number = 200_000 + 10_000 * (round + 1) + n;
                let changes = pair.map(|key| json!({ "key": key, "value": number }));
                let body = json!({ "changes": changes, "base_seq": u32::MAX });
                let request = client().post(format!("{url}/api/settings/changes"));
                match answer(request.bearer_auth(&token).json(&body)).await {
                    Ok(done) if done.status == 200 => last = number,
                    _ => return last,
                }
            }
            last
        });
        // At another point of a change each time.
        let floor = 200_000 + 10_000 * (round + 1) + 2 + round;
        until("some changes went through", || async {
            value(&house, pair[0])
                .await
                .as_i64()
                .is_some_and(|n| n >= floor)
        })
        .await;
        house.signal(nix::sys::signal::Signal::SIGKILL);
        tokio::task::block_in_place(|| house.wait());
        acknowledged = acknowledged.max(writer.await.unwrap());
        let folder = house.folder.clone();
        house = tokio::task::block_in_place(|| House::at(folder, &[]));
        let (a, b) = (value(&house, pair[0]).await, value(&house, pair[1]).await);
        assert_eq!(a, b, "half a change set");
        assert!(
            a.as_i64() >= Some(acknowledged),
            "{a} after {acknowledged} was promised"
        );
        let first = house_history(&house, pair[0]).await;
        assert_eq!(first, house_history(&house, pair[1]).await);
    }
}

/// Versions of a key with their values, newest first, at most 200.
async fn house_history(house: &House, key: &str) -> Vec<(u64, Value)> {
    let path = format!("/api/settings/{key}/history?limit=200");
    let page = house.operate(Method::GET, &path, None).await.json();
    let items = page["items"].as_array().cloned().unwrap_or_default();
    let one = |item: &Value| (item["version"].as_u64().unwrap(), item["value"].clone());
    items.iter().map(one).collect()
}

#[tokio::test]
async fn a_plugin_declares_settings_and_reads_them_with_its_own_credential() {
    let house = House::start(&[]);
    let schema = json!({ "type": "object", "properties": {
        "greeting": { "type": "string", "maxLength": 10, "default": "hello" },
        "key": { "type": "string", "writeOnly": true },
    } });
    let broken = json!({ "name": "hello", "version": "1.0.0", "host": "127.0.0.1", "port": 9, "settings_schema": { "properties": { "A": {}, "b": { "oneOf": [] } } } });
    let refused = house
        .operate(Method::POST, "/api/registry/register", Some(&broken))
        .await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json()["errors"].as_array().unwrap().len(),
        2,
        "{}",
        refused.text
    );
    let made = house
        .enrol("hello", 9, json!({ "settings_schema": schema }))
        .await;
    let secret = made["instance_secret"].as_str().unwrap().to_owned();
    until("its settings are known", || async {
        value(&house, "plugin.hello.greeting").await == "hello"
    })
    .await;
    assert_eq!(
        set(&house, "plugin.hello.greeting", json!("too long a text"))
            .await
            .status,
        400
    );
    assert_eq!(
        set(&house, "plugin.hello.key", json!("s3cr3t-of-the-plugin"))
            .await
            .status,
        200
    );
    let own = |path: &str| {
        let url = format!("{}/api/settings{path}", house.http);
        answer(client().get(url).bearer_auth(&secret))
    };
    let key = own("/plugin.hello.key").await.unwrap();
    assert_eq!(key.json()["value"], "s3cr3t-of-the-plugin", "{}", key.text);
    assert_eq!(own("/gateway.body_max_bytes").await.unwrap().status, 404);
    let waiting = tokio::spawn(own("/watch?wait=20s"));
    until("the watch is open", || async {
        house.metric("portico_settings_watchers").await > 0.5
    })
    .await;
    assert_eq!(
        set(&house, "plugin.hello.greeting", json!("hi"))
            .await
            .status,
        200
    );
    let news = waiting.await.unwrap().unwrap().json();
    assert_eq!(news["changed"][0]["value"], "hi", "{news}");
    assert!(!house.log().contains("s3cr3t-of-the-plugin"));
}

#[tokio::test]
async fn commands_list_change_compare_roll_back_export_and_apply() {
    let house = House::start(&[]);
    let run = |arguments: &[&str]| {
        let data = house.data_dir().display().to_string();
        let all = [arguments, &["--data-dir", &data]].concat();
        let output = command(house.folder.path(), &all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text, errors)
    };
    let (code, text, errors) = run(&[
        "settings",
        "set",
        "gateway.breaker.open_s",
        "12",
        "--comment",
        "calmer",
        "--yes",
    ]);
    assert_eq!(code, Some(0), "{text}{errors}");
    assert!(
        text.contains("gateway.breaker.open_s: (nothing) → 12"),
        "{text}"
    );
    let (code, _, errors) = run(&["settings", "set", "gateway.breaker.open_s", "13"]);
    assert_eq!(code, Some(1), "nobody can be asked: {errors}");
    assert!(errors.contains("--yes"));
    let (_, text, _) = run(&["settings", "set", "gateway.lb.policy", "first", "--dry-run"]);
    assert!(text.contains("→ \"first\""), "{text}");
    let (code, _, errors) = run(&["settings", "set", "gateway.breaker.open_s", "1000", "--yes"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("from 1 to 300"), "{errors}");
    run(&["settings", "set", "gateway.breaker.open_s", "15", "--yes"]);
    let (_, text, _) = run(&["settings", "diff", "gateway.breaker.open_s", "1", "2"]);
    assert!(text.contains("12 → 15"), "{text}");
    let (code, text, errors) = run(&[
        "settings",
        "rollback",
        "gateway.breaker.open_s",
        "1",
        "--yes",
    ]);
    assert_eq!(code, Some(0), "{text}{errors}");
    let (_, text, _) = run(&["settings", "history", "gateway.breaker.open_s"]);
    assert!(
        text.contains("calmer") && text.contains("operator"),
        "{text}"
    );
    let (_, text, _) = run(&["settings", "list", "gateway.breaker", "--set", "--json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (list.as_array().unwrap().len(), &list[0]["value"]),
        (1, &json!(12))
    );
    let (_, text, _) = run(&["settings", "get", "gateway.breaker.open_s"]);
    assert!(text.contains("12"), "{text}");

    let (code, yaml, errors) = run(&["settings", "export"]);
    assert_eq!(code, Some(0), "{errors}");
    let file = house.folder.path().join("settings.yaml");
    std::fs::write(&file, yaml.replace("12", "20")).unwrap();
    let file = file.display().to_string();
    let (_, text, errors) = run(&["settings", "apply", &file, "--dry-run"]);
    assert!(text.contains("12 → 20"), "{text}{errors}");
    assert_eq!(value(&house, "gateway.breaker.open_s").await, 12);
    let (code, _, errors) = run(&["settings", "apply", &file, "--prune", "--yes"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(value(&house, "gateway.breaker.open_s").await, 20);

    let (code, text, errors) = run(&["secrets", "status"]);
    assert_eq!(code, Some(0), "{text}{errors}");
    assert!(text.contains("current"), "{text}");
    let (code, text, errors) = run(&["secrets", "rotate", "--yes", "--json"]);
    assert_eq!(code, Some(0), "{text}{errors}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["left"], 0);
}

#[tokio::test]
async fn programs_watch_settings_over_grpc() {
    let house = House::start(&[]);
    let ready = std::fs::read_to_string(house.data_dir().join("ready.json")).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let address = ready["grpc"].as_str().unwrap().to_owned();
    let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
    let mut client = SettingsServiceClient::new(channel);
    let wish = |credential: Option<String>| {
        let mut request = tonic::Request::new(WatchRequest {
            after: Some(0),
            scope: String::new(),
        });
        if let Some(token) = credential {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    };
    let nobody = client.watch(wish(None)).await.unwrap_err();
    assert_eq!(nobody.code(), tonic::Code::Unauthenticated);
    let watched = client.watch(wish(Some(house.operator()))).await.unwrap();
    let mut watched = watched.into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!((first.seq, first.changed.len()), (0, 0));
    assert_eq!(set(&house, "kv.max_keys", json!(5_000)).await.status, 200);
    assert_eq!(
        set(&house, "mail.smtp.password", json!("hidden"))
            .await
            .status,
        200
    );
    let mut told = Vec::new();
    while told.len() < 2 {
        let news = watched.message().await.unwrap().unwrap();
        told.extend(news.changed);
    }
    assert_eq!(
        (&*told[0].key, told[0].value_json.as_deref()),
        ("kv.max_keys", Some("5000"))
    );
    assert!(told[1].secret && told[1].value_json.is_none() && told[1].fingerprint.len() == 8);
}

/// CT-21: the master key is changed by a restart with the former one as a previous key; everything stays
/// readable, is sealed anew, and the former key can go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_key_takes_over_and_the_former_one_can_go() {
    let (old, new) = ("1b".repeat(32), "2c".repeat(32));
    let text = |master: &str, previous: &str| {
        format!("[keys]\nmaster = \"{master}\"\nprevious_files = [{previous}]\n")
    };
    let mut house = House::configured(&text(&old, ""), &[]);
    assert_eq!(
        set(&house, "mail.smtp.password", json!("of the mail server"))
            .await
            .status,
        200
    );
    let file = house.folder.path().join("former.key");
    std::fs::write(&file, &old).unwrap();
    let again = |house: &mut House, text: &str| {
        assert_eq!(house.stop(), 0, "{}", house.log());
        std::fs::write(house.folder.path().join("portico.toml"), text).unwrap();
        House::at(house.folder.clone(), &[])
    };
    let named = format!("{:?}", file.display().to_string());
    house = tokio::task::block_in_place(|| again(&mut house, &text(&new, &named)));
    let status = |house: &House| {
        let data = house.data_dir().display().to_string();
        let output = command(
            house.folder.path(),
            &["secrets", "status", "--json", "--data-dir", &data],
        );
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let before = status(&house);
    let totals = before["totals"].as_object().unwrap().clone();
    let former = totals
        .keys()
        .find(|kid| **kid != before["current"])
        .unwrap()
        .clone();
    assert!(
        totals[&former].as_u64() >= Some(3),
        "setting, history and signing key: {before}"
    );
    let data = house.data_dir().display().to_string();
    let output = command(
        house.folder.path(),
        &["secrets", "rotate", "--yes", "--data-dir", &data],
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let after = status(&house);
    assert_eq!(after["totals"][&former], Value::Null, "{after}");
    house = tokio::task::block_in_place(|| again(&mut house, &text(&new, "")));
    let applied = house
        .operate(Method::GET, "/api/settings/applied", None)
        .await
        .json();
    assert_eq!(
        applied["replicas"][0]["rejected"],
        json!([]),
        "the secret opens: {applied}"
    );
}

/// RG-45, CT-14: the same with py-consul in `tests/consul`.
#[tokio::test]
async fn the_key_value_store_reads_writes_and_waits_for_settings() {
    let house = House::start(&[]);
    let token = house.operator();
    let ask = |method: Method, path: &str, body: &'static str| {
        let url = format!("{}/v1/kv/portico/settings/{path}", house.consul);
        let request = client()
            .request(method, url)
            .header("X-Consul-Token", &token);
        answer(request.body(body))
    };
    let key = "kv/max_keys";
    let shown = ask(Method::GET, key, "").await.unwrap().json();
    assert_eq!(
        (&shown[0]["ModifyIndex"], &shown[0]["Key"]),
        (&json!(0), &json!("portico/settings/kv/max_keys"))
    );
    assert_eq!(
        ask(Method::PUT, "kv/max_keys?cas=0", "5000")
            .await
            .unwrap()
            .text,
        "true"
    );
    assert_eq!(
        ask(Method::PUT, "kv/max_keys?cas=0", "6000")
            .await
            .unwrap()
            .text,
        "false"
    );
    assert_eq!(
        ask(Method::GET, "kv/max_keys?raw", "").await.unwrap().text,
        "5000"
    );
    let seen = ask(Method::GET, key, "").await.unwrap();
    let index = seen.headers["x-consul-index"].to_str().unwrap().to_owned();
    let waiting = {
        let path = format!("{key}?wait=20s&index={index}");
        let url = format!("{}/v1/kv/portico/settings/{path}", house.consul);
        tokio::spawn(answer(client().get(url).header("X-Consul-Token", &token)))
    };
    until("the query waits", || async {
        house.metric("portico_registry_consul_blocking").await > 0.5
    })
    .await;
    assert_eq!(set(&house, "kv.max_keys", json!(7_000)).await.status, 200);
    let news = waiting.await.unwrap().unwrap().json();
    assert_eq!(news[0]["Value"], "NzAwMA==", "{news}");
    assert_eq!(ask(Method::PUT, key, "-1").await.unwrap().status, 400);
    assert_eq!(
        ask(Method::PUT, "database/url", "\"x\"")
            .await
            .unwrap()
            .status,
        400
    );
    assert_eq!(
        ask(Method::PUT, "kv/nothing", "1").await.unwrap().status,
        404
    );
    let list = ask(Method::GET, "kv/?recurse", "").await.unwrap().json();
    assert_eq!(list.as_array().unwrap().len(), 3);
    let url = format!("{}/v1/kv/portico/settings/{key}", house.consul);
    let nobody = answer(client().get(url)).await.unwrap();
    assert_eq!(nobody.status, 403, "settings are not for anonymous callers");
    assert_eq!(ask(Method::DELETE, key, "").await.unwrap().text, "true");
    assert_eq!(value(&house, "kv.max_keys").await, 100_000);
}
