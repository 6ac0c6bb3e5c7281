//! C§3 to C§7: agent, catalogue, health, and that both APIs see the same instances.

use portico_base::id;
use serde_json::{Value, json};

use super::{Consul, databases};
use crate::tests::operator;

fn ids(answer: &super::Answer, path: &[&str]) -> Vec<String> {
    let list = answer.json();
    let pick = |item: &Value| path.iter().fold(item.clone(), |v, key| v[*key].clone());
    list.as_array()
        .unwrap()
        .iter()
        .map(|i| pick(i).as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn an_empty_catalogue_holds_consul_alone() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        assert_eq!(c.get("/v1/catalog/services").await.text, r#"{"consul":[]}"#);
        assert_eq!(c.get("/v1/agent/services").await.text, "{}");
        assert_eq!(c.get("/v1/agent/checks").await.text, "{}");
        assert_eq!(c.get("/v1/catalog/datacenters").await.text, r#"["dc1"]"#);
        assert_eq!(c.get("/v1/status/leader").await.text, r#""127.0.0.1:8300""#);
        assert_eq!(
            c.get("/v1/status/peers").await.text,
            r#"["127.0.0.1:8300"]"#
        );
        let nodes = c.get("/v1/catalog/nodes").await;
        assert_eq!(ids(&nodes, &["Node"]), ["test-host"]);
        assert_eq!(nodes.header("x-consul-effective-consistency"), "leader");
        assert_eq!(
            c.get("/v1/catalog/nodes?stale")
                .await
                .header("x-consul-effective-consistency"),
            "stale"
        );
        assert_eq!(
            c.get("/v1/catalog/nodes?cached").await.header("x-cache"),
            "MISS"
        );
        let me = c.get("/v1/agent/self").await.json();
        assert_eq!(
            (&me["Config"]["Datacenter"], &me["Config"]["NodeName"]),
            (&json!("dc1"), &json!("test-host"))
        );
        assert_eq!(
            ids(&c.get("/v1/health/state/any").await, &["CheckID"]),
            ["serfHealth"]
        );
        assert_eq!(
            ids(
                &c.get("/v1/health/service/consul").await,
                &["Service", "ID"]
            ),
            ["consul"]
        );
        assert_eq!(c.get("/v1/catalog/node/nope").await.text, "null");
        assert_eq!(c.get("/v1/catalog/service/nope").await.text, "[]");
        assert_eq!(c.get("/v1/health/checks/nope").await.text, "[]");
        assert_eq!(c.get("/v1/health/state/nonsense").await.text, "[]");
        let unknown = c.get("/v1/agent/service/nope").await;
        assert_eq!(
            (unknown.status, unknown.text.as_str()),
            (404, "unknown service ID: nope")
        );
        let odd = c.get("/v1/catalog/services/").await;
        assert_eq!((odd.status, odd.text.as_str()), (404, ""));
        let wrong = c.call("DELETE", "/v1/catalog/services", "").await;
        assert_eq!(
            (wrong.status, wrong.header("allow"), wrong.text.as_str()),
            (405, "OPTIONS,GET", "method DELETE not allowed")
        );
        assert_eq!(c.get("/v1/acl/tokens").await.text, "ACL support disabled");
        assert_eq!(c.get("/v1/operator/raft/peer").await.status, 404);
    }
}

#[tokio::test]
async fn a_registered_service_is_seen_everywhere() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        c.register(json!({"ID": "web1", "Name": "web", "Tags": ["v1"], "Port": 8080, "Address": "127.0.0.1",
            "Meta": {"version": "1.0.0"}, "Weights": {"Passing": 10, "Warning": 1}})).await;
        assert_eq!(
            c.get("/v1/agent/services").await.text,
            concat!(
                r#"{"web1":{"ID":"web1","Service":"web","Tags":["v1"],"Meta":{"version":"1.0.0"},"Port":8080,"Address":"127.0.0.1","#,
                r#""TaggedAddresses":{"lan_ipv4":{"Address":"127.0.0.1","Port":8080},"wan_ipv4":{"Address":"127.0.0.1","Port":8080}},"#,
                r#""Weights":{"Passing":10,"Warning":1},"EnableTagOverride":false}}"#
            )
        );
        assert_eq!(
            c.get("/v1/catalog/services").await.text,
            r#"{"consul":[],"web":["v1"]}"#
        );
        let line = &c.get("/v1/catalog/service/web").await.json()[0];
        assert_eq!(
            (&line["ServiceID"], &line["ServicePort"], &line["Node"]),
            (&json!("web1"), &json!(8080), &json!("test-host"))
        );
        assert_eq!(
            line["ServiceProxy"],
            json!({"MeshGateway": {}, "Expose": {}})
        );
        let node = c.get("/v1/catalog/node/test-host").await.json();
        assert_eq!(node["Services"]["web1"]["Service"], "web");
        let list = c.get("/v1/catalog/node-services/test-host").await.json();
        assert_eq!(list["Services"].as_array().unwrap().len(), 2);
        assert_eq!(
            c.get("/v1/health/service/web?tag=v1&passing")
                .await
                .json()
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(c.get("/v1/health/service/web?tag=v2").await.text, "[]");
        let filtered = c
            .get("/v1/health/service/web?filter=v1+in+Service.Tags+and+Checks.Status==passing")
            .await;
        assert_eq!(ids(&filtered, &["Service", "ID"]), ["web1"]);
        let wrong = c.get("/v1/catalog/service/web?filter=Nope==1").await;
        assert_eq!(
            (wrong.status, wrong.text.as_str()),
            (
                500,
                "Failed to create boolean expression evaluator: Selector \"Nope\" is not valid"
            )
        );
    }
}

#[tokio::test]
async fn both_apis_and_the_door_see_the_same_instance() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        c.register(
            json!({"ID": "web1", "Name": "web", "Port": 8080, "Meta": {"version": "1.0.0"}}),
        )
        .await;
        let (_, native) = c.house.get(&operator(), "/services?name=web").await;
        assert_eq!(
            (
                &native["items"][0]["version"],
                &native["items"][0]["source"]
            ),
            (&json!("1.0.0"), &json!("consul-agent"))
        );
        let directory = c.house.directory();
        assert_eq!(
            directory
                .find(id::TENANT_DEFAULT, "web")
                .unwrap()
                .instances
                .len(),
            1
        );
        assert_eq!(
            c.put("/v1/agent/service/deregister/web1", "").await.text,
            ""
        );
        assert_eq!(
            c.put("/v1/agent/service/deregister/web1", "").await.status,
            200
        );
        assert_eq!(c.get("/v1/catalog/service/web").await.text, "[]");
        assert!(
            c.house
                .directory()
                .find(id::TENANT_DEFAULT, "web")
                .is_none()
        );
    }
}

