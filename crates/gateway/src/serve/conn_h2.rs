//! Drives one HTTP/2 connection: hyper's framing, our handler, our limits.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::buffers::Block;
use super::executor::StreamExecutor;
use super::h1_state::H1Conn;
use super::handler::{ConnInfo, End, Handler, Outcome, Protocol, Stream, UpgradeTo};
use super::in_process::poll_guarded;
use super::io::Io;
use super::pace::Pace;
use super::problem::{panic_answer, problem};
use super::rewind::Rewind;
use super::worker::Worker;
use crate::body::{BodyError, Origin, ReqBody, RespBody};
use crate::upstream::{Tunnel, relay};

const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const HEADER_LIST: u32 = 32 * 1024;
const SEND_BUFFER: usize = 256 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_LOST: Duration = Duration::from_secs(10);
/// Streams that the client opened and reset before we looked at them (rapid reset).
const PENDING_RESETS: usize = 50;
/// Streams that the client made us reset (`MadeYouReset`).
const OWN_RESETS: usize = 1000;

/// Takes a connection whose first bytes were HTTP/2's preface.
pub(super) async fn take_over<H: Handler>(conn: Rc<H1Conn>, handler: Rc<H>, info: Rc<ConnInfo>) {
    let Some(io) = conn.io.borrow_mut().take() else {
        return;
    };
    let early = conn.take_block();
    let worker = Rc::clone(&conn.worker);
    drop(conn);
    serve(io, early, worker, info, handler).await;
}

/// Serves until the connection ends.
pub(super) async fn serve<H: Handler>(
    io: Io,
    early: Option<Block>,
    worker: Rc<Worker>,
    info: Rc<ConnInfo>,
    handler: Rc<H>,
) {
    let info = Rc::new(info.with_protocol(Protocol::Http2));
    let watch = Stream::open(&worker, Rc::clone(&info));
    let executor = StreamExecutor::default();
    let next = Rc::clone(&executor.next);
    let shared = Rc::new(Shared {
        worker: Rc::clone(&worker),
        info,
        handler,
        next,
    });
    let served = Rc::new(Cell::new(false));
    let serving = Rc::clone(&served);
    let service = service_fn(move |request| {
        serving.set(true);
        let shared = Rc::clone(&shared);
        let stream = Stream::open(&shared.worker, Rc::clone(&shared.info));
        *shared.next.borrow_mut() = Some(Rc::clone(&stream));
        answer(shared, stream, request)
    });
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(worker.limits.h2_streams)
        .max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(OWN_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LOST)
        .auto_date_header(false)
        .enable_connect_protocol();
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(Rewind::new(io, early)), service));
    let mut leaving = false;
    let idle = worker.timers.timer();
    poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() || watch.poll_cut(cx).is_ready() {
            return Poll::Ready(());
        }
        // Streams hold the connection's facts: none but ours and the service's means that it is idle.
        let busy = Rc::strong_count(&watch.conn) > 2;
        if busy {
            idle.clear();
        } else if !idle.is_set() {
            idle.set(worker.limits.keep_alive);
        }
        // Who comes while we leave is served once: nobody else may be there yet.
        let told = worker.is_draining() || worker.is_leaving() && served.get();
        if !leaving && (told || idle.poll(cx).is_ready()) {
            leaving = true;
            connection.as_mut().graceful_shutdown();
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

struct Shared<H> {
    worker: Rc<Worker>,
    info: Rc<ConnInfo>,
    handler: Rc<H>,
    next: Rc<RefCell<Option<Rc<Stream>>>>,
}

async fn answer<H: Handler>(
    shared: Rc<Shared<H>>,
    stream: Rc<Stream>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer<H>>, BodyError> {
    shared.worker.stats.requests.add(1);
    stream.begin(request.method(), request.uri());
    let on_upgrade = is_websocket(&request).then(|| hyper::upgrade::on(&mut request));
    let request = match translate(request, on_upgrade.is_some(), &shared.worker) {
        Ok(request) => request,
        Err((status, kind)) => {
            let id = shared.handler.refused(&shared.info, status, kind);
            let (parts, body) =
                problem(status, kind, "the request is not valid HTTP/2", &id).into_parts();
            return Ok(finish(parts, Answer::new(&shared, stream, body, None)));
        }
    };
    let head_only = request.method() == Method::HEAD;
    let mut handling = Box::pin(shared.handler.handle(request, &stream));
    let made = poll_fn(|cx| poll_guarded(handling.as_mut(), cx)).await;
    drop(handling);
    let (response, log) = match made {
        Ok(made) => made,
        Err(panicked) => {
            let response = panic_answer(&*shared.handler, &shared.info, &panicked);
            let (parts, body) = response.into_parts();
            return Ok(finish(parts, Answer::new(&shared, stream, body, None)));
        }
    };
    let (mut parts, body) = response.into_parts();
    if body.is_tunnel() {
        let Origin::Tunnel(instance) = body.into_origin() else {
            return Err(BodyError::Cut);
        };
        let Some(on_upgrade) = on_upgrade else {
            return Err(BodyError::Cut);
        };
        tunnel(&shared, &stream, on_upgrade, *instance, log);
        parts.status = StatusCode::OK;
        parts.headers.remove(header::UPGRADE);
        parts.headers.remove("sec-websocket-accept");
        return Ok(finish(
            parts,
            Answer::new(&shared, stream, RespBody::empty(), None),
        ));
    }
    let body = if head_only { RespBody::empty() } else { body };
    if !head_only {
        parts.headers.remove(header::CONTENT_LENGTH);
        if let Some(n) = body.size_hint().exact().filter(|_| {
            parts.status != StatusCode::NO_CONTENT && parts.status != StatusCode::NOT_MODIFIED
        }) {
            parts
                .headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(n));
        }
    }
    if let Ok(date) = HeaderValue::from_bytes(&shared.worker.date.text()) {
        parts.headers.entry(header::DATE).or_insert(date);
    }
    Ok(finish(parts, Answer::new(&shared, stream, body, Some(log))))
}

fn finish<H: Handler>(mut parts: http::response::Parts, body: Answer<H>) -> Response<Answer<H>> {
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        parts.headers.remove(name);
    }
    parts.headers.remove("keep-alive");
    parts.headers.remove("proxy-connection");
    parts.version = Version::HTTP_2;
    Response::from_parts(parts, body)
}

