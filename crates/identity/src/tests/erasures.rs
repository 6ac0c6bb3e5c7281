//! The end of an account: deletion, restoring, erasure part by part (ID-151…153).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use portico_base::{Principal, id};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};
use uuid::Uuid;

use super::logins::{check, log_in, tokens};
use super::personal::{Music, anna, fresh_admin, put, queue, work};
use super::rig::{OTHER, Rig};
use crate::domain::user::{User, UserStatus};
use crate::error::reason;
use crate::ops::erasure;
use crate::store;

#[tokio::test]
async fn a_deleted_account_is_out_at_once_and_comes_back_by_a_login() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = anna(&rig).await;
        let who = rig.principal(&user).await;
        let held = User {
            legal_hold: true,
            ..user.clone()
        };
        put(&rig, &held).await;
        let (status, problem) = rig.post(&who, "/me/delete", json!({})).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("identity.legal_hold"))
        );
        put(&rig, &user).await;
        let stale = Principal {
            fresh_until_s: 0,
            ..who.clone()
        };
        assert_eq!(rig.post(&stale, "/me/delete", json!({})).await.0, 401);

        let access = tokens(&rig, &user, json!({"platform": "web"}))
            .await
            .access_token;
        assert_eq!(check(&rig, &access), Ok(()));
        rig.audit.take();
        let (status, told) = rig.post(&who, "/me/delete", json!({})).await;
        assert_eq!(status, 202, "{told}");
        let at = rig.core.clock.now() + chrono::Duration::days(14);
        assert_eq!(told["delete_at"], json!(at));
        assert_eq!(rig.audit.take(), ["identity.user.deletion_scheduled"]);
        assert!(check(&rig, &access).is_err(), "out at once");
        let live = store::sessions::live(rig.core.db.reader(), user.id)
            .await
            .unwrap();
        assert_eq!(live.len(), 0);

        // Thirteen days later nothing has happened, and a login keeps the account.
        rig.advance(13 * 86_400);
        erasure::start_due(&rig.core).await.unwrap();
        let now = rig.get_user(user.tenant, user.id).await;
        tokens(&rig, &now, json!({"platform": "web"})).await;
        let kept = rig.get_user(user.tenant, user.id).await;
        assert_eq!((kept.delete_at, kept.status), (None, UserStatus::Active));
        rig.advance(2 * 86_400);
        erasure::start_due(&rig.core).await.unwrap();
        assert_eq!(
            rig.get_user(user.tenant, user.id).await.status,
            UserStatus::Active
        );

        // Without a login it is erased, unless somebody holds it.
        let who = rig.principal(&kept).await;
        assert_eq!(rig.post(&who, "/me/delete", json!({})).await.0, 202);
        let gone = rig.get_user(user.tenant, user.id).await;
        put(
            &rig,
            &User {
                legal_hold: true,
                ..gone.clone()
            },
        )
        .await;
        rig.advance(14 * 86_400);
        let refused = log_in(&rig, &gone, json!({"platform": "web"}))
            .await
            .unwrap_err();
        assert!(refused.is(reason::ACCOUNT_DISABLED), "{refused:?}");
        erasure::start_due(&rig.core).await.unwrap();
        assert_eq!(
            rig.get_user(user.tenant, user.id).await.status,
            UserStatus::Active
        );
        put(&rig, &gone).await;
        erasure::start_due(&rig.core).await.unwrap();
        work(&rig).await;
        let erased = rig.get_user(user.tenant, user.id).await;
        assert_eq!((erased.status, &erased.email), (UserStatus::Deleted, &None));
        assert_eq!(rig.audit.count("identity.user.erased"), 1);
    })
    .await;
}

