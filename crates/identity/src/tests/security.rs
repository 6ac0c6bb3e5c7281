//! Address rules: trial runs, no lock-out of oneself, every replica, and what is swept.

use std::net::IpAddr;

use portico_base::{Principal, id};
use portico_contract::address_rules::AddressRules as _;
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::rig::{Rig, faults};
use crate::{ops, store};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn open(rig: &Rig, text: &str) -> bool {
    let now_s = rig.core.clock.now().timestamp();
    rig.core.address_rules.check(ip(text), now_s).is_ok()
}

async fn make(rig: &Rig, who: &Principal, body: Value) -> (u16, Value) {
    rig.post(who, "/ip-rules", body).await
}

#[tokio::test]
async fn a_denied_network_is_refused_until_its_end() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let chief = rig.super_admin().await;
        let wish =
            json!({"cidr": "198.51.100.9/24", "kind": "deny", "note": "scanners", "ttl_s": 60});
        let (status, made) = make(&rig, &chief, wish.clone()).await;
        assert_eq!(
            (status, made["cidr"].as_str()),
            (201, Some("198.51.100.0/24")),
            "{made}"
        );
        assert!(!open(&rig, "198.51.100.77") && open(&rig, "198.51.101.1"));
        assert_eq!(
            make(&rig, &chief, wish).await.1["code"],
            "identity.rule_exists"
        );
        let (_, list) = rig.get(&chief, "/ip-rules").await;
        assert_eq!(list["items"][0]["note"], "scanners");
        assert_eq!(rig.get(&chief, "/blocks").await.1["items"], json!([]));
        rig.advance(60);
        assert!(open(&rig, "198.51.100.77"));
        ops::security::sweep(&rig.core).await.unwrap();
        let left = store::ip_rules::live(rig.core.db.reader(), id_zero())
            .await
            .unwrap();
        assert!(left.is_empty(), "{left:?}");
    })
    .await;
}

#[tokio::test]
async fn a_trial_run_changes_nothing_and_nobody_locks_themselves_out() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let chief = rig.super_admin().await;
        let own = json!({"cidr": "203.0.113.0/24", "kind": "deny"});
        let mut trial = own.clone();
        trial["dry_run"] = json!(true);
        let (status, effect) = make(&rig, &chief, trial).await;
        assert_eq!((status, &effect["locks_out_caller"]), (200, &json!(true)));
        assert_eq!(
            make(&rig, &chief, own).await.1["code"],
            "identity.locks_out_caller"
        );
        let others = json!({"cidr": "10.0.0.0/8", "kind": "allow"});
        assert_eq!(
            make(&rig, &chief, others.clone()).await.0,
            409,
            "only others could administer"
        );
        let mine = make(
            &rig,
            &chief,
            json!({"cidr": "203.0.113.7", "kind": "allow"}),
        )
        .await;
        assert_eq!(mine.0, 201);
        assert_eq!(make(&rig, &chief, others).await.0, 201);
        let now_s = rig.core.clock.now().timestamp();
        let admin = |text: &str| rig.core.address_rules.check_admin(ip(text), now_s).is_ok();
        assert!(admin("203.0.113.7") && admin("10.1.1.1") && !admin("203.0.113.8"));
        assert!(open(&rig, "203.0.113.8"), "users come in from everywhere");
        let path = format!("/ip-rules/{}", mine.1["id"].as_str().unwrap());
        let (status, problem) = rig.call(&chief, "DELETE", &path, Value::Null).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("identity.locks_out_caller"))
        );
        let audit = rig.audit.actions();
        assert_eq!(
            audit
                .iter()
                .filter(|a| **a == "identity.ip_rule.created")
                .count(),
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_trial_run_counts_the_sessions_that_it_would_refuse() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        rig.set("identity.password.argon2", json!({"m_kib": 7168, "t": 1, "p": 1}));
        let chief = rig.super_admin().await;
        let body = json!({"method": "username", "identifier": "anna", "password": "quiet-otter-91-lamp",
            "device": {"platform": "web"}});
        assert_eq!(rig.post(&Principal::anonymous(), "/register", body).await.0, 201);
        let trial = json!({"cidr": "203.0.113.0/24", "kind": "deny", "dry_run": true});
        let (_, effect) = make(&rig, &chief, trial).await;
        assert_eq!(effect["refused_sessions"], 1);
    })
    .await;
}

#[tokio::test]
async fn only_who_administers_the_installation_makes_rules() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let wish = json!({"cidr": "198.51.100.0/24", "kind": "deny"});
        let tenant = rig.tenant_admin(id::TENANT_DEFAULT).await;
        assert_eq!(make(&rig, &tenant, wish.clone()).await.0, 403);
        assert_eq!(
            make(&rig, &Principal::anonymous(), wish.clone()).await.0,
            401
        );
        let mut weak = rig.super_admin().await;
        weak.aal = 1;
        let (status, problem) = make(&rig, &weak, wish).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (401, Some("identity.step_up_required"))
        );
        let chief = rig.super_admin().await;
        for (cidr, field) in [
            ("nonsense", "cidr"),
            ("203.0.113.0/33", "cidr"),
            ("127.0.0.0/8", "cidr"),
        ] {
            let (status, problem) = make(&rig, &chief, json!({"cidr": cidr, "kind": "deny"})).await;
            assert_eq!(
                (status, faults(&problem)[0].0.as_str()),
                (400, field),
                "{cidr}"
            );
        }
        let gone = format!("/ip-rules/{}", uuid::Uuid::nil());
        assert_eq!(rig.call(&chief, "DELETE", &gone, Value::Null).await.0, 404);
        assert_eq!(
            rig.call(&chief, "DELETE", "/blocks/x", Value::Null).await.0,
            404
        );
    })
    .await;
}

#[tokio::test]
async fn another_replica_hears_of_a_rule() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let other = rig.another(db).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let follower = tokio::spawn({
            let (rules, stop) = (other.core.address_rules.clone(), stop.clone());
            async move { rules.follow(stop).await }
        });
        let chief = rig.super_admin().await;
        let (status, _) = make(
            &rig,
            &chief,
            json!({"cidr": "198.51.100.0/24", "kind": "deny"}),
        )
        .await;
        assert_eq!(status, 201);
        // Woken, or by its poll: it may take a moment, and never waits for ever.
        let heard = async {
            while open(&other, "198.51.100.1") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), heard)
            .await
            .expect("the other replica hears of it");
        stop.cancel();
        follower.await.unwrap();
    })
    .await;
}

fn id_zero() -> portico_base::Timestamp {
    portico_base::Timestamp::default()
}