/// RFC 8441: an extended CONNECT for `websocket`.
fn is_websocket(request: &Request<Incoming>) -> bool {
    request.method() == Method::CONNECT
        && request
            .extensions()
            .get::<hyper::ext::Protocol>()
            .is_some_and(|p| p.as_str().eq_ignore_ascii_case("websocket"))
}

/// The request in the form that the handler expects, whatever its protocol was.
fn translate(
    request: Request<Incoming>,
    websocket: bool,
    worker: &Worker,
) -> Result<Request<ReqBody>, (StatusCode, &'static str)> {
    let (mut parts, incoming) = request.into_parts();
    let bad = |kind| (StatusCode::BAD_REQUEST, kind);
    if parts.method == Method::CONNECT && !websocket {
        return Err((StatusCode::NOT_IMPLEMENTED, "connect"));
    }
    if parts.headers.len() > worker.limits.head.fields {
        return Err((
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too_many_fields",
        ));
    }
    let host = match parts.uri.authority() {
        Some(authority) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| bad("invalid_host"))?
        }
        None => parts
            .headers
            .get(header::HOST)
            .cloned()
            .ok_or_else(|| bad("missing_host"))?,
    };
    if parts.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(bad("duplicate_host"));
    }
    if !host.to_str().is_ok_and(portico_h1::is_valid_host) {
        return Err(bad("invalid_host"));
    }
    parts.headers.insert(header::HOST, host);
    let target = parts
        .uri
        .path_and_query()
        .cloned()
        .ok_or_else(|| bad("target"))?;
    if target.as_str().len() > worker.limits.head.line {
        return Err((StatusCode::URI_TOO_LONG, "line_too_long"));
    }
    if !target.as_str().bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(bad("target"));
    }
    parts.uri = Uri::from(target);
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
    ] {
        parts.headers.remove(name);
    }
    join_cookies(&mut parts.headers);
    let body = if websocket {
        parts.method = Method::GET;
        let protocol = HeaderValue::from_static("websocket");
        parts.headers.insert(header::UPGRADE, protocol.clone());
        // RFC 8441 leaves the key out; the instance wants one, and its answer to it goes no further.
        parts
            .headers
            .insert(header::SEC_WEBSOCKET_KEY, websocket_key());
        parts.extensions.insert(UpgradeTo(protocol));
        ReqBody::empty()
    } else if incoming.is_end_stream() {
        ReqBody::empty()
    } else {
        ReqBody::boxed(Paced {
            incoming,
            pace: Pace::new(worker),
            now: Rc::clone(&worker.timers),
        })
    };
    parts.version = Version::HTTP_2;
    Ok(Request::from_parts(parts, body))
}

