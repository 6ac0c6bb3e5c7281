//! Settings as keys of the Consul-compatible view (CT-14).

use portico_base::Principal;
use portico_contract::settings_tree::{SettingsTree as _, TreeError};
use portico_db::testing::{TestDb, each_backend};
use serde_json::json;

use super::rig::{OTHER, Rig, SYSTEM, person, tenant_admin};
use crate::tree::Tree;

#[tokio::test]
async fn leaves_are_read_and_written_with_their_positions() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let tree = Tree(rig.core.clone());
        let cx = rig.operator();
        let one = |key: &str| tree.look(&cx, key, true).unwrap().leaves.pop();
        let low = one("demo/low").unwrap();
        assert_eq!((&*low.value, low.modified), (&b"1"[..], 0));
        assert!(
            tree.write(&cx, "demo/low", Some(b"5"), Some(0))
                .await
                .unwrap()
        );
        let low = one("demo/low").unwrap();
        assert_eq!((&*low.value, low.created, low.modified), (&b"5"[..], 1, 1));
        assert!(
            !tree
                .write(&cx, "demo/low", Some(b"6"), Some(0))
                .await
                .unwrap(),
            "somebody was there before"
        );
        assert!(
            tree.write(&cx, "demo/low", Some(b"6"), Some(1))
                .await
                .unwrap()
        );
        assert!(tree.write(&cx, "demo/low", Some(b"7"), None).await.unwrap());
        assert!(tree.write(&cx, "demo/low", None, None).await.unwrap());
        assert_eq!(one("demo/low").unwrap().modified, 0, "reset");
        assert_eq!(
            tree.look(&cx, "demo/low", true).unwrap().changed,
            4,
            "which whoever waits hears of"
        );
        let (_, history) = rig.ask("GET", "/demo.low/history", None).await;
        assert_eq!(
            history["items"][0]["comment"],
            "through the Consul-compatible API"
        );
        assert_eq!(rig.audit.records.lock().len(), 4);

        tree.write(&cx, "demo/secret", Some(b"\"s\""), None)
            .await
            .unwrap();
        let secret = one("demo/secret").unwrap();
        assert!(secret.secret && secret.value.is_empty());
        assert_eq!(tree.look(&cx, "demo/", false).unwrap().leaves.len(), 10);
        assert!(tree.look(&cx, "demo.low", true).unwrap().leaves.is_empty());
        for (key, value, why) in [
            ("demo/low", "x", "JSON"),
            ("demo/low", "5000", "1000"),
            ("demo/nothing", "1", "no such"),
            ("demo.low", "1", "no such"),
        ] {
            let error = tree
                .write(&cx, key, Some(value.as_bytes()), None)
                .await
                .unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_scope_is_that_of_the_tenant_and_the_permission_is_asked_for() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let tree = Tree(rig.core.clone());
        let admin = rig.cx(tenant_admin(OTHER));
        assert!(
            tree.write(&admin, "demo/low", Some(b"3"), None)
                .await
                .unwrap()
        );
        assert_eq!(
            (
                rig.number(OTHER, "demo.low"),
                rig.number(SYSTEM, "demo.low")
            ),
            (3, 1)
        );
        let seen = tree.look(&admin, "demo/", false).unwrap();
        assert!(!seen.leaves.iter().any(|leaf| leaf.key == "demo/wait_s"));
        let nobody = rig.cx(Principal::anonymous_local());
        assert!(matches!(
            tree.look(&nobody, "demo/low", true),
            Err(TreeError::Denied)
        ));
        assert!(matches!(
            tree.write(&nobody, "demo/low", Some(b"4"), Some(77)).await,
            Err(TreeError::Denied)
        ));
        let weak = rig.cx(person(
            SYSTEM,
            &["settings:value:read", "settings:value:write"],
            1,
        ));
        assert!(matches!(
            tree.write(&weak, "demo/grave", Some(b"4"), None).await,
            Err(TreeError::Invalid(_))
        ));
        assert!(
            tree.write(&weak, "demo/wait_s", Some(b"4"), None)
                .await
                .unwrap()
        );
        let (_, shown) = rig.ask("GET", "/demo.wait_s", None).await;
        assert_eq!(shown["value"], json!(4));
    })
    .await;
}
