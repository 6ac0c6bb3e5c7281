//! Makes connections to instances: name, address policy, TCP or unix socket, TLS.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};

use super::link::Link;
use super::pool::Permit;
use super::{Endpoint, Protocol, SendErrorKind, SendOptions, Target, TimeoutKind, Upstreams};
use crate::serve::io::Io;

/// A new HTTP/1.1 connection, ready for its first exchange.
pub(super) async fn link(
    upstreams: &Rc<Upstreams>,
    target: &Arc<Target>,
    permit: Permit,
    options: &SendOptions,
) -> Result<Box<Link>, SendErrorKind> {
    // Only dialling is large; boxed so that every request's future is not.
    let io = Box::pin(dial(upstreams, target, options)).await?;
    let limits = upstreams.limits.get();
    // Up to a tenth less, so that connections made together do not all end together.
    let max_age = limits.max_age.mul_f64(1.0 - rand::random::<f64>() / 10.0);
    let idle_life = target.idle_life.unwrap_or(limits.idle_life);
    Ok(Link::new(io, &upstreams.worker, permit, max_age, idle_life))
}

/// Connects within the limit for connecting.
pub(super) async fn dial(
    upstreams: &Rc<Upstreams>,
    target: &Target,
    options: &SendOptions,
) -> Result<Io, SendErrorKind> {
    let dialled = tokio::time::timeout(options.connect, open(upstreams, target)).await;
    let io = dialled.unwrap_or(Err(SendErrorKind::Timeout(TimeoutKind::Connect)))?;
    upstreams.worker.stats.upstream_connects.add(1);
    Ok(io)
}

async fn open(upstreams: &Upstreams, target: &Target) -> Result<Io, SendErrorKind> {
    let (host, port) = match &target.endpoint {
        Endpoint::Unix(path) => {
            return UnixStream::connect(path)
                .await
                .map(Io::Unix)
                .map_err(SendErrorKind::Connect);
        }
        Endpoint::Tcp { host, port } => (host, *port),
    };
    let all = upstreams
        .names
        .lookup(host, port)
        .await
        .map_err(SendErrorKind::Connect)?;
    let allowed: Vec<SocketAddr> = all
        .iter()
        .copied()
        .filter(|a| (upstreams.policy)(a.ip()))
        .collect();
    if allowed.is_empty() {
        return Err(SendErrorKind::AddressNotAllowed);
    }
    let stream = tcp(&allowed).await.map_err(SendErrorKind::Connect)?;
    // Small writes go out at once; set once a connection.
    stream.set_nodelay(true).map_err(SendErrorKind::Connect)?;
    match &target.tls {
        None => Ok(Io::Tcp(stream)),
        Some(tls) => {
            let (connector, name) = upstreams
                .tls
                .connector(tls, target.protocol == Protocol::Http2)
                .await?;
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(SendErrorKind::Connect)?;
            check_alpn(&stream, target.protocol)?;
            Ok(Io::TlsClient(Box::new(stream)))
        }
    }
}

/// Tries the addresses one after the other.
async fn tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn check_alpn(
    stream: &tokio_rustls::client::TlsStream<TcpStream>,
    protocol: Protocol,
) -> Result<(), SendErrorKind> {
    let chosen = stream.get_ref().1.alpn_protocol();
    let ok = match protocol {
        Protocol::Http2 => chosen == Some(b"h2"),
        Protocol::Http1 => chosen.is_none_or(|p| p == b"http/1.1"),
    };
    if ok {
        Ok(())
    } else {
        Err(SendErrorKind::Invalid("alpn"))
    }
}
