//! Copies of personal data (ID-150, ID-153).

use std::io::{Cursor, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::body::Body;
use futures_util::future::BoxFuture;
use portico_base::{Context, Principal, PrincipalKind, Secret, id};
use portico_contract::personal::{PersonalData, PersonalError};
use portico_db::testing::{TestDb, each_backend};
use portico_jobs::Queue;
use portico_testkit::SmtpServer;
use serde_json::{Value, json};
use uuid::Uuid;

use super::logins::tokens;
use super::rig::{OTHER, Rig, faults};
use crate::domain::user::User;
use crate::mail;
use crate::ops::{erasure, export};
use crate::store;
use crate::store::secrets::Secrets;

const PHC: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$c2VjcmV0aGFzaA";

/// Another service that keeps something about people.
#[derive(Default)]
pub(super) struct Music {
    pub(super) name: &'static str,
    pub(super) songs: Option<Value>,
    /// So many runs fail first.
    pub(super) fails: AtomicUsize,
    /// So many runs never end first.
    pub(super) hangs: AtomicUsize,
    pub(super) erased: AtomicUsize,
}

impl Music {
    pub(super) fn named(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

fn counted_down(count: &AtomicUsize) -> bool {
    count
        .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

impl PersonalData for Music {
    fn service(&self) -> &'static str {
        self.name
    }

    fn export<'a>(
        &'a self,
        _context: &'a Context,
        _tenant: Uuid,
        _user: Uuid,
    ) -> BoxFuture<'a, Result<Option<Value>, PersonalError>> {
        let failed = counted_down(&self.fails);
        let songs = self.songs.clone();
        Box::pin(async move {
            match failed {
                true => Err(PersonalError("the record shop is closed".into())),
                false => Ok(songs),
            }
        })
    }

    fn erase<'a>(
        &'a self,
        _context: &'a Context,
        _tenant: Uuid,
        _user: Uuid,
    ) -> BoxFuture<'a, Result<(), PersonalError>> {
        Box::pin(async move {
            if counted_down(&self.hangs) {
                std::future::pending::<()>().await;
            }
            if counted_down(&self.fails) {
                return Err(PersonalError("the record shop is closed".into()));
            }
            self.erased.fetch_add(1, Relaxed);
            Ok(())
        })
    }
}

pub(super) fn queue(rig: &Rig) -> Queue {
    let (clock, random) = (rig.core.clock.clone(), rig.core.random.clone());
    let handlers = [export::handler(&rig.core), erasure::handler(&rig.core)];
    Queue::new(rig.core.db.clone(), clock, random, "me", handlers)
}

pub(super) async fn work(rig: &Rig) {
    queue(rig).work_off().await.expect("the queue works");
}

pub(super) async fn put(rig: &Rig, user: &User) {
    let tx = rig.core.db.begin().await.expect("a transaction");
    store::users::put(&tx, user).await.expect("the user");
    tx.commit().await.expect("a commit");
}

/// A user with everything that can be known about one.
pub(super) async fn anna(rig: &Rig) -> User {
    let now = rig.core.clock.now();
    let mut user = rig.user("anna").await;
    user.email = Some("Anna@example.com".to_owned());
    user.email_verified_at = Some(now);
    user.phone = Some("+8613812345678".to_owned());
    user.phone_verified_at = Some(now);
    user.display_name = "Anna Example".to_owned();
    put(rig, &user).await;
    let tx = rig.core.db.begin().await.expect("a transaction");
    let secrets = Secrets {
        password: Some(Secret::from(PHC)),
        password_changed_at: Some(now),
        ..Secrets::none(user.id)
    };
    store::secrets::put(&tx, &secrets).await.expect("secrets");
    tx.commit().await.expect("a commit");
    tokens(
        rig,
        &user,
        json!({"platform": "ios", "name": "Anna's phone"}),
    )
    .await;
    rig.get_user(user.tenant, user.id).await
}

