//! OP-4 with real processes: the holder of a lease is stopped by SIGSTOP and continued after its lease.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portico_base::SystemClock;
use portico_db::testing::{postgres_options, sqlite_options};
use portico_db::{Db, DbError, DbOptions, Held, LeaseTiming, Leases};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{put, words};

const CHILD: &str = "PORTICO_DB_TEST_PAUSED";

fn quick(db: &Db) -> Leases {
    db.leases().with_timing(LeaseTiming {
        ttl: Duration::from_millis(1_500),
        renew: Duration::from_millis(200),
        stop: Duration::from_millis(1_200),
    })
}

/// One row, written under the fence: its number says in which order rows were accepted.
async fn write_fenced(db: &Db, held: &Held) -> Result<(), DbError> {
    let tx = db.begin().await?;
    let n = tx.next_seq("paused").await?;
    put(&tx, &format!("{n} {}", held.lease.fencing), 0).await?;
    tx.fence(&held.lease).await?;
    tx.commit().await?;
    Ok(())
}

/// The child: writes once for each line that it reads, and says how it ended.
#[tokio::main(flavor = "current_thread")]
async fn hold(url: &str) {
    let (heard, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = heard.send(line);
        }
    });
    let lines = Arc::new(Mutex::new(lines));
    let db = Db::connect(&DbOptions::new(url), Arc::new(SystemClock))
        .await
        .unwrap();
    let end = quick(&db)
        .hold("paused", "child", &CancellationToken::new(), |held| {
            let (db, lines) = (db.clone(), Arc::clone(&lines));
            async move {
                if held.lease.fencing > 1 {
                    return "dropped";
                }
                loop {
                    lines.lock().await.recv().await.unwrap();
                    match write_fenced(&db, &held).await {
                        Ok(()) => crate::say(&format!("wrote {}", held.lease.fencing)),
                        Err(DbError::LeaseLost(_)) => return "refused",
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
        .await;
    crate::say(&format!("end {}", end.unwrap()));
}

async fn scene(options: &DbOptions) {
    let db = Db::connect(options, Arc::new(SystemClock)).await.unwrap();
    db.migrate(&[("test", words())]).await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "paused::late_writes_of_a_stopped_process_are_refused",
        ])
        .arg("--nocapture")
        .env(CHILD, options.url.expose())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut hear = |word: &str| {
        let said = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|l| l.starts_with(word));
        said.unwrap_or_else(|| panic!("the child never said `{word}`"))
    };
    writeln!(stdin, "go").unwrap();
    assert_eq!(hear("wrote"), "wrote 1");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    // Stopped while it holds SQLite's write lock it would keep everybody out for as long as it sleeps;
    // having the lock ourselves for a moment proves that it has none.
    let ours = db.begin().await.unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    ours.rollback().await.unwrap();
    writeln!(stdin, "go").unwrap();
    // Waits for the end of the child's lease, then works under the next number.
    let stop = CancellationToken::new();
    quick(&db)
        .hold("paused", "parent", &stop, |held| {
            let db = db.clone();
            async move {
                assert_eq!(held.lease.fencing, 2);
                write_fenced(&db, &held).await.unwrap();
            }
        })
        .await
        .unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    // Whichever comes first: its late write is refused, or it is dropped because its lease is over.
    let end = hear("end");
    assert!(
        matches!(end.as_str(), "end refused" | "end dropped"),
        "{end}"
    );
    assert!(child.wait().unwrap().success());
    let mut accepted = crate::all_words(db.reader()).await;
    accepted.sort_unstable();
    assert_eq!(accepted, ["1 1", "2 2"]);
    db.close().await;
}

#[test]
fn late_writes_of_a_stopped_process_are_refused() {
    if let Ok(url) = std::env::var(CHILD) {
        return hold(&url);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        scene(&sqlite_options(&dir)).await;
        if let Some((options, _)) = postgres_options().await {
            scene(&options).await;
        }
    });
}
