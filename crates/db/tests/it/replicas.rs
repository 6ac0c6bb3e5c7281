//! Replicas: known by their heartbeat, lost without it.

use chrono::Duration as Span;
use portico_base::{SeededRandom, SystemClock, SystemRandom, id};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, Query};
use portico_db::testing::{TestDb, each_backend};
use portico_db::{Backend, NewReplica, ReplicaState, replica_name};
use serde_json::json;

fn new(name: &str) -> NewReplica {
    NewReplica {
        id: id::new_id(&SystemClock, &SystemRandom),
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        roles: vec!["gateway".to_owned()],
        zone: String::new(),
        internal_url: Some("http://127.0.0.1:9091".to_owned()),
    }
}

async fn pass(t: &TestDb, seconds: i64) {
    t.clock.advance(Span::seconds(seconds));
    if t.backend() == Backend::Postgres {
        let tx = t.db.begin().await.unwrap();
        let mut update = Query::update();
        update.table("replicas").value(
            "heartbeat_at",
            Expr::cust(format!("heartbeat_at - interval '{seconds} seconds'")),
        );
        tx.execute(&update).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_replica_is_lost_once_and_forgotten_later() {
    each_backend(async |t| {
        let replicas = t.db.replicas();
        let (a, b) = (new("host-a"), new("host-b"));
        replicas.register(&a).await.unwrap();
        replicas.register(&b).await.unwrap();
        let numbers = json!({"in_flight": 3});
        assert!(
            replicas
                .heartbeat(a.id, ReplicaState::Ready, &numbers)
                .await
                .unwrap()
        );
        let list = replicas.list().await.unwrap();
        assert_eq!(
            (list[0].name.as_str(), list[0].state),
            ("host-a", ReplicaState::Ready)
        );
        assert_eq!(list[0].numbers, numbers);
        assert_eq!(list[0].roles, ["gateway"]);
        assert_eq!(list[1].state, ReplicaState::Starting);

        pass(t, 19).await;
        assert!(
            replicas
                .heartbeat(a.id, ReplicaState::Ready, &numbers)
                .await
                .unwrap()
        );
        assert!(replicas.sweep().await.unwrap().is_empty());
        pass(t, 2).await;
        assert_eq!(replicas.list().await.unwrap()[1].state, ReplicaState::Lost);
        let lost = replicas.sweep().await.unwrap();
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].id, b.id);
        assert!(replicas.sweep().await.unwrap().is_empty());
        // It was only slow.
        assert!(
            replicas
                .heartbeat(b.id, ReplicaState::Ready, &numbers)
                .await
                .unwrap()
        );
        assert_eq!(replicas.list().await.unwrap()[1].state, ReplicaState::Ready);

        let told = t.db.outbox().read(&[], 0, 50).await.unwrap();
        let told: Vec<&str> = told.iter().map(|e| e.topic.as_str()).collect();
        let topic = |word: &str| format!("system.replica_{word}");
        assert_eq!(
            told[..3],
            [topic("joined"), topic("joined"), topic("ready")]
        );
        assert_eq!(told[3..], [topic("lost"), topic("ready")]);

        replicas.leave(a.id).await.unwrap();
        pass(t, 4_000).await;
        replicas.sweep().await.unwrap();
        assert!(replicas.list().await.unwrap().is_empty());
        assert!(
            !replicas
                .heartbeat(b.id, ReplicaState::Ready, &numbers)
                .await
                .unwrap()
        );
    })
    .await;
}

#[test]
fn names_are_the_host_and_four_letters() {
    let name = replica_name("box", &SeededRandom::new(5));
    let tail = name.strip_prefix("box-").unwrap();
    assert_eq!(tail.len(), 4);
    assert!(tail.bytes().all(|b| b.is_ascii_lowercase()));
    assert_ne!(name, replica_name("box", &SeededRandom::new(6)));
}