#[tokio::test]
async fn the_same_registration_changes_nothing_and_keeps_the_checks_status() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let body = json!({"Name": "web", "Port": 80, "Check": {"TTL": "10s"}});
    c.register(body.clone()).await;
    c.put("/v1/agent/check/pass/service:web?note=fine", "")
        .await;
    let before = c.get("/v1/health/service/web").await;
    c.register(body).await;
    let after = c.get("/v1/health/service/web").await;
    assert_eq!((before.index(), &before.text), (after.index(), &after.text));
    c.register(json!({"Name": "web", "Port": 81, "Check": {"TTL": "10s"}}))
        .await;
    let moved = c.get("/v1/health/service/web").await;
    assert!(moved.index() > after.index());
    assert_eq!(
        moved.json()[0]["Checks"][1]["Status"],
        "passing",
        "{}",
        moved.text
    );
    let quiet = c.get("/v1/health/service/web").await.index();
    c.put("/v1/agent/check/pass/service:web?note=other", "")
        .await;
    let told = c.get("/v1/health/service/web").await;
    assert_eq!(
        (told.index(), &told.json()[0]["Checks"][1]["Output"]),
        (quiet, &json!("other"))
    );
}

#[tokio::test]
async fn ttl_checks_pass_warn_fail_and_expire() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.register(json!({"Name": "foo", "Checks": [{"TTL": "10s"}, {"TTL": "20s", "Notes": "n"}]}))
        .await;
    let health = c.get("/v1/agent/health/service/id/foo").await;
    assert_eq!(
        (health.status, &health.json()["AggregatedStatus"]),
        (503, &json!("critical"))
    );
    for (verb, status, code) in [
        ("pass", "passing", 200),
        ("warn", "warning", 429),
        ("fail", "critical", 503),
    ] {
        for id in ["service:foo:1", "service:foo:2"] {
            assert_eq!(
                c.put(&format!("/v1/agent/check/{verb}/{id}?note=x"), "")
                    .await
                    .text,
                ""
            );
        }
        let text = c.get("/v1/agent/health/service/name/foo?format=text").await;
        assert_eq!((text.status, text.text.as_str()), (code, status));
        assert_eq!(
            ids(
                &c.get(&format!("/v1/health/state/{status}")).await,
                &["CheckID"]
            )
            .iter()
            .filter(|i| i.starts_with("service:"))
            .count(),
            2
        );
    }
    let body = json!({"Status": "passing", "Output": "y".repeat(5_000)});
    c.put("/v1/agent/check/update/service:foo:1", body.to_string())
        .await;
    let checks = c.get("/v1/agent/checks").await.json();
    assert_eq!(
        checks["service:foo:1"]["Output"].as_str().unwrap().len(),
        4_096
    );
    assert_eq!(checks["service:foo:1"]["Type"], "ttl");
    assert_eq!(checks["service:foo:1"]["Definition"], json!({}));
    c.house.tick().await;
    c.house.advance(11);
    c.house.tick().await;
    let expired = c.get("/v1/agent/checks").await.json();
    assert_eq!(expired["service:foo:1"]["Status"], "critical");
    let unknown = c.get("/v1/agent/health/service/id/nope").await;
    assert_eq!(
        (unknown.status, unknown.text.as_str()),
        (
            404,
            r#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#
        )
    );
    assert_eq!(c.get("/v1/agent/health/service/name/nope").await.text, "[]");
    let full = c.get("/v1/agent/health/service/id/foo").await.json();
    assert_eq!(
        full["Checks"][0]["Definition"]["DeregisterCriticalServiceAfter"],
        "0s"
    );
}

