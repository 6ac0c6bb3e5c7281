//! Rows come back as they went, from either database into either; what must not hold any more does not.

use portico_backup::{Dump, House, Lock, Source};
use portico_base::SeededRandom;
use portico_db::JUMP;
use portico_db::testing::{TestDb, postgres, sqlite};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::house::{Bench, dump, everything, furnish, house, keys, older, sets};

/// A database that the service lives in.
async fn lived_in(empty: TestDb) -> TestDb {
    empty.db.migrate(&sets()).await.unwrap();
    empty.db.claim_key_check("mk1:proof").await.unwrap();
    furnish(&empty).await;
    let tx = empty.db.begin().await.unwrap();
    tx.publish("bank.account.opened", "a", "b").unwrap();
    tx.commit().await.unwrap();
    let leases = empty.db.leases();
    assert!(leases.acquire("night", "me").await.unwrap().is_some());
    empty
}

async fn goes(from: TestDb, into: TestDb) {
    let folder = tempfile::tempdir().unwrap();
    let from = lived_in(from).await;
    let path = folder.path().join("one.pbk");
    let made = dump(&from.db, &path, None).await;
    let accounts = made.summary.tables.iter().find(|t| t.name == "accounts");
    assert_eq!(accounts.map(|t| t.rows), Some(5));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), made.bytes);

    let bench = Bench::new(path, &into.clock);
    let report = bench.restore().into_db(&into.db, None).await.unwrap();
    assert_eq!(report.rows, made.summary.rows());
    assert_eq!(report.into, into.backend().as_str());
    assert!(report.is_good(), "{report:?}");
    let said: Vec<&str> = report.findings.iter().map(|f| f.what.as_str()).collect();
    assert!(said.contains(&"the first account is closed"), "{said:?}");
    assert!(said.contains(&"the books balance"), "{said:?}");

    // Only the account that the part closed differs.
    let (before, after) = (everything(&from.db).await, everything(&into.db).await);
    let changed: Vec<_> = before.iter().filter(|row| !after.contains(row)).collect();
    assert_eq!(before.len(), after.len());
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].contains("Text(\"first\")"), "{changed:?}");

    // Nothing that was given out before is given out again, and nobody waits for the dead.
    let head = into.db.outbox().head().await.unwrap();
    assert!(head > JUMP.unsigned_abs());
    assert_eq!(into.db.outbox().trimmed().await.unwrap(), head);
    let lease = into.db.leases().acquire("night", "you").await.unwrap();
    assert!(lease.unwrap().fencing > JUMP);
    let installation = into.db.installation().await.unwrap();
    assert_eq!(installation.key_check.as_deref(), Some("mk1:proof"));
    assert!(!into.db.restore_is_pending().await.unwrap());

    // Somebody lives there now.
    let again = bench.restore().into_db(&into.db, None).await;
    let again = again.expect_err("it is not empty").to_string();
    assert!(again.contains("there is a database already"), "{again}");
    // References hold again: no entry of an account that is not there.
    let tx = into.db.begin().await.unwrap();
    let mut stray = portico_db::sea_query::Query::insert();
    stray
        .into_table("entries")
        .columns(["id", "account", "amount"])
        .values_panic([Uuid::nil().into(), "nobody".into(), 1.into()]);
    let refused = portico_db::sea_orm::ConnectionTrait::execute(&tx, &stray).await;
    assert!(refused.is_err(), "the reference was lost");
    drop(tx);
    from.finish().await;
    into.finish().await;
}

#[tokio::test]
async fn from_sqlite_into_sqlite() {
    goes(sqlite().await, sqlite().await).await;
}

#[tokio::test]
async fn from_sqlite_into_postgres() {
    if let Some(into) = postgres().await {
        goes(sqlite().await, into).await;
    }
}

#[tokio::test]
async fn from_postgres_into_postgres() {
    if let (Some(from), Some(into)) = (postgres().await, postgres().await) {
        goes(from, into).await;
    }
}

#[tokio::test]
async fn from_postgres_into_sqlite() {
    if let Some(from) = postgres().await {
        goes(from, sqlite().await).await;
    }
}

#[tokio::test]
async fn a_file_appears_when_everything_is_in_it_and_a_newer_binary_migrates_it() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite().await;
    from.db.migrate(&older()).await.unwrap();
    furnish(&from).await;
    let path = folder.path().join("one.pbk");
    dump(&from.db, &path, None).await;

    let bench = Bench::new(path, &from.clock);
    let data = folder.path().join("data");
    let file = data.join("portico.db");
    let report = bench.restore().into_file(&file, None).await.unwrap();
    assert_eq!(report.migrations, ["bank/m0002_tags"]);
    let there: Vec<_> = std::fs::read_dir(&data).unwrap().collect();
    assert_eq!(there.len(), 1, "only the file is left: {there:?}");
    let refused = bench.restore().into_file(&file, None).await;
    assert!(refused.is_err());

    // A verification says the same and leaves nothing.
    let scratch = folder.path().join("scratch");
    let verified = bench.restore().verify(&scratch, None).await.unwrap();
    assert_eq!((verified.rows, verified.is_good()), (report.rows, true));
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);

    // The binary that knows less refuses what the other one made.
    let options = portico_db::DbOptions::new(format!("sqlite://{}", file.display()));
    let clock = std::sync::Arc::new(from.clock.clone());
    let db = portico_db::Db::connect(&options, clock).await.unwrap();
    let second = folder.path().join("two.pbk");
    dump(&db, &second, None).await;
    db.close().await;
    let old = Bench {
        house: House {
            migrations: std::sync::Arc::new(older()),
            ..house()
        },
        source: Source::File(second),
        ..Bench::new(folder.path().into(), &from.clock)
    };
    let error = old.restore().verify(&scratch, None).await.unwrap_err();
    assert!(error.to_string().contains("bank/m0002_tags"), "{error}");
    let young = Bench {
        house: House {
            version: "0.0.9",
            ..house()
        },
        source: old.source.clone(),
        ..Bench::new(folder.path().into(), &from.clock)
    };
    let error = young.restore().verify(&scratch, None).await.unwrap_err();
    assert!(error.to_string().contains("0.0.9"), "{error}");
    from.finish().await;
}

#[tokio::test]
async fn a_given_up_backup_leaves_nothing() {
    let from = lived_in(sqlite().await).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.pbk");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let steps = portico_db::step_names(&sets()).unwrap();
    let objects = tempfile::tempdir().unwrap();
    let registry = portico_telemetry::metrics::Registry::default();
    let objects = portico_objects::Objects::local(objects.path(), &registry).unwrap();
    let key = portico_objects::Key::new("a").unwrap();
    objects.put_bytes(&key, "text/plain", "x").await.unwrap();
    let dump = Dump {
        id: Uuid::nil(),
        db: &from.db,
        steps: &steps,
        version: "0.1.0",
        objects: Some((&objects, portico_backup::ObjectsIn::Whole)),
        lock: &Lock::Master(keys()),
        clock: &from.clock,
        random: &SeededRandom::new(1),
        cancel: &cancel,
    };
    assert!(dump.to_file(&path).await.is_err());
    let dropped = tokio::time::timeout(Duration::ZERO, dump.to_file(&path)).await;
    assert!(dropped.is_err() || dropped.is_ok_and(|made| made.is_err()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // A binary that knows less than the database cannot make a backup of it.
    let none = std::collections::BTreeSet::new();
    let error = Dump {
        steps: &none,
        ..dump
    };
    let error = error.to_file(&path).await.unwrap_err();
    assert!(error.to_string().contains("does not know"), "{error}");
    from.finish().await;
}