#[tokio::test]
async fn deletion_asks_for_every_factor_and_for_another_administrator() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = anna(&rig).await;
        let now = rig.core.clock.now();
        let tx = rig.core.db.begin().await.unwrap();
        store::factors::begin(&tx, user.id, "sealed").await.unwrap();
        store::factors::confirm(&tx, user.id, now).await.unwrap();
        tx.commit().await.unwrap();
        let strong = rig.principal(&user).await;
        let weak = Principal {
            aal: 1,
            ..strong.clone()
        };
        let (status, problem) = rig.post(&weak, "/me/delete", json!({})).await;
        assert_eq!(
            (status, &problem["code"]),
            (401, &json!("identity.step_up_required"))
        );
        assert_eq!(rig.post(&strong, "/me/delete", json!({})).await.0, 202);

        // Of two super administrators only one can go, also while the other waits to be erased.
        let (first, second) = (rig.super_admin().await, rig.super_admin().await);
        assert_eq!(rig.post(&first, "/me/delete", json!({})).await.0, 202);
        let (status, problem) = rig.post(&second, "/me/delete", json!({})).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("identity.last_admin"))
        );
        let path = format!("/users/{}/erase", first.id.unwrap());
        let wish = json!({"reason": "left"});
        assert_eq!(rig.post(&second, &path, wish).await.0, 202);
        // Without days of grace it begins at once.
        rig.set("identity.erasure.grace_days", json!(0));
        let bob = rig.user("bob").await;
        let who = rig.principal(&bob).await;
        assert_eq!(rig.post(&who, "/me/delete", json!({})).await.0, 202);
        assert_eq!(
            rig.get_user(bob.tenant, bob.id).await.status,
            UserStatus::Deleted
        );
    })
    .await;
}

async fn count(rig: &Rig, table: &'static str, owner: &'static str, user: Uuid) -> usize {
    let mut select = Query::select();
    select
        .expr(Expr::val(1))
        .from(table)
        .and_where(Expr::col(owner).eq(user));
    rig.core.db.reader().query_all(&select).await.unwrap().len()
}

