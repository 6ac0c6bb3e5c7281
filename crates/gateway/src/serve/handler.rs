//! The seam upward: what the data plane calls for every request, and what it tells it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{Method, Request, Response, StatusCode, Uri};

use super::worker::Worker;
use crate::body::{ReqBody, RespBody};

/// Answers requests on one worker; built there by the factory given to [`super::Server::start`], so
/// it may hold what is not `Send`.
pub trait Handler: 'static {
    /// Carried from the answer to its end, for the access record.
    type Log: 'static;

    /// Answers one request. The URI is in origin form (`/path?query`, or `*`); `Host` is set whatever
    /// the protocol, unless an HTTP/1.0 client left it out; hop-by-hop fields are gone; a request to
    /// switch protocols carries an [`UpgradeTo`] extension. Framing of the answer is made from its
    /// body: `Content-Length` and `Transfer-Encoding` in its headers are ignored, except for `HEAD`.
    ///
    /// The future is dropped when the client goes away; whoever must know puts a guard into it.
    fn handle(
        self: &Rc<Self>,
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
    ) -> impl Future<Output = (Response<RespBody>, Self::Log)>;

    /// The answer has ended: sent whole, or not.
    fn finished(&self, log: Self::Log, end: &End);

    /// A request was refused before [`Handler::handle`]: broken framing, limits. Counts
    /// `portico_gateway_protocol_errors_total{kind}`, logs it and gives its request id.
    fn refused(&self, conn: &ConnInfo, status: StatusCode, kind: &'static str) -> String;
}

/// The protocol that a request asks to switch to (`websocket`); in the request's extensions. An
/// RFC 8441 extended CONNECT arrives as `GET` with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeTo(pub http::HeaderValue);

/// How the client speaks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What is known about a client's connection.
#[derive(Debug)]
pub struct ConnInfo {
    /// Unique within the process while it is open.
    pub id: u64,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// The name of the listener it came in by.
    pub listener: &'static str,
    pub protocol: Protocol,
    /// `Some` on TLS.
    pub tls: Option<TlsInfo>,
}

impl ConnInfo {
    /// The same connection, known to speak something else than first thought.
    pub(crate) fn with_protocol(&self, protocol: Protocol) -> Self {
        let tls = self.tls.as_ref().map(|t| TlsInfo {
            server_name: t.server_name.clone(),
            version: t.version,
        });
        Self {
            id: self.id,
            peer: self.peer,
            local: self.local,
            listener: self.listener,
            protocol,
            tls,
        }
    }

    /// `https` on TLS, else `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// What the TLS handshake said.
#[derive(Debug, Default)]
pub struct TlsInfo {
    /// The name the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// `TLSv1_3` and the like.
    pub version: Option<&'static str>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub outcome: Outcome,
    /// Body bytes handed to the kernel (HTTP/1.1) or to the stream (HTTP/2), without framing.
    pub sent: u64,
    /// Body bytes of the request that were read.
    pub received: u64,
}

/// Whether the client got the whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// The client went away or did not read.
    ClientGone,
    /// The answer's source failed in the middle.
    Broken,
    /// Cut by us: drain deadline or a closed session.
    Cut,
}

/// Whose stream this is, so that it can be closed from outside: any strings, by custom
/// `session:…`, `user:…`, `tenant:…`.
pub type StreamKeys = Rc<[Box<str>]>;

/// One request in flight: reused on an HTTP/1.1 connection, one a stream on HTTP/2.
pub struct Stream {
    pub conn: Rc<ConnInfo>,
    worker: Rc<Worker>,
    index: Cell<u32>,
    keys: RefCell<Option<StreamKeys>>,
    request: RefCell<Option<(Method, Uri)>>,
    cut: Cell<bool>,
    /// HTTP/2: when a piece of the answer was handed over and the next was not asked for yet.
    delivered: Cell<Option<u32>>,
    waker: RefCell<Option<Waker>>,
}

impl Stream {
    /// Registers a stream with its worker until it is dropped.
    pub(crate) fn open(worker: &Rc<Worker>, conn: Rc<ConnInfo>) -> Rc<Self> {
        let stream = Rc::new(Self {
            conn,
            worker: Rc::clone(worker),
            index: Cell::new(0),
            keys: RefCell::default(),
            request: RefCell::default(),
            cut: Cell::new(false),
            delivered: Cell::new(None),
            waker: RefCell::default(),
        });
        stream.index.set(worker.streams.insert(&stream));
        stream
    }

    /// The worker that this stream lives on.
    #[must_use]
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Says whose stream it is; one pointer copy, so it can be done for every request.
    pub fn set_keys(&self, keys: StreamKeys) {
        *self.keys.borrow_mut() = Some(keys);
    }

    pub(crate) fn begin(&self, method: &Method, uri: &Uri) {
        *self.request.borrow_mut() = Some((method.clone(), uri.clone()));
    }

    pub(crate) fn end(&self) {
        self.request.borrow_mut().take();
        self.keys.borrow_mut().take();
    }

    /// True while a request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.request.borrow().is_some()
    }

    pub(crate) fn has_key(&self, key: &str) -> bool {
        self.keys
            .borrow()
            .as_ref()
            .is_some_and(|keys| keys.iter().any(|k| &**k == key))
    }

    /// Ends the stream: its connection (HTTP/1.1) or its stream (HTTP/2) is reset.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    pub(crate) fn set_delivered(&self, tick: Option<u32>) {
        self.delivered.set(tick);
    }

    /// True when the client has not taken anything of the answer since `tick`.
    pub(crate) fn is_stalled_since(&self, tick: u32) -> bool {
        self.delivered.get().is_some_and(|at| at <= tick)
    }

    pub(crate) fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready once the stream was cut; otherwise the task is woken for that and for a drain.
    pub(crate) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.get() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// One line for the list of what a drain cut; the query is left out, it may hold secrets.
    pub(crate) fn describe(&self) -> String {
        match &*self.request.borrow() {
            Some((method, uri)) => format!(
                "{} {} {} {}",
                self.conn.listener,
                self.conn.peer,
                method,
                uri.path()
            ),
            None => format!("{} {} idle", self.conn.listener, self.conn.peer),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.worker.streams.remove(self.index.get());
    }
}
