//! Edges after a restart and on other replicas: nothing that was revoked gets in again (ID-111, ID-113).

use std::sync::Arc;
use std::time::Duration;

use portico_base::random::SeededRandom;
use portico_base::{Permission, Random, id};
use portico_contract::streams::StreamOwner;
use portico_contract::tokens::{Denied, Revocations, TokenVerifier};
use portico_db::testing::{TestDb, each_backend};
use portico_token::AccessClaims;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::edge::{ask, claims, end_session, new_id, raise, raise_tenant, token};
use super::rig::{OTHER, Rig};
use crate::edge::{CLAIMS, DISABLED};
use crate::store;
use crate::store::keys::KeyState;
use crate::store::revocations::{Kind, TOPIC};
use crate::unit::Unit;

/// Longer than this nothing takes; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// ID-24: what a role allows changes under tokens that are out.
#[tokio::test]
async fn a_changed_role_is_felt_without_a_new_token() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let other = rig.another(db).await;
        let user = rig.add_user(OTHER, "clerk", &["user"]).await;
        let told = Permission::new("identity:user:read");
        let token = token(&rig, &claims(&rig, &user, new_id(&rig)));
        assert!(!ask(&other, &token).unwrap().principal.may(&told));
        let epoch = other.core.edge.epoch();

        let unit = Unit::begin(&rig.core, &rig.core.own_context("test"))
            .await
            .unwrap();
        let roles = store::roles::of_tenant(&unit.tx, OTHER).await.unwrap();
        let mut role = roles.into_iter().find(|r| r.name == "user").unwrap();
        role.permissions = vec![told.clone()];
        store::roles::put(&unit.tx, &role).await.unwrap();
        unit.revoke(Kind::Roles, OTHER, "user", 0, "changed")
            .await
            .unwrap();
        unit.commit().await.unwrap();

        assert!(ask(&rig, &token).unwrap().principal.may(&told));
        other.core.edge.catch_up().await;
        assert!(
            other.core.edge.epoch() > epoch,
            "what the door remembers is verified again"
        );
        assert!(ask(&other, &token).unwrap().principal.may(&told));
    })
    .await;
}

/// ID-113: what was revoked before a start, a crash or on another replica is refused from the first request on.
#[tokio::test]
async fn a_restart_remembers() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (user, gone) = (rig.user("user").await, rig.user("gone").await);
        let session = new_id(&rig);
        let tokens = [
            (&user, session),
            (&user, new_id(&rig)),
            (&gone, new_id(&rig)),
        ]
        .map(|(u, s)| token(&rig, &claims(&rig, u, s)));
        end_session(&rig, user.tenant, session, "logout").await;
        raise(&rig, &gone, DISABLED).await;
        // Nothing of the first process is closed or told.
        let other = rig.another(db).await;
        assert_eq!(
            ask(&other, &tokens[0]).unwrap_err(),
            Denied::SESSION_REVOKED
        );
        assert!(ask(&other, &tokens[1]).is_ok());
        assert_eq!(
            ask(&other, &tokens[2]).unwrap_err(),
            Denied::ACCOUNT_DISABLED
        );
        // After the longest life that a token may have the row means nothing; these are over by themselves.
        rig.advance(86_461);
        let late = rig.another(db).await;
        for token in &tokens {
            assert_eq!(ask(&late, token).unwrap_err(), Denied::EXPIRED);
        }
        let tx = rig.core.db.begin().await.unwrap();
        assert!(
            store::revocations::trim(&tx, rig.core.clock.now())
                .await
                .unwrap()
                >= 2
        );
        tx.commit().await.unwrap();
    })
    .await;
}

