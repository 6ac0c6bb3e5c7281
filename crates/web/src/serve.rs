//! A plain HTTP server for programs and tests, which also switches protocols: bounded, drained on request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones are closed.
    pub connections: usize,
    /// Time for a request's header block.
    pub header_timeout: Duration,
    /// Time between two requests of a connection, where that is not part of the time before.
    pub idle: Duration,
    /// Bytes of a request's header block.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            header_bytes: 32 * 1024,
        }
    }
}

/// The peer of a connection, as a request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Address of the client end.
    pub remote: SocketAddr,
    /// Address of our end.
    pub local: SocketAddr,
}

/// Serves `router` until `stop` is cancelled, then lets requests finish; `tasks` counts what is open.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let ending = stop.clone();
    accept(listener, limits, tasks, stop, move |stream| {
        connection(stream, router.clone(), limits, ending.clone())
    })
    .await;
}

/// Accepts until `stop` is cancelled; `open` serves one connection to its end.
pub(crate) async fn accept<F, Fut>(
    listener: TcpListener,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
    open: F,
) where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or the peer is gone already: both pass, a busy loop would not help.
                tracing::warn!(err = %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if count.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            count.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (served, count) = (open(stream), Arc::clone(&count));
        tasks.spawn(async move {
            served.await;
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connection(stream: TcpStream, router: Router, limits: Limits, stop: CancellationToken) {
    let (Ok(remote), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    // Latency of small answers; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Peer { remote, local });
        let mut router = router.clone();
        async move {
            let response = router.call(request.map(Body::new)).await;
            Ok::<_, Infallible>(response.unwrap_or_else(|never| match never {}))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes.max(8192));
    // WebSockets of the demo and of tests take the connection over.
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(err = %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn serves_and_drains() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let router = Router::new().route("/", axum::routing::get(async || "hello"));
        let server = tokio::spawn(serve(
            listener,
            router,
            Limits::default(),
            tasks.clone(),
            stop.clone(),
        ));
        let text = reqwest::get(format!("http://{address}/"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(text, "hello");
        stop.cancel();
        server.await.unwrap();
        tasks.close();
        tasks.wait().await;
        assert!(reqwest::get(format!("http://{address}/")).await.is_err());
    }
}