async fn fetched(rig: &Rig, who: &Principal, url: &str) -> (u16, Vec<u8>) {
    let path = url.strip_prefix("/api/identity").unwrap_or(url);
    let request = ::http::Request::builder().method("GET").uri(path);
    let response = rig.send(who, request, Body::empty()).await;
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 8 << 20).await;
    (status, bytes.expect("a body").to_vec())
}

/// An administrator who shows the second factor again whenever it is asked for.
pub(super) async fn fresh_admin(rig: &Rig, tenant: Uuid) -> Principal {
    Principal {
        fresh_until_s: i64::MAX,
        ..rig.tenant_admin(tenant).await
    }
}

/// The files of a zip file by name.
fn files(zip: Vec<u8>) -> Vec<(String, String)> {
    let mut zip = zip::ZipArchive::new(Cursor::new(zip)).expect("a zip file");
    (0..zip.len())
        .map(|at| {
            let mut file = zip.by_index(at).expect("a file");
            let mut text = String::new();
            file.read_to_string(&mut text).expect("text");
            (file.name().expect("a name").into_owned(), text)
        })
        .collect()
}

fn file<'a>(files: &'a [(String, String)], name: &str) -> &'a str {
    let found = files.iter().find(|(n, _)| n == name);
    &found.unwrap_or_else(|| panic!("no {name}")).1
}

fn parsed(files: &[(String, String)], name: &str) -> Value {
    serde_json::from_str(file(files, name)).expect("JSON")
}

fn holds_everything(files: &[(String, String)], songs: &Value, key: &Value) {
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "identity/profile.json",
            "identity/identities.json",
            "identity/devices.json",
            "identity/sessions.json",
            "identity/logins.json",
            "identity/api_keys.json",
            "identity/roles.json",
            "identity/credentials.json",
            "identity/consents.json",
            "identity/invitations.json",
            "identity/messages.json",
            "music.json",
            "README.txt",
        ]
    );
    let profile = parsed(files, "identity/profile.json");
    assert_eq!(profile["email"], "Anna@example.com");
    assert_eq!(profile["phone"], "+8613812345678");
    assert_eq!(
        parsed(files, "identity/devices.json")[0]["name"],
        "Anna's phone"
    );
    assert_eq!(
        parsed(files, "identity/sessions.json")[0]["method"],
        "password"
    );
    assert_eq!(parsed(files, "identity/logins.json")[0]["kind"], "login");
    assert_eq!(
        parsed(files, "identity/api_keys.json")[0]["name"],
        "build server"
    );
    assert_eq!(parsed(files, "identity/roles.json"), json!(["user"]));
    assert_eq!(
        parsed(files, "identity/credentials.json")["password"]["set"],
        true
    );
    assert_eq!(parsed(files, "music.json"), *songs);
    let readme = file(files, "README.txt");
    assert!(
        readme.contains("music.json") && readme.contains("个人数据"),
        "{readme}"
    );
    let secret = &key["key"].as_str().unwrap()[22..];
    for (name, text) in files {
        for hidden in [PHC, "c2VjcmV0aGFzaA", secret, "secret_hash", "fingerprint"] {
            assert!(!text.contains(hidden), "{name} holds {hidden}");
        }
    }
}

async fn is_for_nobody_else(
    rig: &Rig,
    who: &Principal,
    user: Uuid,
    key: &Value,
    asked: &Value,
    url: &str,
) {
    let path = format!("/exports/{}", asked["id"].as_str().unwrap());
    let path = path.as_str();
    // Nobody else fetches it: not the administrator, not the own key.
    let admin = rig.super_admin().await;
    let own_key = Principal {
        owner: Some(user),
        ..Principal::new(
            PrincipalKind::ApiKey,
            key["id"].as_str().unwrap(),
            who.tenant,
        )
    };
    let foreign = rig.add_user(OTHER, "anna", &["user"]).await;
    let foreign = rig.principal(&foreign).await;
    for other in [&admin, &own_key, &foreign] {
        assert_eq!(fetched(rig, other, url).await.0, 404);
        assert_eq!(rig.get(other, path).await.0, 404);
        assert_eq!(rig.get(other, "/exports").await.1["items"], json!([]));
    }
    assert_eq!(
        rig.get(who, "/exports").await.1["items"][0]["id"],
        asked["id"]
    );
}