/// Puts bodies and compares status and text.
async fn refused(c: &Consul, cases: &[(&str, Value, u16, &str)]) {
    for (path, body, status, text) in cases {
        let answer = c.put(&format!("/v1/{path}"), body.to_string()).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (*status, *text),
            "{path} {body}"
        );
    }
}

#[tokio::test]
async fn bad_services_in_consuls_words() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let type_text = "Request decode failed: json: cannot unmarshal string into Go struct field .Port of type int";
    let cases = [
        (json!({}), 400, "Missing service name"),
        (json!({"Name": "a", "Port": "80"}), 400, type_text),
        (
            json!({"Name": "a", "Bogus": 1}),
            400,
            "Request decode failed: json: unknown field \"Bogus\"",
        ),
        (
            json!({"Name": "a", "Check": {"TTL": "zz"}}),
            400,
            "Request decode failed: time: invalid duration \"zz\"",
        ),
        (
            json!({"Name": "a", "Check": {"TTL": "1s", "Status": "odd"}}),
            400,
            super::super::input::BAD_STATUS,
        ),
        (
            json!({"Name": "a", "Check": {"Args": ["sh"], "Interval": "5s"}}),
            500,
            super::super::input::NO_SCRIPTS,
        ),
        (json!({"Name": "gateway"}), 403, "Permission denied"),
    ];
    refused(
        &c,
        &cases.map(|(body, status, text)| ("agent/service/register", body, status, text)),
    )
    .await;
    let cases = [
        (json!({"Address": "10.0.0.1"}), 500, "Must provide node"),
        (
            json!({"Node": "n"}),
            500,
            "Must provide address if SkipNodeUpdate is not set",
        ),
        (
            json!({"Node": "n", "Address": "10.0.0.1", "Datacenter": "dc2"}),
            500,
            "No path to datacenter",
        ),
    ];
    refused(
        &c,
        &cases.map(|(body, status, text)| ("catalog/register", body, status, text)),
    )
    .await;
    refused(
        &c,
        &[("catalog/deregister", json!({}), 500, "Must provide node")],
    )
    .await;
}

