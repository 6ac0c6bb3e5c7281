//! The least that hyper does for a request: the yardstick of in-process endpoints (GW-P5).

use std::convert::Infallible;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Answers every request with so many bytes, on one thread, until it is ended.
pub(crate) fn run(address: &str, bytes: &str) -> Result<()> {
    let body = Bytes::from(vec![b'x'; bytes.parse().context("BYTES")?]);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?
        .block_on(accept(address, body))
}

async fn accept(address: &str, body: Bytes) -> Result<()> {
    let listener = TcpListener::bind(address).await.context("HOST:PORT")?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let response = Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that goes away is no concern of a yardstick.
            let _gone = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
