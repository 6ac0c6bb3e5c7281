//! The listener of all gRPC services: health and reflection beside them, counted connections, drain (SD-2).

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portico_telemetry::metrics::Gauge;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower_service::Service as _;

use crate::chain::{self, Chain, ChainOptions, Peer};
use crate::routes::{RpcRoutes, Undeclared};

/// How often the health of the process is looked at for `grpc.health.v1`.
const LOOK: Duration = Duration::from_secs(1);
/// Streams of one connection at a time.
const STREAMS: u32 = 2_000;
/// A quiet connection is asked so often whether its client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest wait for the end of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for the first call of a connection.
const FIRST_CALL: Duration = Duration::from_secs(60);
/// Largest list of headers, in bytes.
const HEADERS: u32 = 32 * 1024;

/// How a listener serves.
pub struct RpcOptions {
    /// What the chain works with.
    pub chain: ChainOptions,
    /// Tell everybody which services and methods there are.
    pub reflection: bool,
    /// Open connections; further ones are closed at once.
    pub connections: usize,
    /// TLS with these certificates; without them the listener speaks in the clear.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Services that are not served yet.
pub struct Server {
    router: Router,
    chain: Arc<Chain>,
    health: HealthReporter,
    names: Vec<&'static str>,
    stopping: CancellationToken,
    connections: usize,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Puts the services, health and reflection behind the chain.
    ///
    /// # Errors
    /// When a method is not declared.
    pub async fn new(options: RpcOptions, routes: RpcRoutes) -> Result<Self, Undeclared> {
        routes.check()?;
        let (health, health_server) = tonic_health::server::health_reporter();
        let names = routes.services.clone();
        set_all(&health, &names, ServingStatus::NotServing).await;
        let own = routes.routes.clone().unwrap_or_default();
        let mut all = own.add_service(health_server);
        if options.reflection {
            let reflect = || {
                let sets = routes.descriptors.iter().copied();
                sets.chain([tonic_health::pb::FILE_DESCRIPTOR_SET]).fold(
                    tonic_reflection::server::Builder::configure(),
                    |builder, set| builder.register_encoded_file_descriptor_set(set),
                )
            };
            let broken = |error: tonic_reflection::server::Error| Undeclared(error.to_string());
            all = all.add_service(reflect().build_v1().map_err(broken)?);
            // Older clients ask the older name.
            all = all.add_service(reflect().build_v1alpha().map_err(broken)?);
        }
        let stopping = CancellationToken::new();
        let chain = Arc::new(Chain::new(options.chain, routes, stopping.clone()));
        let layer = axum::middleware::from_fn_with_state(Arc::clone(&chain), chain::run);
        Ok(Self {
            router: all.into_axum_router().layer(layer),
            chain,
            health,
            names,
            stopping,
            connections: options.connections,
            tls: options.tls.map(|config| acceptor(&config)),
        })
    }

