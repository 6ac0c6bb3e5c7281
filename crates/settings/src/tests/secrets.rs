//! Secrets are written and never read; master keys are changed while everything runs (CT-9, CT-21).

use portico_base::envelope::MasterKeys;
use portico_base::{Permission, Principal, PrincipalKind};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::Query;
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};

use super::rig::{DEFAULT, Rig, SYSTEM, With};

const VALUE: &str = "hunter2-of-the-mail-server";

/// Everything that our tables hold, as text.
async fn dump(rig: &Rig) -> String {
    let mut out = String::new();
    for (table, columns) in [
        ("settings", vec!["value", "sealed", "updated_by"]),
        ("setting_history", vec!["value", "sealed", "comment"]),
        ("outbox", vec!["payload"]),
    ] {
        let mut select = Query::select();
        select.columns(columns.clone()).from(table);
        for row in rig.core.db.reader().query_all(&select).await.unwrap() {
            for column in &columns {
                let json: Option<Value> = row.try_get("", column).unwrap_or_default();
                let text: Option<String> = row.try_get("", column).unwrap_or_default();
                out.push_str(&format!("{json:?} {text:?}\n"));
            }
        }
    }
    out
}

#[tokio::test]
async fn a_secret_shows_nothing_but_its_fingerprint() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (_, unset) = rig.ask("GET", "/demo.secret", None).await;
        assert_eq!(unset["secret"], json!({ "set": false }));
        let done = rig.set(SYSTEM, &[("demo.secret", json!(VALUE))]).await;
        let told = format!("{done:?}");
        assert!(!told.contains(VALUE));
        rig.set(SYSTEM, &[("demo.secret", json!("another"))]).await;
        let (_, shown) = rig.ask("GET", "/demo.secret", None).await;
        assert_eq!(
            (&shown["secret"]["set"], &shown["value"]),
            (&json!(true), &Value::Null)
        );
        let fingerprint = shown["secret"]["fingerprint"].as_str().unwrap().to_owned();
        assert_eq!(fingerprint.len(), 8);
        assert_eq!(shown["secret"]["changed_by"]["kind"], "operator");
        for path in [
            "/demo.secret/history",
            "/diff?key=demo.secret&from=1&to=2",
            "/?prefix=demo",
            "/watch?after=0&wait=0s",
            "/changes",
        ] {
            let (status, body) = rig.ask("GET", path, None).await;
            assert_eq!(status, 200);
            assert!(
                !body.to_string().contains(VALUE) && !body.to_string().contains("another"),
                "{path}"
            );
        }
        let (_, export) = rig.ask("POST", "/export", Some(json!({}))).await;
        assert_eq!(
            (&export["settings"], &export["secrets"]),
            (&json!({}), &json!(["demo.secret"]))
        );
        let body = json!({ "changes": [{ "key": "demo.secret", "value": VALUE, "version": 1 }] });
        let (status, conflict) = rig.ask("POST", "/changes", Some(body)).await;
        assert_eq!(status, 409);
        assert!(
            !conflict.to_string().contains(VALUE) && conflict.to_string().contains(&fingerprint)
        );
        let records = format!("{:?}", rig.audit.records.lock());
        assert!(!records.contains(VALUE) && records.contains(&fingerprint));
        assert!(!dump(&rig).await.contains(VALUE));
        // A rollback brings back what nobody saw.
        let (status, _) = rig
            .ask(
                "POST",
                "/demo.secret/rollback",
                Some(json!({ "version": 1 })),
            )
            .await;
        assert_eq!(status, 200);
        assert_eq!(
            *rig.core.live.state().own(SYSTEM, "demo.secret").unwrap(),
            json!(VALUE)
        );
    })
    .await;
}

#[tokio::test]
async fn two_installations_can_be_compared_by_fingerprints() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.set(SYSTEM, &[("demo.secret", json!(VALUE))]).await;
        rig.set(DEFAULT, &[("demo.secret", json!(VALUE))]).await;
        let path = format!("/demo.secret?scope={DEFAULT}");
        let (_, system) = rig.ask("GET", "/demo.secret", None).await;
        let (_, tenant) = rig.ask("GET", &path, None).await;
        assert_eq!(
            system["secret"]["fingerprint"],
            tenant["secret"]["fingerprint"]
        );
        assert_eq!(
            system["secret"]["fingerprint"],
            crate::domain::secret::fingerprint(&json!(VALUE))
        );
    })
    .await;
}

