//! Accepts connections within the limits and finds out what they speak.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::conn_h1;
use super::conn_h2;
use super::h1_state::H1Conn;
use super::handler::{ConnInfo, Handler, Protocol, Stream, TlsInfo};
use super::io::Io;
use super::limits::ServeLimits;
use super::tls::CertStore;
use super::worker::Worker;

/// Connections taken in one go before others have their turn.
const BATCH: usize = 64;
/// Whether accepted connections have their listener's `TCP_NODELAY`.
const NODELAY_IS_INHERITED: bool = cfg!(target_os = "linux");
/// Pause after an error of the system (no descriptors left): accepting again at once would spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Counts the process's connections.
pub(super) struct Admission {
    open: AtomicUsize,
    limit: usize,
    per_address: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    pub(super) fn new(limits: &ServeLimits) -> Self {
        Self {
            open: AtomicUsize::new(0),
            limit: limits.connections,
            per_address: limits.connections_per_address,
            addresses: Mutex::default(),
        }
    }

    /// True while not even a refusal can be afforded.
    fn is_overfull(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.limit + self.limit / 20
    }

    fn admit(self: &Arc<Self>, peer: IpAddr) -> (Admitted, Option<(StatusCode, &'static str)>) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let counted = (!peer.to_canonical().is_loopback()).then(|| group(peer));
        let mut refusal = None;
        if let Some(group) = counted {
            let mut addresses = self.addresses.lock();
            let of_address = addresses.entry(group).or_insert(0);
            *of_address += 1;
            if *of_address > self.per_address {
                refusal = Some((
                    StatusCode::TOO_MANY_REQUESTS,
                    "too_many_connections_of_address",
                ));
            }
        }
        if open > self.limit {
            refusal = Some((StatusCode::SERVICE_UNAVAILABLE, "too_many_connections"));
        }
        (
            Admitted {
                admission: Arc::clone(self),
                counted,
            },
            refusal,
        )
    }
}

/// One client is an IPv4 address or an IPv6 /64.
fn group(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

struct Admitted {
    admission: Arc<Admission>,
    counted: Option<IpAddr>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(group) = self.counted {
            let mut addresses = self.admission.addresses.lock();
            if let Some(n) = addresses.get_mut(&group) {
                *n -= 1;
                if *n == 0 {
                    addresses.remove(&group);
                }
            }
        }
    }
}

/// A connection as its worker counts it.
struct Opened {
    worker: Rc<Worker>,
    _admitted: Admitted,
}

impl Opened {
    fn new(worker: &Rc<Worker>, admitted: Admitted) -> Self {
        worker.stats.accepted.add(1);
        worker.stats.open.add(1);
        Self {
            worker: Rc::clone(worker),
            _admitted: admitted,
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.worker.stats.open.sub(1);
        self.worker.closed.notify_one();
    }
}

/// What all connections of one listener share.
pub(super) struct Gate {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Arc<CertStore>>,
    pub(super) h2c: bool,
    pub(super) admission: Arc<Admission>,
    pub(super) ids: Arc<AtomicU64>,
}

/// Accepts until a drain begins; then takes what the kernel has queued already, which would be reset
/// otherwise, and closes the listener.
pub(super) async fn run<H: Handler>(
    listener: TcpListener,
    gate: Gate,
    worker: Rc<Worker>,
    handler: Rc<H>,
) {
    let gate = Rc::new(gate);
    let mut taken = 0;
    let mut failing = false;
    let mut draining = pin!(worker.drain_begins.notified());
    draining.as_mut().enable();
    while !worker.is_draining() {
        let accepted = tokio::select! {
            biased;
            () = &mut draining => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                gate.take(stream, peer, &worker, &handler);
            }
            Err(e) if is_of_one_connection(&e) => {
                debug!(error = %e, "a connection ended before it was accepted");
            }
            Err(e) => {
                // Said once, tried until descriptors are free again.
                if !std::mem::replace(&mut failing, true) {
                    warn!(error = %e, listener = gate.name, "connections cannot be accepted");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        taken += 1;
        if taken % BATCH == 0 {
            tokio::task::yield_now().await;
        }
        while gate.admission.is_overfull() && !worker.is_draining() {
            // The kernel's queue holds the others back meanwhile.
            tokio::time::sleep(PAUSE).await;
        }
    }
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            gate.take(stream, peer, &worker, &handler);
        }
    }
}

fn is_of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

impl Gate {
    fn take<H: Handler>(
        self: &Rc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        worker: &Rc<Worker>,
        handler: &Rc<H>,
    ) {
        if worker.stats.open.get() == 0 {
            // The ticker slept while nothing was open.
            worker.date.refresh();
        }
        tokio::task::spawn_local(Rc::clone(self).connection(stream, peer, worker, handler));
    }