/// ID-111 with a bus, and without one when every message is lost: from another replica's commit on, at most the poll.
#[tokio::test]
async fn other_replicas_follow_with_and_without_the_bus() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let other = rig.another(db).await;
        let stop = CancellationToken::new();
        let (heard, mut news) = mpsc::unbounded_channel();
        let heard = move |owner: &StreamOwner| heard.send(owner.clone()).unwrap();
        other.core.edge.subscribe(Arc::new(heard));
        let edge = Arc::clone(&other.core.edge);
        let following = tokio::spawn({
            let stop = stop.clone();
            async move { edge.follow(stop).await }
        });
        for with_bus in [true, false] {
            let user = rig.user(&format!("bus-{with_bus}")).await;
            let session = new_id(&rig);
            let token = token(&rig, &claims(&rig, &user, session));
            assert!(ask(&other, &token).is_ok());
            end_session(&rig, user.tenant, session, "logout").await;
            if with_bus {
                other.core.db.wake(TOPIC, 0);
            }
            let owner = tokio::time::timeout(PATIENCE, news.recv()).await.unwrap();
            assert_eq!(owner, Some(StreamOwner::Session(session.to_string())));
            // By the time that streams are closed the edge itself refuses.
            assert_eq!(ask(&other, &token).unwrap_err(), Denied::SESSION_REVOKED);
        }
        stop.cancel();
        following.await.unwrap();
    })
    .await;
}

/// Two transactions of two replicas, open at once: none is passed over by a follower that read in between.
#[tokio::test]
async fn interleaved_transactions_are_both_seen() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (other, follower) = (rig.another(db).await, rig.another(db).await);
        for round in 0..5 {
            let (one, two) = (new_id(&rig), new_id(&rig));
            let user = rig.user(&format!("user-{round}")).await;
            let tokens = [one, two].map(|s| token(&rig, &claims(&rig, &user, s)));
            let first = Unit::begin_durable(&rig.core, &rig.core.own_context("a"))
                .await
                .unwrap();
            first
                .revoke(Kind::Session, user.tenant, &one.to_string(), 0, "logout")
                .await
                .unwrap();
            // The second one waits for the number of the first, whatever it does before.
            let second = tokio::spawn({
                let core = Arc::clone(&other.core);
                let tenant = user.tenant;
                async move {
                    let unit = Unit::begin_durable(&core, &core.own_context("b")).await?;
                    unit.revoke(Kind::Session, tenant, &two.to_string(), 0, "logout")
                        .await?;
                    unit.commit().await
                }
            });
            follower.core.edge.catch_up().await;
            assert!(ask(&follower, &tokens[0]).is_ok(), "not committed yet");
            first.commit().await.unwrap();
            follower.core.edge.catch_up().await;
            assert_eq!(
                ask(&follower, &tokens[0]).unwrap_err(),
                Denied::SESSION_REVOKED
            );
            second.await.unwrap().unwrap();
            follower.core.edge.catch_up().await;
            assert_eq!(
                ask(&follower, &tokens[1]).unwrap_err(),
                Denied::SESSION_REVOKED
            );
        }
    })
    .await;
}

/// Many writers on two replicas, a reader in between: after each of its readings it knows all that was committed before.
#[tokio::test]
async fn parallel_writers_leave_no_gap() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (other, follower) = (rig.another(db).await, rig.another(db).await);
        let user = rig.user("busy").await;
        let (done, mut finished) = mpsc::unbounded_channel();
        let mut writers = Vec::new();
        for core in [&rig.core, &other.core, &rig.core, &other.core] {
            let sessions: Vec<Uuid> = (0..5).map(|_| new_id(&rig)).collect();
            let (core, done, tenant) = (Arc::clone(core), done.clone(), user.tenant);
            writers.push(tokio::spawn(async move {
                for session in sessions {
                    let commit = async || {
                        let unit = Unit::begin_durable(&core, &core.own_context("w")).await?;
                        unit.revoke(Kind::Session, tenant, &session.to_string(), 0, "logout")
                            .await?;
                        unit.commit().await
                    };
                    core.db.retry(commit).await.unwrap();
                    done.send(session).unwrap();
                }
            }));
        }
        drop(done);
        let mut seen = 0;
        while let Some(session) = finished.recv().await {
            follower.core.edge.catch_up().await;
            let token = token(&rig, &claims(&rig, &user, session));
            assert_eq!(ask(&follower, &token).unwrap_err(), Denied::SESSION_REVOKED);
            seen += 1;
        }
        assert_eq!(seen, 20);
        for writer in writers {
            writer.await.unwrap();
        }
    })
    .await;
}