#[tokio::test]
async fn master_keys_change_while_everything_runs_and_a_broken_off_rotation_goes_on() {
    each_backend(async |db: &TestDb| {
        let old = Rig::new(db).await;
        for i in 0..7 {
            old.set(SYSTEM, &[("demo.secret", json!(format!("{VALUE} {i}")))])
                .await;
            old.set(DEFAULT, &[("demo.secret", json!(format!("tenant {i}")))])
                .await;
        }
        let both = || MasterKeys::new("mk2", [8; 32]).with_previous("mk1", [7; 32]);
        let new = Rig::another(
            db,
            With {
                keys: both(),
                ..With::default()
            },
        )
        .await;
        let (_, status) = new.ask("GET", "/secrets", None).await;
        assert_eq!(
            (&status["current"], &status["totals"]),
            (&json!("mk2"), &json!({ "mk1": 16 }))
        );

        // The first run ends after three rows, as if the process had been killed.
        let values = new.core.sealed.all();
        let step = values[1].reseal(None, 3).await.unwrap();
        assert_eq!((step.done, step.broken), (3, 0));
        assert!(step.next.is_some());
        new.set(SYSTEM, &[("demo.secret", json!("new"))]).await;
        let (_, progress) = new.ask("POST", "/secrets/rotate", Some(json!({}))).await;
        assert_eq!(
            (&progress["left"], &progress["broken"]),
            (&json!(0), &json!(0)),
            "{progress}"
        );
        assert_eq!(progress["next"], Value::Null);
        let (_, status) = new.ask("GET", "/secrets", None).await;
        assert_eq!(status["totals"], json!({ "mk2": 17 }));

        // The old key can go: everything opens without it.
        let only = Rig::another(
            db,
            With {
                keys: MasterKeys::new("mk2", [8; 32]),
                ..With::default()
            },
        )
        .await;
        assert_eq!(
            *only.core.live.state().own(SYSTEM, "demo.secret").unwrap(),
            json!("new")
        );
        let (status, _) = only
            .ask(
                "POST",
                "/demo.secret/rollback",
                Some(json!({ "version": 3 })),
            )
            .await;
        assert_eq!(status, 200);
        assert_eq!(
            *only.core.live.state().own(SYSTEM, "demo.secret").unwrap(),
            json!(format!("{VALUE} 2"))
        );
    })
    .await;
}

#[tokio::test]
async fn whoever_lacks_the_master_key_says_so_and_breaks_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.set(SYSTEM, &[("demo.secret", json!(VALUE))]).await;
        // Whoever lacks the key keeps what was before, and says why.
        let without = Rig::another(
            db,
            With {
                keys: MasterKeys::new("mk9", [9; 32]),
                replica: "two",
                ..With::default()
            },
        )
        .await;
        let (_, shown) = without.ask("GET", "/demo.secret", None).await;
        assert!(
            shown["refused"].as_str().unwrap().contains("master keys"),
            "{shown}"
        );
        let (_, progress) = without
            .ask("POST", "/secrets/rotate", Some(json!({})))
            .await;
        assert_eq!(
            (&progress["done"], &progress["left"]),
            (&json!(0), &json!(2)),
            "{progress}"
        );
        assert_eq!(progress["broken"], 2);
    })
    .await;
}

#[tokio::test]
async fn a_program_writes_secrets_with_its_permission() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let key = |permissions: &[&'static str]| Principal {
            permissions: permissions.iter().map(|p| Permission::new(p)).collect(),
            ..Principal::new(PrincipalKind::ApiKey, "key", DEFAULT)
        };
        let body = json!({ "changes": [{ "key": "demo.secret", "value": "x", "version": 0 }] });
        let may = key(&["settings:value:write", "settings:secret:write"]);
        assert_eq!(
            rig.call(&may, "POST", "/changes", Some(body.clone()))
                .await
                .0,
            200
        );
        let may_not = key(&["settings:value:write"]);
        assert_eq!(
            rig.call(&may_not, "POST", "/changes", Some(body)).await.0,
            403
        );
        assert_eq!(rig.call(&may, "GET", "/secrets", None).await.0, 403);
    })
    .await;
}
