//! HTTP/2 to an instance: few connections, many streams each, driven by hyper.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::exchange::give_back;
use super::pool::{Permit, Pool};
use super::{
    Endpoint, SendError, SendErrorKind, SendOptions, Target, TimeoutKind, Upstreams, connect,
};
use crate::body::{BodyError, Origin, ReqBody, RespBody};
use crate::serve::timers::Timer;
use crate::serve::{LocalExecutor, UpgradeTo, Worker};

/// Streams on one connection before a second is opened: 80 % of what peers usually allow.
const STREAMS: usize = 80;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const HEADER_LIST: u32 = 32 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_LOST: Duration = Duration::from_secs(10);
/// Bytes of a request's body that are held so that it can be sent again.
const HELD: usize = 64 * 1024;

/// One connection that carries many requests.
pub(crate) struct Shared {
    sender: SendRequest<ReqBody>,
    in_flight: Cell<usize>,
    idle_since: Cell<u32>,
    old_at: u32,
    idle_ticks: u32,
    _permit: Permit,
}

impl Shared {
    fn has_room(&self, now: u32) -> bool {
        !self.sender.is_closed() && now < self.old_at && self.in_flight.get() < STREAMS
    }

    /// True when it carries nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// True when the pool should forget it: closed, or nobody used it for its idle life.
    pub(super) fn is_over(&self, now: u32) -> bool {
        let unused = self.in_flight.get() == 0;
        self.sender.is_closed()
            || (unused
                && (now >= self.old_at
                    || now >= self.idle_since.get().saturating_add(self.idle_ticks)))
    }
}

/// Counts one stream on a shared connection.
struct Stream {
    shared: Rc<Shared>,
    worker: Rc<Worker>,
}

impl Stream {
    fn new(shared: Rc<Shared>, worker: &Rc<Worker>) -> Self {
        shared.in_flight.set(shared.in_flight.get() + 1);
        Self {
            shared,
            worker: Rc::clone(worker),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.in_flight.set(self.shared.in_flight.get() - 1);
        self.shared.idle_since.set(self.worker.timers.now());
    }
}

pub(super) async fn send(
    upstreams: &Rc<Upstreams>,
    target: &Arc<Target>,
    request: Request<ReqBody>,
    options: &SendOptions,
) -> Result<Response<RespBody>, SendError> {
    let (parts, body) = request.into_parts();
    if parts.extensions.get::<UpgradeTo>().is_some() {
        return Err(give_back(
            SendErrorKind::Invalid("upgrade_over_http2"),
            parts,
            Some(body),
            false,
        ));
    }
    let stream = match stream(upstreams, target, options).await {
        Ok(stream) => stream,
        Err(kind) => return Err(give_back(kind, parts, Some(body), false)),
    };
    let lent = Rc::new(RefCell::new(Lent::new(body, options.hold_body)));
    let sent = exchange(upstreams, target, stream, &parts, &lent, options);
    let done = match options.total {
        None => sent.await,
        Some(total) => tokio::time::timeout(total, sent)
            .await
            .unwrap_or(Err(SendErrorKind::Timeout(TimeoutKind::Total))),
    };
    done.map_err(|kind| {
        let mut lent = lent.borrow_mut();
        if let Some(failed) = lent.failed.take() {
            return give_back(SendErrorKind::RequestBody(failed), parts, None, true);
        }
        let body = if matches!(kind, SendErrorKind::Timeout(_)) {
            None
        } else {
            lent.take_back()
        };
        give_back(kind, parts, body, true)
    })
}

async fn exchange(
    upstreams: &Rc<Upstreams>,
    target: &Target,
    stream: Stream,
    parts: &Parts,
    lent: &Rc<RefCell<Lent>>,
    options: &SendOptions,
) -> Result<Response<RespBody>, SendErrorKind> {
    let request = to_http2(target, parts, lent)?;
    let mut sender = stream.shared.sender.clone();
    let timer = upstreams.worker.timers.timer();
    timer.set(options.first_byte);
    let mut answer = pin!(sender.try_send_request(request));
    let mut sent = 0;
    let answer = poll_fn(|cx| {
        if let Poll::Ready(done) = answer.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(|e| failure(e.error())));
        }
        // The limit counts from the last byte sent.
        let now_sent = lent.borrow().sent;
        if std::mem::replace(&mut sent, now_sent) != now_sent {
            timer.set(options.first_byte);
        }
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Err(SendErrorKind::Timeout(TimeoutKind::FirstByte)));
        }
        Poll::Pending
    })
    .await?;
    timer.set(options.between_bytes);
    let (parts, incoming) = answer.into_parts();
    let body = Streamed {
        incoming,
        timer,
        between: options.between_bytes,
        _stream: stream,
    };
    Ok(Response::from_parts(
        parts,
        RespBody::from(Origin::Streamed(Box::new(body))),
    ))
}