#[tokio::test]
async fn the_own_copy_holds_everything_and_nothing_secret() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = anna(&rig).await;
        let songs = json!([{"title": "晚安"}]);
        rig.core.personal.add(Arc::new(Music {
            songs: Some(songs.clone()),
            fails: AtomicUsize::new(1),
            ..Music::named("music")
        }));
        rig.core.personal.add(Arc::new(Music::named("video")));
        let who = rig.principal(&user).await;
        let (status, key) = rig
            .post(
                &who,
                "/me/api-keys",
                json!({"name": "build server", "scopes": []}),
            )
            .await;
        assert_eq!(status, 201, "{key}");

        let stale = Principal {
            fresh_until_s: 0,
            ..who.clone()
        };
        let (status, problem) = rig.post(&stale, "/me/export", json!({})).await;
        assert_eq!(
            (status, &problem["code"]),
            (401, &json!("identity.step_up_required"))
        );
        rig.audit.take();
        let (status, asked) = rig.post(&who, "/me/export", json!({})).await;
        assert_eq!(
            (status, &asked["state"]),
            (202, &json!("waiting")),
            "{asked}"
        );
        assert_eq!(asked["url"], Value::Null);
        let (_, twice) = rig.post(&who, "/me/export", json!({})).await;
        assert_eq!(twice["id"], asked["id"], "one at a time");
        assert_eq!(rig.audit.take(), ["identity.export.ordered"]);
        let path = format!("/exports/{}", asked["id"].as_str().unwrap());
        let early = fetched(&rig, &who, &format!("{path}/file")).await;
        assert_eq!(early.0, 409);

        // The music service fails once: the whole copy is tried again.
        work(&rig).await;
        assert_eq!(rig.get(&who, &path).await.1["state"], "waiting");
        rig.advance(60);
        work(&rig).await;
        let (_, ready) = rig.get(&who, &path).await;
        assert_eq!(ready["state"], "ready", "{ready}");
        assert_eq!(ready["parts"], json!(["identity", "music"]));
        let url = ready["url"].as_str().expect("a link");
        let (status, zip) = fetched(&rig, &who, url).await;
        assert_eq!(
            (status, zip.len()),
            (
                200,
                usize::try_from(ready["bytes"].as_u64().unwrap()).unwrap()
            )
        );
        assert_eq!(rig.audit.count("identity.export.fetched"), 1);
        holds_everything(&files(zip), &songs, &key);
        is_for_nobody_else(&rig, &who, user.id, &key, &asked, url).await;

        // A day later it is gone, from the shelf as well.
        export::sweep(&rig.core).await.unwrap();
        assert_eq!(fetched(&rig, &who, url).await.0, 200);
        rig.advance(24 * 3600);
        assert_eq!(fetched(&rig, &who, url).await.0, 410);
        export::sweep(&rig.core).await.unwrap();
        assert_eq!(fetched(&rig, &who, url).await.0, 404);
        let left = rig.core.objects.list(None, None, 10).await.unwrap();
        assert_eq!(left.items, []);
    })
    .await;
}