    /// Serves on a listener with tasks of `runtime`; `is_ready` is what the health service tells.
    pub fn serve(
        self,
        listener: TcpListener,
        runtime: &Handle,
        is_ready: impl Fn() -> bool + Send + 'static,
    ) -> Running {
        let (accepting, leaving) = (CancellationToken::new(), CancellationToken::new());
        let open = Arc::new(AtomicUsize::new(0));
        let connections = Connections {
            open: Arc::clone(&open),
            most: self.connections,
            gauge: self.chain.meter.connections.clone(),
        };
        let tasks = TaskTracker::new();
        let (health, names) = (self.health.clone(), self.names.clone());
        let watch = look_after_health(health, names, leaving.clone(), is_ready);
        tasks.spawn_on(watch, runtime);
        let way = Way {
            router: self.router,
            tls: self.tls,
            stop: accepting.clone(),
        };
        let accept = accept(listener, way, connections, tasks.clone());
        tasks.spawn_on(accept, runtime);
        tasks.close();
        Running {
            accepting,
            leaving,
            stopping: self.stopping,
            open,
            tasks,
        }
    }
}

/// Services that are served.
pub struct Running {
    accepting: CancellationToken,
    leaving: CancellationToken,
    stopping: CancellationToken,
    open: Arc<AtomicUsize>,
    tasks: TaskTracker,
}

impl Running {
    /// Tells clients by the health service that they should go elsewhere; everything is still served.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Takes no more calls (GOAWAY), ends streams with `UNAVAILABLE`, lets calls finish at most for
    /// `grace`. Gives the number of connections that were still open then.
    pub async fn drain(self, grace: Duration) -> usize {
        self.leaving.cancel();
        self.stopping.cancel();
        self.accepting.cancel();
        match tokio::time::timeout(grace, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => self.open.load(Ordering::Relaxed),
        }
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

async fn look_after_health(
    health: HealthReporter,
    names: Vec<&'static str>,
    leaving: CancellationToken,
    is_ready: impl Fn() -> bool + Send + 'static,
) {
    let mut told = None;
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = leaving.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let ready = is_ready();
        if told != Some(ready) {
            told = Some(ready);
            let status = if ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            set_all(&health, &names, status).await;
        }
    }
    set_all(&health, &names, ServingStatus::NotServing).await;
}

async fn set_all(health: &HealthReporter, names: &[&'static str], status: ServingStatus) {
    // The empty name stands for the whole process.
    for name in names.iter().copied().chain([""]) {
        health.set_service_status(name, status).await;
    }
}

/// Counts open connections.
#[derive(Clone)]
struct Connections {
    open: Arc<AtomicUsize>,
    most: usize,
    gauge: Gauge,
}

impl Connections {
    fn take(&self) -> Option<Seat> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.clone());
        self.gauge.add(1.0);
        (before < self.most).then_some(seat)
    }
}

struct Seat(Connections);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.add(-1.0);
    }
}

/// What a connection is served with.
#[derive(Clone)]
struct Way {
    router: Router,
    tls: Option<TlsAcceptor>,
    /// Cancelled when nothing new is taken.
    stop: CancellationToken,
}

/// The same certificates as other listeners, and nothing but HTTP/2.
fn acceptor(config: &ServerConfig) -> TlsAcceptor {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Takes connections until told to stop; each is a tracked task.
async fn accept(listener: TcpListener, way: Way, connections: Connections, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = way.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match connections.take() {
                Some(seat) => {
                    let serving = secured(stream, peer, way.clone());
                    tasks.spawn(async move {
                        serving.await;
                        drop(seat);
                    });
                }
                None => tracing::debug!(%peer, "a gRPC connection was refused: there are too many"),
            },
            // Out of descriptors, mostly: it gets better or it does not.
            Err(error) => {
                tracing::warn!(err = %error, "a gRPC connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Shakes hands where there is TLS, within a bounded time, and serves.
async fn secured(stream: TcpStream, peer: SocketAddr, way: Way) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(err = %error, "a gRPC connection may be slow");
    }
    let Some(tls) = &way.tls else {
        return connection(stream, peer, way).await;
    };
    let shaken = tokio::select! {
        () = way.stop.cancelled() => return,
        shaken = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => Box::pin(connection(stream, peer, way)).await,
        Ok(Err(error)) => tracing::debug!(%peer, err = %error, "a gRPC handshake failed"),
        Err(_) => tracing::debug!(%peer, "a gRPC handshake took too long"),
    }
}

/// Serves a connection until it ends; told to stop, it says so (GOAWAY) and finishes its calls. One that calls
/// nothing makes room after a while: it may not even speak our protocol.
async fn connection<S>(stream: S, peer: SocketAddr, way: Way)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let called = CancellationToken::new();
    let (router, first) = (way.router, called.clone());
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        first.cancel();
        request.extensions_mut().insert(Peer(peer));
        router.clone().call(request.map(Body::new))
    });
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let unused = async {
        if tokio::time::timeout(FIRST_CALL, called.cancelled())
            .await
            .is_ok()
        {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = unused => {
            tracing::debug!(%peer, "a gRPC connection called nothing");
            return;
        }
        () = way.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, err = %error, "a gRPC connection ended");
    }
}