/// A stream on a connection with room, or on a new one.
async fn stream(
    upstreams: &Rc<Upstreams>,
    target: &Arc<Target>,
    options: &SendOptions,
) -> Result<Stream, SendErrorKind> {
    let pool = upstreams.pool(target);
    let until = Instant::now() + upstreams.limits.get().queue_wait;
    loop {
        let now = upstreams.worker.timers.now();
        let found = pool
            .shared
            .borrow()
            .iter()
            .find(|s| s.has_room(now))
            .cloned();
        if let Some(shared) = found {
            return Ok(Stream::new(shared, &upstreams.worker));
        }
        match pool.try_permit() {
            Some(permit) => {
                let shared = Box::pin(open(upstreams, target, &pool, permit, options)).await?;
                return Ok(Stream::new(shared, &upstreams.worker));
            }
            None => pool.wait(until).await?,
        }
    }
}

async fn open(
    upstreams: &Rc<Upstreams>,
    target: &Arc<Target>,
    pool: &Rc<Pool>,
    permit: Permit,
    options: &SendOptions,
) -> Result<Rc<Shared>, SendErrorKind> {
    let io = connect::dial(upstreams, target, options).await?;
    let mut builder = Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LOST);
    let (sender, connection) = builder
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| failure(&e))?;
    upstreams.worker.spawn(async move {
        // Its end is seen by every stream that was on it.
        let _closed = connection.await;
    });
    let timers = &upstreams.worker.timers;
    let idle_life = target.idle_life.unwrap_or(upstreams.limits.get().idle_life);
    let shared = Rc::new(Shared {
        sender,
        in_flight: Cell::new(0),
        idle_since: Cell::new(timers.now()),
        old_at: timers.tick_after(upstreams.limits.get().max_age),
        idle_ticks: timers.tick_after(idle_life) - timers.now(),
        _permit: permit,
    });
    pool.shared.borrow_mut().push(Rc::clone(&shared));
    Ok(shared)
}

fn to_http2(
    target: &Target,
    parts: &Parts,
    lent: &Rc<RefCell<Lent>>,
) -> Result<Request<ReqBody>, SendErrorKind> {
    let fallback = match &target.endpoint {
        Endpoint::Tcp { host, .. } => host,
        Endpoint::Unix(_) => "localhost",
    };
    let host = parts
        .headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or(fallback);
    let invalid = |_| SendErrorKind::Invalid("authority");
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if target.tls.is_some() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    uri.authority = Some(host.parse::<Authority>().map_err(invalid)?);
    uri.path_and_query = Some(
        parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
    );
    let end = lent.borrow().is_end_stream();
    let body = if end {
        ReqBody::empty()
    } else {
        ReqBody::boxed(LentBody(Rc::clone(lent)))
    };
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| SendErrorKind::Invalid("authority"))?;
    *request.headers_mut() = parts.headers.clone();
    for name in [
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
    ] {
        request.headers_mut().remove(name);
    }
    Ok(request)
}

fn failure(error: &hyper::Error) -> SendErrorKind {
    let mut source = error.source();
    while let Some(e) = source {
        if let Some(h2) = e.downcast_ref::<h2::Error>() {
            let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR));
            return if refused {
                SendErrorKind::Refused
            } else {
                SendErrorKind::Reset
            };
        }
        source = e.source();
    }
    SendErrorKind::Reset
}

/// A request's body while hyper sends it; it can be taken back.
struct Lent {
    body: ReqBody,
    held: Option<Vec<Bytes>>,
    room: usize,
    sent: u64,
    failed: Option<BodyError>,
}

impl Lent {
    fn new(body: ReqBody, hold: bool) -> Self {
        Self {
            body,
            held: Some(Vec::new()),
            room: if hold { HELD } else { 0 },
            sent: 0,
            failed: None,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else { return };
        self.sent += data.len() as u64;
        match (self.room.checked_sub(data.len()), &mut self.held) {
            (Some(room), Some(held)) => {
                self.room = room;
                held.push(data.clone());
            }
            _ => self.held = None,
        }
    }

    fn take_back(&mut self) -> Option<ReqBody> {
        let held = self.held.take()?;
        let rest = std::mem::replace(&mut self.body, ReqBody::empty());
        Some(if held.is_empty() {
            rest
        } else {
            ReqBody::replay(Bytes::from(held.concat()), rest)
        })
    }
}

struct LentBody(Rc<RefCell<Lent>>);

impl Body for LentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut lent = self.0.borrow_mut();
        let frame = ready!(Pin::new(&mut lent.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => lent.note(frame),
            Some(Err(_)) => {
                // The stream is reset; the reason is told by `send`.
                if let Some(Err(e)) = frame {
                    lent.failed = Some(e);
                }
                return Poll::Ready(Some(Err(BodyError::ClientGone)));
            }
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().body.size_hint()
    }
}

/// An answer's body with its time limit; the stream counts until it is dropped.
pub(crate) struct Streamed {
    incoming: Incoming,
    timer: Timer,
    between: Duration,
    _stream: Stream,
}

impl Streamed {
    /// Changes the limit between two reads of the answer.
    pub(crate) fn set_between(&mut self, between: Duration) {
        self.between = between;
        self.timer.set(between);
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer.set(self.between);
                Poll::Ready(frame.map(|f| f.map_err(|_| BodyError::UpstreamGone)))
            }
            Poll::Pending if self.timer.poll(cx).is_ready() => {
                Poll::Ready(Some(Err(BodyError::TooSlow)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
