//! Listening sockets: one for each worker on the same port, so that the kernel spreads connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::tls::CertStore;

/// Connections that the kernel keeps for a worker until it accepts them.
const BACKLOG: i32 = 4096;

/// A listener to be bound.
#[derive(Clone)]
pub struct Listener {
    /// For logs, metrics and [`super::ConnInfo::listener`].
    pub name: &'static str,
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// When the port is busy, so many ports above it are tried.
    pub fallback_ports: u16,
    /// `Some`: TLS with these certificates.
    pub tls: Option<Arc<CertStore>>,
    /// Clients may begin with HTTP/2 without TLS.
    pub h2c: bool,
}

impl Listener {
    /// A plaintext listener for HTTP/1.1 and HTTP/2 with prior knowledge.
    #[must_use]
    pub fn plain(name: &'static str, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            fallback_ports: 0,
            tls: None,
            h2c: true,
        }
    }
}

/// A bound listener, not accepting yet.
pub struct Bound {
    pub name: &'static str,
    /// The real address.
    pub address: SocketAddr,
    pub(super) tls: Option<Arc<CertStore>>,
    pub(super) h2c: bool,
    pub(super) sockets: Vec<TcpListener>,
}

/// Binds a listener for `workers` workers.
///
/// # Errors
/// `AddrInUse` when the port and those allowed instead of it are busy, and the system's others.
pub fn bind(listener: &Listener, workers: usize) -> io::Result<Bound> {
    let mut address = listener.address;
    let mut left = if address.port() == 0 {
        0
    } else {
        listener.fallback_ports
    };
    let first = loop {
        match bind_first(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && left > 0 => {
                left -= 1;
                address.set_port(address.port().saturating_add(1));
            }
            bound => break bound?,
        }
    };
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        // Where a port cannot be shared, all workers take from one queue.
        let next = if SHARED_PORTS {
            bind_shared(address)?
        } else {
            sockets[0].try_clone()?
        };
        sockets.push(next);
    }
    Ok(Bound {
        name: listener.name,
        address,
        tls: listener.tls.clone(),
        h2c: listener.h2c,
        sockets,
    })
}

/// Linux spreads connections over sockets that share a port; others do not, or not evenly.
const SHARED_PORTS: bool = cfg!(target_os = "linux");

/// Binds alone, to see that nobody else has the port: sockets that share ports would not complain
/// about a second process of the same user.
fn bind_first(address: SocketAddr) -> io::Result<TcpListener> {
    if SHARED_PORTS && address.port() != 0 {
        let probe = socket(address)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
    }
    bind_shared(address)
}

fn bind_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(true)?;
    // Small answers go out at once; accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A port whose last connections are still being forgotten can be taken again after a restart.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_port_that_the_system_chose() {
        let bound = bind(&Listener::plain("test", ([127, 0, 0, 1], 0).into()), 3).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert_eq!(bound.sockets.len(), 3);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn accepted_connections_do_not_delay_small_writes() {
        let bound = bind(&Listener::plain("test", ([127, 0, 0, 1], 0).into()), 1).unwrap();
        let _client = std::net::TcpStream::connect(bound.address).unwrap();
        let (accepted, _) = bound.sockets[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn a_busy_port_is_an_error_or_leads_to_the_next() {
        let taken = bind(&Listener::plain("first", ([127, 0, 0, 1], 0).into()), 1).unwrap();
        let mut listener = Listener::plain("second", taken.address);
        let error = bind(&listener, 1).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        listener.fallback_ports = 20;
        let next = bind(&listener, 1).unwrap();
        assert!(next.address.port() > taken.address.port());
    }
}
