//! A record is there with its change or not at all, holds no secret, and is bounded.

use std::sync::Arc;

use portico_base::{Principal, id};
use portico_contract::audit::{AuditSink as _, Record};
use portico_db::testing::each_backend;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{House, admin};
use crate::ops::write::Sink;

#[tokio::test]
async fn a_record_goes_with_its_change_and_is_told_to_the_chain() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let cx = house.cx(admin());
        let record = || Record::done("identity.user.disabled", "user", "u", id::TENANT_DEFAULT);
        // Between the record and the commit something fails: neither is there.
        let tx = house.core.db.begin().await.unwrap();
        let sink = Sink(Arc::clone(&house.core));
        sink.record(&tx, &cx, record()).await.unwrap();
        tx.rollback().await.unwrap();
        let all = house.get(&Principal::operator(), "/records").await;
        assert_eq!(all["items"], json!([]));
        house
            .record(&cx, record().change("status", None, Some("x".into())))
            .await;
        let all = house.get(&Principal::operator(), "/records").await;
        let one = &all["items"][0];
        assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(one["action"], "identity.user.disabled");
        assert_eq!(
            one["actor"],
            json!({ "kind": "user", "id": cx.principal().subject })
        );
        assert_eq!(one["ip"], "203.0.113.7");
        assert_eq!(one["user_agent"], "Mozilla/5.0");
        assert_eq!(one["outcome"], "success");
        assert_eq!(
            one["changes"][0],
            json!({ "path": "status", "before": null, "after": "x" })
        );
        assert_eq!(one["seq"], Value::Null, "not sealed yet");
        house.seal().await;
        let url = format!("/records/{}", one["id"].as_str().unwrap());
        let shown = house.get(&Principal::operator(), &url).await;
        assert_eq!(shown["seq"], 1);
        let public: Value = serde_json::from_str(shown["public"].as_str().unwrap()).unwrap();
        assert_eq!(public["actor"]["aal"], 2);
        assert_eq!(public["actor"]["sid"], "s-1");
        assert_eq!(public["private_hash"], shown["private_hash"]);
        let (status, _) = house
            .call(&super::other_admin(), "GET", &url, Value::Null)
            .await;
        assert_eq!(status, 404, "another tenant's record is not there");
    })
    .await;
}

#[tokio::test]
async fn secrets_are_fingerprints_and_contacts_are_masked_wherever_they_stand() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let record = Record::done("settings.value.changed", "setting", "x", id::TENANT_DEFAULT)
            .change("identity.sms.aliyun.access_key_secret", Some("old-secret-1".into()), Some("new-secret-2".into()))
            .change("doc", None, Some(json!({ "upstream": { "authorization": "Bearer abc.def" }, "owner": "ada@example.com" })))
            .change("phone", Some("+8613812345678".into()), Some("+8613900000000".into()));
        house.record(&house.cx(admin()), record).await;
        let all = house.get(&Principal::operator(), "/records").await.to_string();
        for secret in ["old-secret-1", "new-secret-2", "abc.def", "ada@example.com"] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
        assert!(all.contains("a***@example.com") && all.contains("fingerprint"));
        assert!(all.contains("+8613900000000"), "the change itself is shown");
        let rows = crate::store::records::waiting(house.core.db.reader(), 10).await.unwrap();
        assert_eq!(rows.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_too_long_is_cut_and_its_hash_is_kept() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let mut record = Record::done(
            "t.thing.changed",
            "thing",
            "x".repeat(5_000),
            id::TENANT_DEFAULT,
        );
        record.reason = Some("é".repeat(10_000));
        record = record.change("big", None, Some("y".repeat(200_000).into()));
        for n in 0..3_000 {
            record = record.change(
                &format!("path{n}"),
                Some("before".into()),
                Some("after".into()),
            );
        }
        let batch = Uuid::from_u128(77);
        record.batch_id = Some(batch);
        house.record(&house.cx(admin()), record).await;
        let all = house.get(&Principal::operator(), "/records").await;
        let one = &all["items"][0];
        assert_eq!(one["truncated"], true);
        assert_eq!(one["batch_id"], batch.to_string());
        let changes = one["changes"].as_array().unwrap();
        assert!(
            changes.len() > 100 && changes.len() < 3_000,
            "{}",
            changes.len()
        );
        assert_eq!(changes[1]["after"], "«cut»", "the one that is too long");
        assert_eq!(
            changes[2]["after"], "after",
            "does not drive the others out"
        );
        assert!(
            one.to_string().len() <= 64 * 1024 + 8 * 1024,
            "{}",
            one.to_string().len()
        );
        house.seal().await;
        let report = house.verify().await;
        assert!(report.ok, "{report:?}");
        let rows = crate::store::chain::rows(house.core.db.reader(), 1, 1, 1)
            .await
            .unwrap();
        let crate::domain::chain::Found::Record(stored) = &rows[0].record else {
            panic!("{rows:?}")
        };
        let size = stored.public.len() + stored.private.as_ref().map_or(0, String::len);
        assert!(size <= 64 * 1024, "{size}");
        assert!(
            stored
                .private
                .as_ref()
                .unwrap()
                .contains("\"changes_hash\":\"")
        );
    })
    .await;
}
