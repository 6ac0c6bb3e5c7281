//! SC-4 on a network that swallows packets: nothing is refused, nothing is answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_base::SystemClock;
use portico_db::Db;
use portico_db::testing::postgres_options;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{get, put, words};

/// Carries bytes one way for as long as the network lives; while it is dead they wait.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut alive: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16_384];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if alive.wait_for(|alive| *alive).await.is_err()
            || to.write_all(&buffer[..n]).await.is_err()
        {
            return;
        }
    }
}

/// A TCP address in front of the server's socket.
async fn network(socket: PathBuf, alive: watch::Receiver<bool>) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.unwrap();
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            connections.spawn(carry(client_in, server_out, alive.clone()));
            connections.spawn(carry(server_in, client_out, alive.clone()));
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn a_dead_network_is_an_answer_in_time_and_heals() {
    let Some((mut options, name)) = postgres_options().await else {
        return;
    };
    let url = options.url.expose().clone();
    let Some((_, dir)) = url.split_once("host=/") else {
        // A server named by the environment is not reached by a socket.
        return;
    };
    let (switch, alive) = watch::channel(true);
    let socket = PathBuf::from(format!("/{dir}/.s.PGSQL.5432"));
    let (port, _network) = network(socket, alive).await;
    options.url = format!("postgres://postgres@127.0.0.1:{port}/{name}").into();
    options.acquire_timeout = Duration::from_millis(500);
    options.statement_timeout = Duration::from_millis(500);
    options.max_connections = 3;
    let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
    db.migrate(&[("test", words())]).await.unwrap();
    let tx = db.begin().await.unwrap();
    put(&tx, "before", 1).await.unwrap();
    tx.commit().await.unwrap();

    let open = db.begin().await.unwrap();
    put(&open, "unknown", 1).await.unwrap();
    switch.send_replace(false);
    let start = Instant::now();
    let (commit, read, write) = tokio::join!(open.commit(), get(db.reader(), "before"), async {
        db.begin().await.map(|_| ())
    });
    for error in [commit.unwrap_err(), read.unwrap_err(), write.unwrap_err()] {
        assert!(error.is_unavailable(), "{error}");
    }
    // More than there are connections: none may stay taken.
    for _ in 0..4 {
        assert!(
            get(db.reader(), "before")
                .await
                .unwrap_err()
                .is_unavailable()
        );
    }
    assert!(start.elapsed() < Duration::from_secs(20));

    switch.send_replace(true);
    let healed = Instant::now();
    while get(db.reader(), "before").await.is_err() {
        assert!(
            healed.elapsed() < Duration::from_secs(20),
            "it never healed"
        );
    }
    let tx = db.begin_durable().await.unwrap();
    put(&tx, "after", 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(get(db.reader(), "after").await.unwrap(), Some(1));
    // The outcome of the commit was not known here; the server knows one.
    assert!(matches!(
        get(db.reader(), "unknown").await.unwrap(),
        None | Some(1)
    ));
    db.close().await;
}
