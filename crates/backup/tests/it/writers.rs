//! A backup that is made while sixteen writers write is one moment of the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::{TestDb, postgres, sqlite};
use portico_db::{Db, DbError};
use uuid::Uuid;

use crate::house::{Bench, dump, sets, total};

/// Takes one from an account into a new entry: the sum over both tables stays.
async fn book(db: &Db, number: u128) -> Result<(), DbError> {
    let tx = db.begin().await?;
    let mut entry = Query::insert();
    entry
        .into_table("entries")
        .columns(["id", "account", "amount"])
        .values_panic([Uuid::from_u128(number).into(), "first".into(), 1.into()]);
    tx.execute(&entry).await?;
    let mut take = Query::update();
    take.table("accounts")
        .value("balance", Expr::col("balance").sub(1))
        .and_where(Expr::col("name").eq("first"));
    tx.execute(&take).await?;
    tx.commit().await?;
    Ok(())
}

async fn holds(from: TestDb) {
    let folder = tempfile::tempdir().unwrap();
    from.db.migrate(&sets()).await.unwrap();
    let tx = from.db.begin().await.unwrap();
    for number in 0..3_000_u128 {
        let mut entry = Query::insert();
        entry
            .into_table("entries")
            .columns(["id", "account", "amount"])
            .values_panic([Uuid::from_u128(number).into(), "first".into(), 0.into()]);
        tx.execute(&entry).await.unwrap();
    }
    tx.commit().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (1..=16_u128)
        .map(|writer| {
            let (db, stop, written) = (from.db.clone(), Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                let mut number = writer << 64;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    db.retry(|| book(&db, number)).await.unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut backups = Vec::new();
    let mut before = 0;
    while backups.len() < 5 {
        // Each backup sees something new.
        while written.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
        before = written.load(Ordering::Relaxed);
        let path = folder.path().join(format!("{}.pbk", backups.len()));
        let made = dump(&from.db, &path, None).await;
        let after = written.load(Ordering::Relaxed);
        backups.push((path, made, before, after));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    for (path, made, before, after) in backups {
        let bench = Bench::new(path, &from.clock);
        let report = bench.restore().verify(folder.path(), None).await.unwrap();
        assert!(report.is_good(), "{:?}", report.findings);
        let entries = made.summary.tables.iter().find(|t| t.name == "entries");
        let seen = entries.map_or(0, |t| t.rows) - 3_000;
        // What was answered before is in it; what comes after its end is not (sixteen may be between
        // their commit and their count).
        assert!(
            (before..=after + 16).contains(&seen),
            "{before} {seen} {after}"
        );
    }
    assert_eq!(total(from.db.reader()).await, 0);
    from.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    holds(sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    if let Some(db) = postgres().await {
        holds(db).await;
    }
}