/// Service, state and tries of each part of a report.
fn states(report: &Value) -> Vec<(String, String, u64)> {
    let parts = report["parts"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    parts
        .map(|p| {
            (
                text(&p["service"]),
                text(&p["state"]),
                p["tries"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn wanted(of: [(&str, u64); 3]) -> Vec<(String, String, u64)> {
    ["identity", "music", "video"]
        .iter()
        .zip(of)
        .map(|(service, (state, tries))| ((*service).to_owned(), state.to_owned(), tries))
        .collect()
}

async fn only_a_tombstone_is_left(rig: &Rig, user: &User, namesake: &User) {
    // A tombstone is left, and the names are free; the namesake elsewhere is not touched.
    let tomb = rig.get_user(user.tenant, user.id).await;
    assert_eq!(
        (tomb.status, tomb.username, tomb.email, tomb.phone),
        (UserStatus::Deleted, None, None, None)
    );
    assert_eq!((tomb.display_name.as_str(), tomb.last_login_ip), ("", None));
    for (table, owner) in [
        ("sessions", "user_id"),
        ("devices", "user_id"),
        ("login_events", "user_id"),
        ("user_secrets", "user_id"),
        ("user_roles", "user_id"),
        ("api_keys", "owner_user_id"),
        ("personal_exports", "user_id"),
    ] {
        assert_eq!(count(rig, table, owner, user.id).await, 0, "{table}");
    }
    assert_eq!(
        rig.core.objects.list(None, None, 10).await.unwrap().items,
        []
    );
    assert_eq!(
        rig.get_user(OTHER, namesake.id).await.username.as_deref(),
        Some("anna")
    );
    rig.user("anna").await;
}

#[tokio::test]
async fn an_erasure_reports_by_service_until_all_are_done() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let music = Arc::new(Music::named("music"));
        let video = Arc::new(Music::named("video"));
        rig.core.personal.add(music.clone());
        rig.core.personal.add(video.clone());
        let user = anna(&rig).await;
        let namesake = rig.add_user(OTHER, "anna", &["user"]).await;
        let who = rig.principal(&user).await;
        assert_eq!(rig.post(&who, "/me/export", json!({})).await.0, 202);
        work(&rig).await;
        music.fails.store(2, Relaxed);
        let admin = fresh_admin(&rig, id::TENANT_DEFAULT).await;
        let foreign = rig.tenant_admin(OTHER).await;
        let (erase, report) = (
            format!("/users/{}/erase", user.id),
            format!("/users/{}/erasure", user.id),
        );
        let wish = json!({"reason": "asked by letter"});
        assert_eq!(rig.post(&foreign, &erase, wish.clone()).await.0, 404);
        assert_eq!(rig.get(&admin, &report).await.0, 404, "not begun");
        put(
            &rig,
            &User {
                legal_hold: true,
                ..user.clone()
            },
        )
        .await;
        let (status, problem) = rig.post(&admin, &erase, wish.clone()).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("identity.legal_hold"))
        );
        put(&rig, &user).await;

        let (status, begun) = rig.post(&admin, &erase, wish.clone()).await;
        assert_eq!((status, &begun["cause"]), (202, &json!("admin")), "{begun}");
        assert_eq!(states(&begun), wanted([("waiting", 0); 3]));
        work(&rig).await;
        let (_, after) = rig.get(&admin, &report).await;
        assert_eq!(
            states(&after),
            wanted([("done", 1), ("failed", 1), ("done", 1)])
        );
        assert!(
            after["parts"][1]["last_error"]
                .as_str()
                .unwrap()
                .contains("record shop")
        );
        assert_eq!(after["finished_at"], Value::Null);
        assert_eq!(rig.get(&foreign, &report).await.0, 404);

        // Asked for again it is the same erasure.
        let (status, _) = rig.post(&admin, &erase, wish).await;
        assert_eq!(status, 202);
        for _ in 0..3 {
            rig.advance(3_600);
            work(&rig).await;
        }
        let (_, done) = rig.get(&admin, &report).await;
        assert_eq!(
            states(&done),
            wanted([("done", 1), ("done", 3), ("done", 1)])
        );
        assert!(done["finished_at"].is_string());
        assert_eq!(
            (music.erased.load(Relaxed), video.erased.load(Relaxed)),
            (1, 1)
        );
        assert_eq!(rig.audit.count("identity.user.erased"), 1);
        let events = rig.events().await;
        assert_eq!(
            events
                .iter()
                .filter(|e| e.topic == "identity.user.erased")
                .count(),
            1
        );

        only_a_tombstone_is_left(&rig, &user, &namesake).await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_dies_between_two_parts_loses_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let music = Arc::new(Music {
            hangs: AtomicUsize::new(1),
            ..Music::named("music")
        });
        let video = Arc::new(Music::named("video"));
        rig.core.personal.add(music.clone());
        rig.core.personal.add(video.clone());
        let user = anna(&rig).await;
        let admin = fresh_admin(&rig, id::TENANT_DEFAULT).await;
        let path = format!("/users/{}", user.id);
        rig.post(&admin, &format!("{path}/erase"), json!({"reason": "left"}))
            .await;
        // The process ends while the music service is at it.
        let dying = queue(&rig);
        let working = tokio::spawn(async move { dying.work_off().await });
        loop {
            let (_, report) = rig.get(&admin, &format!("{path}/erasure")).await;
            if report["parts"][0]["state"] == "done" && music.hangs.load(Relaxed) == 0 {
                break;
            }
            assert!(!working.is_finished(), "it hangs");
            tokio::task::yield_now().await;
        }
        working.abort();
        assert!(working.await.unwrap_err().is_cancelled());
        portico_jobs::end_all_job_leases(&rig.core.db)
            .await
            .unwrap();
        rig.advance(3_600);
        work(&rig).await;
        let (_, done) = rig.get(&admin, &format!("{path}/erasure")).await;
        assert!(done["finished_at"].is_string(), "{done}");
        assert_eq!(
            done["parts"][0]["tries"], 1,
            "what was done is not done again"
        );
        assert_eq!(
            (music.erased.load(Relaxed), video.erased.load(Relaxed)),
            (1, 1)
        );
        assert_eq!(rig.audit.count("identity.user.erased"), 1);
    })
    .await;
}

#[tokio::test]
async fn whom_an_administrator_deletes_is_erased_after_the_days_of_grace() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = anna(&rig).await;
        let admin = fresh_admin(&rig, id::TENANT_DEFAULT).await;
        let path = format!("/users/{}", user.id);
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 204);
        erasure::start_due(&rig.core).await.unwrap();
        work(&rig).await;
        assert!(rig.get_user(user.tenant, user.id).await.email.is_some());
        rig.advance(14 * 86_400);
        erasure::start_due(&rig.core).await.unwrap();
        erasure::start_due(&rig.core).await.unwrap();
        work(&rig).await;
        assert_eq!(rig.get_user(user.tenant, user.id).await.email, None);
        assert_eq!(rig.audit.count("identity.user.erasure_started"), 1);
        let (_, report) = rig.get(&admin, &format!("{path}/erasure")).await;
        assert!(report["finished_at"].is_string(), "{report}");
        // Deleted but not yet due: an order erases at once.
        let bob = rig.user("bob").await;
        let path = format!("/users/{}", bob.id);
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 204);
        let (status, _) = rig
            .post(&admin, &format!("{path}/erase"), json!({"reason": "x"}))
            .await;
        assert_eq!(status, 202);
        work(&rig).await;
        assert_eq!(rig.get_user(bob.tenant, bob.id).await.username, None);
    })
    .await;
}