    fn connection<H: Handler>(
        self: Rc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        worker: &Rc<Worker>,
        handler: &Rc<H>,
    ) -> impl Future<Output = ()> + 'static {
        let (admitted, refusal) = self.admission.admit(peer.ip());
        let opened = Opened::new(worker, admitted);
        let (worker, handler) = (Rc::clone(worker), Rc::clone(handler));
        async move {
            let _opened = opened;
            if !NODELAY_IS_INHERITED {
                let _set = stream.set_nodelay(true);
            }
            let info = self.info(&stream, peer);
            if let Some((status, kind)) = refusal {
                worker.stats.refused.add(1);
                Box::pin(refuse(stream, &info, &*handler, status, kind)).await;
                return;
            }
            match self.tls.clone() {
                None => plain(Io::Tcp(stream), worker, info, handler, self.h2c).await,
                Some(store) => Box::pin(tls(stream, store, worker, info, handler)).await,
            }
        }
    }

    fn info(&self, stream: &TcpStream, peer: SocketAddr) -> ConnInfo {
        // Only a listener on all addresses has to ask which one it was.
        let local = match self.address {
            any if any.ip().is_unspecified() => stream.local_addr().unwrap_or(any),
            one => one,
        };
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        ConnInfo {
            id,
            peer,
            local,
            listener: self.name,
            protocol: Protocol::Http1,
            tls: None,
        }
    }
}

async fn plain<H: Handler>(io: Io, worker: Rc<Worker>, info: ConnInfo, handler: Rc<H>, h2c: bool) {
    let stream = Stream::open(&worker, Rc::new(info));
    conn_h1::serve(H1Conn::new(io, &worker), stream, handler, h2c).await;
}

async fn tls<H: Handler>(
    stream: TcpStream,
    store: Arc<CertStore>,
    worker: Rc<Worker>,
    mut info: ConnInfo,
    handler: Rc<H>,
) {
    let limit = worker.limits.header_time;
    let accepted = match tokio::time::timeout(limit, store.acceptor().accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(e)) => {
            debug!(error = %e, peer = %info.peer, "a TLS handshake failed");
            return;
        }
        Err(_) => {
            handler.refused(&info, StatusCode::REQUEST_TIMEOUT, "tls_timeout");
            return;
        }
    };
    let session = accepted.get_ref().1;
    info.tls = Some(TlsInfo {
        server_name: session.server_name().map(|n| n.to_ascii_lowercase().into()),
        version: session.protocol_version().and_then(|v| v.as_str()),
    });
    let http2 = session.alpn_protocol() == Some(b"h2");
    let io = Io::TlsServer(Box::new(accepted));
    if http2 {
        conn_h2::serve(io, None, worker, Rc::new(info), handler).await;
    } else {
        plain(io, worker, info, handler, false).await;
    }
}

/// Tells a client that there are too many, without looking at its request.
async fn refuse<H: Handler>(
    mut stream: TcpStream,
    info: &ConnInfo,
    handler: &H,
    status: StatusCode,
    kind: &'static str,
) {
    let id = handler.refused(info, status, kind);
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{}\",\"status\":{},\"code\":\"gateway.{kind}\",\"request_id\":\"{id}\"}}",
        status.canonical_reason().unwrap_or("error"),
        status.as_u16()
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection and lose the answer.
        let mut room = [0; 1024];
        while tokio::io::AsyncReadExt::read(&mut stream, &mut room).await? > 0 {}
        io::Result::Ok(())
    };
    let _told = tokio::time::timeout(Duration::from_millis(250), told).await;
}