#[tokio::test]
async fn the_owner_is_told_by_mail_and_a_failure_ends() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let server = SmtpServer::start().await;
        rig.set("mail.smtp.host", json!("127.0.0.1"));
        rig.set("mail.smtp.port", json!(server.port()));
        rig.set("mail.smtp.tls", json!("none"));
        rig.set("mail.from", json!("id@example.com"));
        let user = anna(&rig).await;
        let who = rig.principal(&user).await;
        rig.post(&who, "/me/export", json!({})).await;
        let (clock, random) = (rig.core.clock.clone(), rig.core.random.clone());
        let handlers = [export::handler(&rig.core), mail::handler(&rig.core)];
        let queue = Queue::new(rig.core.db.clone(), clock, random, "me", handlers);
        let before = server.mails().len();
        queue.work_off().await.unwrap();
        let mails = server.mails();
        let told = mails[before..]
            .iter()
            .filter(|m| m.to == "Anna@example.com");
        assert_eq!(told.count() + before, mails.len());
        assert!(mails.len() > before, "the owner was told");

        // A service that never answers: the copy fails in the end, and says so.
        rig.core.personal.add(Arc::new(Music {
            fails: AtomicUsize::new(1_000),
            ..Music::named("music")
        }));
        let (status, asked) = rig.post(&who, "/me/export", json!({})).await;
        assert_eq!(status, 202, "{asked}");
        for _ in 0..12 {
            queue.work_off().await.unwrap();
            rig.advance(7_200);
        }
        let path = format!("/exports/{}", asked["id"].as_str().unwrap());
        let (_, failed) = rig.get(&who, &path).await;
        assert_eq!(
            (&failed["state"], &failed["url"]),
            (&json!("failed"), &Value::Null)
        );
        rig.advance(48 * 3600);
        export::sweep(&rig.core).await.unwrap();
        assert_eq!(rig.get(&who, &path).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn an_administrator_copies_with_a_reason_and_five_times_a_day() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = anna(&rig).await;
        let admin = fresh_admin(&rig, id::TENANT_DEFAULT).await;
        let foreign = rig.tenant_admin(OTHER).await;
        let path = format!("/users/{}/export", user.id);
        let wish = json!({"reason": "asked by letter"});
        assert_eq!(rig.post(&foreign, &path, wish.clone()).await.0, 404);
        let auditor = rig.auditor().await;
        assert_eq!(rig.post(&auditor, &path, wish.clone()).await.0, 403);
        let weak = Principal {
            aal: 1,
            ..admin.clone()
        };
        let stale = Principal {
            fresh_until_s: 0,
            ..admin.clone()
        };
        for not_enough in [weak, stale] {
            let (status, problem) = rig.post(&not_enough, &path, wish.clone()).await;
            assert_eq!(
                (status, &problem["code"]),
                (401, &json!("identity.step_up_required"))
            );
        }
        // Whoever may not read phones and addresses does not get them by this way.
        let blind: Vec<_> = admin
            .permissions
            .iter()
            .filter(|p| p.as_str() != "identity:pii:read")
            .cloned()
            .collect();
        let blind = Principal {
            permissions: blind.into(),
            ..admin.clone()
        };
        if !blind.may(&crate::permissions::PII_READ) {
            assert_eq!(rig.post(&blind, &path, wish.clone()).await.0, 403);
        }
        let (status, problem) = rig.post(&admin, &path, json!({"reason": "  "})).await;
        assert_eq!(status, 400);
        assert_eq!(
            faults(&problem),
            [("reason".to_owned(), "required".to_owned())]
        );
        for _ in 0..5 {
            let (status, asked) = rig.post(&admin, &path, wish.clone()).await;
            assert_eq!(
                (status, &asked["user_id"]),
                (202, &json!(user.id)),
                "{asked}"
            );
            work(&rig).await;
            rig.advance(60);
        }
        let (status, problem) = rig.post(&admin, &path, wish.clone()).await;
        assert_eq!(
            (status, &problem["code"]),
            (429, &json!("identity.rate_limited"))
        );
        let records = rig.audit.all();
        let ordered = records
            .iter()
            .rfind(|r| r.action == "identity.export.ordered")
            .unwrap();
        assert_eq!(ordered.reason.as_deref(), Some("asked by letter"));
        assert_eq!(ordered.target, user.id.to_string());
        // The person's own right is not used up by that.
        let who = rig.principal(&user).await;
        assert_eq!(rig.post(&who, "/me/export", json!({})).await.0, 202);
        rig.advance(24 * 3600);
        assert_eq!(rig.post(&admin, &path, wish).await.0, 202);
    })
    .await;
}
