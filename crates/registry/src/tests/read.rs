//! Reading: lists, pages, the mission's shape, catalogue, Prometheus.

use std::collections::HashMap;

use portico_base::{Principal, id};
use portico_db::testing::each_backend;
use serde_json::json;

use super::{House, default_user, operator};
use crate::ops::builtin;

#[tokio::test]
async fn instances_have_the_missions_shape_and_come_in_pages() {
    each_backend(async |db| {
        let house = House::new(db).await;
        for port in 9001..9006 {
            house.enter("hello", port).await;
        }
        let body = json!({"name": "alpha", "display_name": "Alpha", "port": 9100, "host": "127.0.0.1", "version": "2",
            "tags": ["x"], "zone": "z1", "metadata": {"k": "v"}, "endpoints": [{"path": "/a", "required_roles": ["r"]}]});
        let (_, alpha) = house.register(&operator(), body).await;
        let (_, page) = house.get(&operator(), "/services?limit=4").await;
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 4);
        for field in ["id", "name", "display_name", "version", "host", "port", "base_path", "endpoints", "metadata", "tags", "is_active", "last_heartbeat"] {
            assert!(items[0].get(field).is_some(), "{field} is missing in {}", items[0]);
        }
        assert_eq!((items[0]["name"].as_str(), items[0]["id"].as_str()), (Some("alpha"), alpha["id"].as_str()));
        assert_eq!(items[0]["endpoints"][0]["required_roles"][0], "r");
        let cursor = page["next_cursor"].as_str().unwrap();
        let (_, rest) = house.get(&operator(), &format!("/services?limit=4&cursor={cursor}")).await;
        assert_eq!(rest["items"].as_array().unwrap().len(), 2);
        assert!(rest["next_cursor"].is_null());
        for (query, count) in [("tag=x", 1), ("zone=z1", 1), ("version=1.0.0", 5), ("name=hello&state=ready", 5), ("state=late", 0), ("name=%27%20OR%201=1--", 0)] {
            let (status, list) = house.get(&operator(), &format!("/services?{query}")).await;
            assert_eq!((status, list["items"].as_array().unwrap().len()), (200, count), "{query}");
        }
        for bad in ["state=odd", "limit=0", "cursor=%25", "bogus=1"] {
            assert_eq!(house.get(&operator(), &format!("/services?{bad}")).await.0, 400, "{bad}");
        }
        assert_eq!(house.get(&Principal::anonymous(), "/services").await.0, 401);
        let (status, service) = house.get(&default_user(), "/services/hello").await;
        assert_eq!((status, service["instances"].as_array().unwrap().len()), (200, 5));
        assert!(service.get("owner").is_none() && !service.to_string().contains("127.0.0.1"), "{service}");
        assert_eq!(house.get(&operator(), "/services/hello").await.1["owner"]["kind"], "operator");
        let path = format!("/services/{}", alpha["id"].as_str().unwrap());
        assert_eq!(house.get(&operator(), &path).await.1["port"], 9100);
        let (status, problem) = house.get(&operator(), "/services/nobody").await;
        assert_eq!((status, problem["code"].as_str()), (404, Some("registry.unknown_service")));
        assert_eq!(house.get(&default_user(), &format!("{path}/history")).await.0, 403);
    })
    .await;
}

#[tokio::test]
async fn built_in_services_are_in_the_directory_and_their_names_are_taken() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let cx = house.core.own_context("test");
        let names = ["registry", "storage2"];
        builtin::announce(
            &house.core,
            &cx,
            &names,
            &["registry"],
            "0.1.0",
            &HashMap::new(),
        );
        let directory = house.directory();
        let service = directory.find(id::TENANT_DEFAULT, "registry").unwrap();
        assert!(service.builtin && service.instances.len() == 1);
        let (status, problem) = house
            .register(
                &operator(),
                json!({"name": "storage2", "port": 9001, "host": "127.0.0.1"}),
            )
            .await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("registry.name_owned"))
        );
        let (_, catalog) = house.get(&default_user(), "/catalog").await;
        assert_eq!(catalog["items"][0]["name"], "registry");
        assert_eq!(catalog["items"][0]["health"], "up");
        // Known, but its role runs in no process (OP-1).
        let absent = &catalog["items"][1];
        assert_eq!(
            (&absent["name"], &absent["health"]),
            (&json!("storage2"), &json!("down"))
        );
        assert_eq!(absent["instances"], json!({}));
        assert_eq!(
            crate::follow::resync(&house.core).await.unwrap(),
            0,
            "they have no rows"
        );
    })
    .await;
}

#[tokio::test]
async fn prometheus_finds_targets() {
    each_backend(async |db| {
        let house = House::new(db).await;
        assert_eq!(house.get(&operator(), "/sd/prometheus").await, (200, json!([])));
        let body = json!({"name": "hello", "port": 9001, "host": "127.0.0.1", "version": "1.0.0", "zone": "z",
            "tags": ["a-b"], "metadata": {"team.x": "y"}});
        house.register(&operator(), body).await;
        house.enter("other", 9002).await;
        let (_, targets) = house.get(&operator(), "/sd/prometheus?service=hello").await;
        assert_eq!(targets[0]["targets"], json!(["127.0.0.1:9001"]));
        let labels = &targets[0]["labels"];
        assert_eq!(labels["__meta_portico_service"], "hello");
        assert_eq!(labels["__meta_portico_tag_a_b"], "true");
        assert_eq!(labels["__meta_portico_meta_team_x"], "y");
        assert_eq!(targets.as_array().unwrap().len(), 1);
        assert_eq!(house.get(&default_user(), "/sd/prometheus").await.0, 403);
    })
    .await;
}