fn websocket_key() -> HeaderValue {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
    HeaderValue::try_from(key).expect("base64 is visible ASCII")
}

/// HTTP/2 may split `Cookie` for compression; HTTP/1.1 must have one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let parts: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Relays between the stream and the instance once the answer has gone out.
fn tunnel<H: Handler>(
    shared: &Rc<Shared<H>>,
    stream: &Rc<Stream>,
    client: hyper::upgrade::OnUpgrade,
    instance: Tunnel,
    log: H::Log,
) {
    let (shared, stream) = (Rc::clone(shared), Rc::clone(stream));
    let worker = Rc::clone(&shared.worker);
    worker.spawn(async move {
        let mut end = End {
            outcome: Outcome::ClientGone,
            sent: 0,
            received: 0,
        };
        if let Ok(upgraded) = client.await {
            let mut io = TokioIo::new(upgraded);
            let idle = shared.worker.limits.tunnel_idle;
            let mut relayed = pin!(relay(&mut io, None, instance, &shared.worker, idle));
            end = poll_fn(|cx| {
                if stream.poll_cut(cx).is_ready() {
                    return Poll::Ready(End {
                        outcome: Outcome::Cut,
                        ..end
                    });
                }
                relayed.as_mut().poll(cx).map(|r| End {
                    outcome: Outcome::Complete,
                    sent: r.to_client,
                    received: r.to_instance,
                })
            })
            .await;
        }
        shared.handler.finished(log, &end);
    });
}

/// A request's body with its least speed.
struct Paced {
    incoming: Incoming,
    pace: Pace,
    now: Rc<super::timers::Timers>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let now = self.now.now();
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                let n = frame
                    .as_ref()
                    .and_then(|f| f.as_ref().ok())
                    .and_then(Frame::data_ref)
                    .map_or(0, Bytes::len);
                self.pace.note(n as u64, now);
                Poll::Ready(frame.map(|f| f.map_err(|_| BodyError::ClientGone)))
            }
            Poll::Pending if self.pace.poll_wait(now, cx).is_ready() => {
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

/// An answer's body that tells the handler how it ended.
struct Answer<H: Handler> {
    body: RespBody,
    shared: Rc<Shared<H>>,
    stream: Rc<Stream>,
    log: Option<H::Log>,
    sent: u64,
    outcome: Outcome,
}

impl<H: Handler> Answer<H> {
    fn new(
        shared: &Rc<Shared<H>>,
        stream: Rc<Stream>,
        body: RespBody,
        log: Option<H::Log>,
    ) -> Self {
        // Dropped before its end means that the client reset the stream, unless something else is known.
        let outcome = if body.is_end_stream() {
            Outcome::Complete
        } else {
            Outcome::ClientGone
        };
        Self {
            body,
            shared: Rc::clone(shared),
            stream,
            log,
            sent: 0,
            outcome,
        }
    }
}

impl<H: Handler> Unpin for Answer<H> {}

impl<H: Handler> Body for Answer<H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                self.stream.set_delivered(None);
                return Poll::Pending;
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                let now = self.shared.worker.timers.now();
                self.stream.set_delivered(Some(now));
                if self.body.is_end_stream() {
                    self.outcome = Outcome::Complete;
                }
            }
            Some(Err(_)) => self.outcome = Outcome::Broken,
            None => self.outcome = Outcome::Complete,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<H: Handler> Drop for Answer<H> {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            let outcome = if self.stream.is_cut() {
                Outcome::Cut
            } else {
                self.outcome
            };
            self.shared.handler.finished(
                log,
                &End {
                    outcome,
                    sent: self.sent,
                    received: 0,
                },
            );
        }
        self.stream.end();
    }
}