#[tokio::test]
async fn bad_checks_in_consuls_words() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let no_kind = "Invalid check: TTL must be > 0 for TTL checks";
    let orphan = json!({"Name": "c", "TTL": "1s", "ServiceID": "nope"});
    refused(
        &c,
        &[
            ("agent/check/register", json!({}), 400, "Missing check name"),
            ("agent/check/register", json!({"Name": "c"}), 400, no_kind),
            (
                "agent/check/register",
                orphan,
                500,
                "ServiceID \"nope\" does not exist",
            ),
            (
                "agent/check/pass/nope",
                json!(null),
                500,
                "CheckID \"nope\" does not have associated TTL",
            ),
            (
                "agent/check/update/nope",
                json!({"Status": "weird"}),
                400,
                "Invalid check status: 'weird'",
            ),
            (
                "agent/service/maintenance/nope?enable=true",
                json!(null),
                404,
                "No service registered with ID \"nope\"",
            ),
            (
                "agent/service/maintenance/nope",
                json!(null),
                400,
                "Missing value for enable",
            ),
            (
                "agent/maintenance",
                json!(null),
                400,
                "Missing value for enable",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn addresses_and_names_are_checked_as_everywhere() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.house.own.add("127.0.0.1:18500".parse().unwrap());
    for (address, port) in [
        ("169.254.169.254", 80),
        ("8.8.8.8", 80),
        ("127.0.0.1", 18_500),
    ] {
        let body = json!({"Name": "spy", "Address": address, "Port": port}).to_string();
        assert_eq!(
            c.put("/v1/agent/service/register", body).await.status,
            400,
            "{address}"
        );
    }
    // Names that the door cannot route are kept and visible.
    c.register(json!({"Name": "bad name!", "Port": -5})).await;
    let seen = c.get("/v1/catalog/service/bad%20name!").await.json();
    assert_eq!(seen[0]["ServicePort"], -5);
    assert!(
        c.house
            .directory()
            .services
            .keys()
            .all(|k| &*k.name != "bad name!")
    );
}

#[tokio::test]
async fn external_nodes_and_their_checks() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let put = async |body: Value| {
            let answer = c.put("/v1/catalog/register", body.to_string()).await;
            assert_eq!(answer.text, "true", "{body}");
        };
        put(json!({"Node": "n1", "Address": "10.1.10.11", "NodeMeta": {"rack": "r1"}, "Service": {"Service": "s1"}, "Check": {"Name": "c1"}})).await;
        put(json!({"Node": "n1", "Address": "10.1.10.11", "NodeMeta": {"rack": "r1"}, "Service": {"Service": "s2", "Port": 81}})).await;
        put(json!({"Node": "n2", "Address": "10.1.10.12", "Service": {"Service": "s1", "Tags": ["master"]}})).await;
        assert_eq!(
            ids(&c.get("/v1/catalog/nodes").await, &["Node"]),
            ["n1", "n2", "test-host"]
        );
        assert_eq!(
            ids(
                &c.get("/v1/catalog/nodes?node-meta=rack:r1").await,
                &["Node"]
            ),
            ["n1"]
        );
        assert_eq!(
            c.get("/v1/catalog/services").await.text,
            r#"{"consul":[],"s1":["master"],"s2":[]}"#
        );
        let n1 = c.get("/v1/catalog/node/n1").await.json();
        assert_eq!(
            (&n1["Node"]["ID"], &n1["Node"]["TaggedAddresses"]),
            (&json!(""), &json!(null))
        );
        assert_eq!(
            n1["Services"]
                .as_object()
                .unwrap()
                .keys()
                .collect::<Vec<_>>(),
            ["s1", "s2"]
        );
        assert_eq!(
            ids(&c.get("/v1/health/service/s1").await, &["Node", "Node"]),
            ["n1", "n2"]
        );
        assert_eq!(
            ids(
                &c.get("/v1/health/service/s1?passing").await,
                &["Node", "Node"]
            ),
            ["n2"],
            "the node's check is critical"
        );
        // The node stays as it is, its check passes.
        put(json!({"Node": "n1", "SkipNodeUpdate": true, "Check": {"Name": "c1", "Status": "passing"}})).await;
        assert_eq!(
            c.get("/v1/health/service/s1?passing")
                .await
                .json()
                .as_array()
                .unwrap()
                .len(),
            2
        );
        let out = async |body: Value| c.put("/v1/catalog/deregister", body.to_string()).await;
        assert_eq!(
            out(json!({"Node": "n2", "ServiceID": "s1"})).await.text,
            "true"
        );
        assert_eq!(
            out(json!({"Node": "n1", "CheckID": "c1"})).await.text,
            "true"
        );
        assert_eq!(out(json!({"Node": "nope"})).await.text, "true");
        assert_eq!(
            ids(&c.get("/v1/catalog/service/s1").await, &["Node"]),
            ["n1"]
        );
        out(json!({"Node": "n1"})).await;
        out(json!({"Node": "n2"})).await;
        assert_eq!(
            ids(&c.get("/v1/catalog/nodes").await, &["Node"]),
            ["test-host"]
        );
    }
}