/// The same with a database that is really away.
#[tokio::test]
async fn a_dead_database_makes_an_edge_stale_and_loses_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let other = rig.another(db).await;
        let user = rig.user("user").await;
        let (session, good) = (new_id(&rig), new_id(&rig));
        let tokens = [session, good].map(|s| token(&rig, &claims(&rig, &user, s)));
        end_session(&rig, user.tenant, session, "logout").await;
        other.core.edge.catch_up().await;
        other.core.db.close().await;
        rig.advance(6);
        other.core.edge.catch_up().await;
        assert!(other.core.edge.is_stale());
        assert_eq!(
            ask(&other, &tokens[0]).unwrap_err(),
            Denied::SESSION_REVOKED
        );
        assert!(ask(&other, &tokens[1]).is_ok());
    })
    .await;
}

/// The rule of versions against a plain model, over random histories with restarts and replicas that lag.
#[tokio::test]
async fn random_histories_agree_with_the_rule() {
    each_backend(async |db: &TestDb| {
        let mut rig = Rig::new(db).await;
        let lagging = rig.another(db).await;
        let random = SeededRandom::new(0x1de_0001);
        let mut users = Vec::new();
        for number in 0..4 {
            let tenant = if number % 2 == 0 {
                id::TENANT_DEFAULT
            } else {
                OTHER
            };
            users.push(rig.add_user(tenant, &format!("u{number}"), &["user"]).await);
        }
        lagging.core.edge.catch_up().await;
        let mut minted: Vec<(AccessClaims, String)> = Vec::new();
        let mut ended: Vec<Uuid> = Vec::new();
        for step in 0..60 {
            let at = usize::try_from(random.below(4)).unwrap();
            match random.below(6) {
                0 | 1 => {
                    // Also by a replica that has not heard: what it mints is refused or good, never too good.
                    let minter = if random.below(3) == 0 { &lagging } else { &rig };
                    let session = new_id(&rig);
                    let claims = claims(minter, &users[at], session);
                    let token = token(minter, &claims);
                    minted.push((claims, token));
                }
                2 => {
                    let cause =
                        [CLAIMS, DISABLED, "logout"][usize::try_from(random.below(3)).unwrap()];
                    users[at].tv = raise(&rig, &users[at], cause).await;
                }
                3 => {
                    if let Some((claims, _)) = minted.get(at) {
                        end_session(&rig, claims.tenant, claims.session, "kicked").await;
                        ended.push(claims.session);
                    }
                }
                4 => raise_tenant(&rig, users[at].tenant).await,
                _ => rig = rig.another(db).await,
            }
            for (claims, token) in &minted {
                let user = users.iter().find(|u| u.id == claims.user).unwrap();
                let te = rig.core.edge.tenant(claims.tenant).map(|t| t.te).unwrap();
                let good =
                    claims.tv >= user.tv && claims.te >= te && !ended.contains(&claims.session);
                assert_eq!(ask(&rig, token).is_ok(), good, "step {step}: {claims:?}");
            }
        }
        lagging.core.edge.catch_up().await;
        for (claims, token) in &minted {
            assert_eq!(
                ask(&lagging, token).is_ok(),
                ask(&rig, token).is_ok(),
                "{claims:?}"
            );
        }
        assert!(minted.len() > 5 && minted.iter().any(|(_, t)| ask(&rig, t).is_err()));
    })
    .await;
}

/// A replica that cannot open the active key signs nothing, and follows revocations all the same.
#[tokio::test]
async fn a_key_that_cannot_be_opened_stops_signing_only() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("user").await;
        let (session, other) = (new_id(&rig), new_id(&rig));
        let tokens = [session, other].map(|s| token(&rig, &claims(&rig, &user, s)));
        let unit = Unit::begin(&rig.core, &rig.core.own_context("test"))
            .await
            .unwrap();
        let rows = store::keys::all(&unit.tx).await.unwrap();
        let active = rows.iter().find(|r| r.state == KeyState::Active).unwrap();
        store::keys::end(&unit.tx, &active.kid, KeyState::Active, unit.now())
            .await
            .unwrap();
        unit.revoke(Kind::SigningKey, user.tenant, &active.kid, 0, "broken")
            .await
            .unwrap();
        unit.commit().await.unwrap();
        assert!(rig.core.edge.sign(&claims(&rig, &user, other)).is_err());
        end_session(&rig, user.tenant, session, "logout").await;
        assert_eq!(ask(&rig, &tokens[0]).unwrap_err(), Denied::SESSION_REVOKED);
        assert!(ask(&rig, &tokens[1]).is_ok());
        // A process that could sign nothing from the beginning does not start.
        assert!(rig.core.edge.load().await.is_err());
    })
    .await;
}
