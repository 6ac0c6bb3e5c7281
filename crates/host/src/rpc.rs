//! The gRPC listener: the services of all that run here, behind one chain.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico_config::{Config, Reflection};
use portico_contract::address_rules::AddressRules;
use portico_contract::credentials::Credentials;
use portico_contract::tenants::Tenants;
use portico_contract::tokens::TokenVerifier;
use portico_rpc::{ChainOptions, Hosts, RpcOptions, RpcRoutes, Server};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::build::Ground;
use crate::error::{StartError, exit};
use crate::health::Health;
use crate::process::host_name;
use crate::provided::Provided;
use crate::surface::{Drained, Open, Surface};
use crate::telemetry::Telemetry;

/// Open connections; one serves a whole program.
const CONNECTIONS: usize = 4_096;

/// Certificates of the listeners for clients, provided by whoever reads them from the configuration; what is
/// behind them changes with the files.
#[derive(Debug)]
pub struct ListenerTls(pub Arc<ServerConfig>);

/// The surface of all gRPC services; nothing when there are none or the listener is off.
pub(crate) async fn surface(
    routes: RpcRoutes,
    ground: &Ground,
    telemetry: &Telemetry,
    (provided, credentials): (&Provided, &Credentials),
    health: &Arc<OnceLock<Health>>,
    runtime: &Handle,
) -> Result<Option<Box<dyn Surface>>, StartError> {
    let config = ground.reloads.borrow().clone();
    let Some(address) = config.listen.grpc.addr() else {
        return Ok(None);
    };
    if routes.is_empty() {
        return Ok(None);
    }
    let reflection = match config.listen.grpc_reflection {
        Reflection::On => true,
        Reflection::Off => false,
        Reflection::Auto => config.server.domain.is_none(),
    };
    // On this machine a name's certificate would only be in the way.
    let beyond = !config.listen.grpc.is_private();
    let certificates = provided.get::<ListenerTls>().filter(|_| beyond);
    let tls = certificates.map(|tls| Arc::clone(&tls.0));
    if beyond && tls.is_none() && !config.listen.insecure {
        return Err(StartError::new(
            exit::USAGE,
            "listen.grpc: other machines reach this address, and there is no certificate",
        ));
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let options = RpcOptions {
        chain: ChainOptions {
            clock: Arc::clone(&ground.clock),
            random: Arc::clone(&ground.random),
            credentials: credentials.clone(),
            verifier: provided.get::<dyn TokenVerifier>(),
            tenants: provided.get::<dyn Tenants>(),
            hosts: hosts(&config),
            address_rules: provided.get::<dyn AddressRules>(),
            limiter: ground.state.limiter().clone(),
            metrics: telemetry.metrics.clone(),
            tracer: telemetry.tracer.clone(),
        },
        reflection,
        connections: CONNECTIONS,
        tls,
    };
    let server = Server::new(options, routes).await.map_err(|error| {
        StartError::new(exit::FAILED, "the gRPC services are not complete").because(error)
    })?;
    Ok(Some(Box::new(RpcSurface {
        address,
        scheme,
        server: Some(server),
        health: Arc::clone(health),
        runtime: runtime.clone(),
    })))
}

/// Names under which the listener may be called: those of the installation, and the machine's.
fn hosts(config: &Config) -> Hosts {
    let server = &config.server;
    let public = server.public_url.as_ref();
    let public = public.and_then(|url| url.url().host_str().map(str::to_owned));
    let named = server.hosts.iter().map(|host| host.as_str().to_owned());
    Hosts::new(
        server.domain.as_ref().map(|domain| domain.as_str()),
        named.chain(public).chain([host_name()]),
    )
}

struct RpcSurface {
    address: SocketAddr,
    scheme: &'static str,
    /// Until it is bound.
    server: Option<Server>,
    health: Arc<OnceLock<Health>>,
    runtime: Handle,
}

impl Surface for RpcSurface {
    fn name(&self) -> &'static str {
        "grpc"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn scheme(&self) -> &'static str {
        self.scheme
    }

    fn bind(&mut self, address: SocketAddr) -> io::Result<Box<dyn Open>> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let _guard = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let server = self
            .server
            .take()
            .ok_or_else(|| io::Error::other("the listener is bound already"))?;
        let health = Arc::clone(&self.health);
        let is_ready = move || health.get().is_some_and(Health::ready);
        Ok(Box::new(OpenRpc {
            local,
            running: server.serve(listener, &self.runtime, is_ready),
        }))
    }
}

struct OpenRpc {
    local: SocketAddr,
    running: portico_rpc::Running,
}

impl Open for OpenRpc {
    fn local_address(&self) -> SocketAddr {
        self.local
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.running.leave();
        Box::pin(std::future::ready(()))
    }

    fn drain(self: Box<Self>, grace: Duration) -> BoxFuture<'static, Drained> {
        Box::pin(async move {
            match self.running.drain(grace).await {
                0 => Drained::default(),
                open => Drained {
                    cut: vec![format!("grpc: {open} connections")],
                },
            }
        })
    }
}
