//! Audited changes a second with 32 writers, with and without the chain; then the speed of a verification
//! beside the bare hash, and first pages of searches. One database, one process.
//!
//! `throughput <database url> <records of a round> <rounds>` prints one JSON object a line.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portico_audit::bench::Bench;
use portico_base::{SystemClock, id};
use portico_contract::audit::Filter;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::{Db, DbOptions};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 32;
/// Bytes that a usual record and its link are hashed from.
const HASHED: usize = 900;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, url, records, rounds] = words.as_slice() else {
        println!("throughput <database url> <records of a round> <rounds>");
        return;
    };
    let (records, rounds): (usize, usize) = (records.parse().unwrap(), rounds.parse().unwrap());
    let folder = std::env::temp_dir();
    let db = Db::connect(&DbOptions::new(url.clone()), Arc::new(SystemClock))
        .await
        .unwrap();
    let bench = Bench::begin(
        &db,
        &folder.join(format!("portico-bench-{}", std::process::id())),
    )
    .await
    .unwrap();
    // The change itself: a counter's row for each writer.
    for writer in 0..WRITERS {
        let tx = db.begin().await.unwrap();
        tx.next_seq(&format!("bench.{writer}")).await.unwrap();
        tx.commit().await.unwrap();
    }
    write(&db, &bench, records / 4, true).await;
    for _ in 0..rounds {
        let without = write(&db, &bench, records, false).await;
        let with = write(&db, &bench, records, true).await;
        let line = json!({ "row": "writes", "with_chain_per_s": with, "without_per_s": without, "ratio": with / without });
        println!("{line}");
    }
    // What was written without the chain would be found as put in by hand.
    let mut stray = Query::delete();
    let mut sealed = Query::select();
    sealed.column("record_id").from("audit_chain");
    stray
        .from_table("audit_records")
        .and_where(Expr::col("id").not_in_subquery(sealed));
    let tx = db.begin().await.unwrap();
    tx.execute(&stray).await.unwrap();
    tx.commit().await.unwrap();
    verify(&db).await;
    search(&bench).await;
}

/// Changes a second: each is a transaction with one change and its record.
async fn write(db: &Db, bench: &Bench, records: usize, chained: bool) -> f64 {
    let stop = CancellationToken::new();
    let sealer = chained.then(|| {
        let (bench, stop) = (bench.clone(), stop.clone());
        tokio::spawn(async move { bench.seal(stop).await })
    });
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (db, bench, next) = (db.clone(), bench.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let counter = format!("bench.{writer}");
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= records {
                        return;
                    }
                    let tx = db.begin().await.unwrap();
                    tx.next_seq(&counter).await.unwrap();
                    bench.record(&tx, &format!("t-{n}"), chained).await.unwrap();
                    tx.commit().await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let took = began.elapsed();
    stop.cancel();
    if let Some(sealer) = sealer {
        sealer.await.unwrap();
    }
    per_second(records, took)
}

async fn verify(db: &Db) {
    let began = Instant::now();
    let report = portico_audit::verify_database(db, None, None)
        .await
        .unwrap();
    let took = began.elapsed();
    assert!(report.ok, "{report:?}");
    let bytes = vec![7_u8; HASHED];
    let hashes = 200_000;
    let began = Instant::now();
    let mut sum = 0_usize;
    for _ in 0..hashes {
        sum += usize::from(Sha256::digest(&bytes)[0]);
    }
    let bare = per_second(hashes, began.elapsed());
    assert!(sum > 0);
    let checked = usize::try_from(report.checked).unwrap();
    println!(
        "{}",
        json!({ "row": "verify", "records": checked, "per_s": per_second(checked, took), "sha256_of_900_bytes_per_s": bare })
    );
}

async fn search(bench: &Bench) {
    let text = |text: &str| Some(text.to_owned());
    for (what, filter) in [
        ("newest", Filter::default()),
        (
            "tenant",
            Filter {
                tenant: Some(id::TENANT_DEFAULT),
                ..Filter::default()
            },
        ),
        (
            "target",
            Filter {
                target_type: text("thing"),
                target_id: text("t-7"),
                ..Filter::default()
            },
        ),
        (
            "action",
            Filter {
                action: text("bench.thing.changed"),
                ..Filter::default()
            },
        ),
        (
            "prefix",
            Filter {
                action_prefix: text("bench."),
                ..Filter::default()
            },
        ),
        (
            "a path that is nowhere",
            Filter {
                path: text("nowhere"),
                ..Filter::default()
            },
        ),
    ] {
        bench.first_page(&filter).await.unwrap();
        let (took, found) = bench.first_page(&filter).await.unwrap();
        let us = u64::try_from(took.as_micros()).unwrap();
        println!(
            "{}",
            json!({ "row": "search", "filter": what, "found": found, "us": us })
        );
    }
}

fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