#[tokio::test]
async fn maintenance_of_services_and_of_the_node() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.register(json!({"Name": "foo", "Port": 80})).await;
    c.put("/v1/agent/service/maintenance/foo?enable=true", "")
        .await;
    let check = &c.get("/v1/agent/checks").await.json()["_service_maintenance:foo"];
    assert_eq!(
        (&check["Status"], &check["Type"]),
        (&json!("critical"), &json!("maintenance"))
    );
    assert!(
        check["Notes"]
            .as_str()
            .unwrap()
            .starts_with("Maintenance mode is enabled for this service")
    );
    assert_eq!(
        c.get("/v1/agent/health/service/id/foo?format=text")
            .await
            .text,
        "maintenance"
    );
    assert_eq!(c.get("/v1/health/service/foo?passing").await.text, "[]");
    c.put("/v1/agent/service/maintenance/foo?enable=false", "")
        .await;
    assert_eq!(
        c.get("/v1/health/service/foo?passing")
            .await
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    c.put("/v1/agent/maintenance?enable=true&reason=disk", "")
        .await;
    assert_eq!(
        c.get("/v1/agent/checks").await.json()["_node_maintenance"]["Notes"],
        "disk"
    );
    let directory = c.house.directory();
    let service = directory.find(id::TENANT_DEFAULT, "foo").unwrap();
    assert_eq!(
        service.instances[0].state.as_str(),
        "maintenance",
        "the door knows it too"
    );
    c.put("/v1/agent/maintenance?enable=false", "").await;
    assert_eq!(c.get("/v1/agent/checks").await.text, "{}");
}

#[tokio::test]
async fn native_instances_are_listed_with_their_states() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let body = json!({"name": "hello", "port": 9000, "host": "127.0.0.1", "version": "1.2.3", "tenant": "default", "tags": ["a"], "metadata": {"team": "x"}});
    let (status, made) = c.house.register(&operator(), body).await;
    assert_eq!(status, 201, "{made}");
    let line = c.get("/v1/health/service/hello?passing").await.json();
    assert_eq!(
        (&line[0]["Service"]["ID"], &line[0]["Service"]["Port"]),
        (&made["id"], &json!(9000))
    );
    assert_eq!(
        line[0]["Service"]["Meta"],
        json!({"version": "1.2.3", "base_path": "/", "protocol": "http/1.1", "team": "x"})
    );
    c.house.tick().await;
    c.house.advance(61);
    c.house.tick().await;
    let late = c.get("/v1/health/service/hello").await.json();
    let statuses: Vec<&str> = late[0]["Checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["Status"].as_str().unwrap())
        .collect();
    assert!(statuses.contains(&"warning"), "late is a warning: {late}");
    assert_eq!(c.get("/v1/health/service/hello?passing").await.text, "[]");
}

#[tokio::test]
async fn critical_services_are_removed_after_their_time() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.register(
        json!({"Name": "dies", "Check": {"TTL": "1s", "DeregisterCriticalServiceAfter": "10s"}}),
    )
    .await;
    c.register(json!({"Name": "stays", "Check": {"TTL": "1s"}}))
        .await;
    let cx = c.house.core.own_context("test");
    let least = std::time::Duration::from_secs(60);
    c.house.advance(59);
    crate::life::reap(&c.house.core, &cx, least).await.unwrap();
    assert!(
        c.get("/v1/agent/services")
            .await
            .json()
            .get("dies")
            .is_some(),
        "ten seconds act as a minute"
    );
    c.house.advance(2);
    crate::life::reap(&c.house.core, &cx, least).await.unwrap();
    let left = c.get("/v1/agent/services").await.json();
    assert!(left.get("dies").is_none() && left.get("stays").is_some());
}

#[tokio::test]
async fn alias_checks_say_what_others_say() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let cx = c.house.core.own_context("test");
    c.register(json!({"Name": "db", "Check": {"TTL": "10s", "Status": "passing"}}))
        .await;
    c.register(json!({"Name": "app", "Check": {"AliasService": "db"}}))
        .await;
    c.register(json!({"Name": "lost", "Check": {"AliasService": "nope"}}))
        .await;
    for (verb, status) in [
        ("pass", "passing"),
        ("warn", "warning"),
        ("fail", "critical"),
        ("pass", "passing"),
    ] {
        c.put(&format!("/v1/agent/check/{verb}/service:db?note=n"), "")
            .await;
        super::super::alias::follow(&c.state, &cx).await.unwrap();
        let check = &c.get("/v1/health/checks/app").await.json()[0];
        assert_eq!(check["Status"], status, "{check}");
    }
    assert_eq!(
        super::super::alias::follow(&c.state, &cx).await.unwrap(),
        0,
        "nothing is left to do"
    );
    let lost = &c.get("/v1/health/checks/lost").await.json()[0];
    assert_eq!(
        (&lost["Status"], &lost["Output"]),
        (
            &json!("critical"),
            &json!("Service nope could not be found on node test-host")
        )
    );
}
