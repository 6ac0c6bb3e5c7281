//! A small HTTP/1.1 server for listeners whose clients mostly wait: such a connection owns no buffer.
//!
//! hyper holds three buffers of 8 KiB for every connection. A blocking query of the Consul-compatible
//! API waits for minutes and comes by the thousand, so its listener reads into the thread's stack,
//! keeps only what is not used yet, and writes an answer's head into memory that goes with it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use portico_h1::{
    BodyDecoder, CHUNK_PREFIX_MAX, CONTINUE, Connection, Error, Framing, HeadScan, LAST_CHUNK,
    RequestHead, ResponseOptions, chunk_prefix, parse_request, write_response,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::serve::{Limits, Peer, accept};

/// Bytes read at once, on the stack.
const READ: usize = 16 * 1024;
/// A client may send so much ahead of the answer that it waits for; also the longest body that is not
/// handed on piece by piece.
const AHEAD: usize = 64 * 1024;
/// The other side may stand still for so long in the middle of a body.
const STALL: Duration = Duration::from_secs(30);
/// How long, and for how many bytes, a body that nobody read is taken in behind its answer: closing at
/// once would make the client lose the answer (RFC 9112 §9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(1), 256 * 1024);
/// Longest head of an answer.
const ANSWER_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests;

/// Serves `router` until `stop` is cancelled, then lets requests finish; `tasks` counts what is open.
/// As strict about framing as the door. Protocols are not switched: use [`crate::serve::serve`] for that.
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

async fn connection(stream: TcpStream, router: Router, limits: Limits, stop: CancellationToken) {
    let (Ok(remote), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    // Latency of small answers; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let mut conn = Conn {
        stream,
        input: Vec::new(),
        limits,
        peer: Peer { remote, local },
    };
    loop {
        let kept = match conn.head(&stop).await {
            // On the heap, so that a connection between two requests is small.
            Ok(Some(head)) => Box::pin(conn.exchange(&router, head, &stop)).await,
            Ok(None) => return,
            Err(refused) => {
                conn.refuse(&refused).await;
                return;
            }
        };
        match kept {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(err = %error, "a connection ended early");
                return;
            }
        }
    }
}

struct Conn {
    stream: TcpStream,
    /// What was read and not used yet; its memory goes with its last byte.
    input: Vec<u8>,
    limits: Limits,
    peer: Peer,
}

/// What never became a request.
enum Refused {
    Bad(Error),
    Slow,
}

/// What the answer depends on.
struct Asked {
    method: Method,
    version: Version,
    keep: bool,
}

/// A request's body on its way from the socket to the handler.
struct Upload {
    decoder: BodyDecoder,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    /// Told once the handler wants the body.
    wanted: Arc<Notify>,
    begun: bool,
    owes_continue: bool,
}

impl Conn {
    /// The next request's head; nothing when the connection has ended in order.
    async fn head(&mut self, stop: &CancellationToken) -> Result<Option<RequestHead>, Refused> {
        let limits = portico_h1::Limits {
            head: self.limits.header_bytes,
            ..portico_h1::Limits::default()
        };
        let mut scan = HeadScan::default();
        let mut begun = false;
        let mut until = Instant::now() + self.limits.idle;
        loop {
            if !begun && !self.input.is_empty() {
                begun = true;
                until = Instant::now() + self.limits.header_timeout;
            }
            let found = scan.advance(&self.input, &limits);
            if let Some((start, end)) = found.map_err(Refused::Bad)? {
                let bytes = Bytes::copy_from_slice(&self.input[start..end]);
                self.consume(end);
                return parse_request(&bytes).map(Some).map_err(Refused::Bad);
            }
            let read = tokio::select! {
                read = tokio::time::timeout_at(until, self.fill()) => read,
                // A head that has begun is still answered.
                () = stop.cancelled(), if !begun => return Ok(None),
            };
            match read {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return Ok(None),
                Err(_) if begun => return Err(Refused::Slow),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Reads once, behind what is there. Nothing is lost when it is dropped.
    async fn fill(&mut self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            match read_some(&self.stream, &mut self.input) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    fn consume(&mut self, n: usize) {
        if n >= self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..n);
        }
    }

    /// Answers one request; false when the connection must be closed.
    async fn exchange(
        &mut self,
        router: &Router,
        head: RequestHead,
        stop: &CancellationToken,
    ) -> io::Result<bool> {
        let mut asked = Asked {
            method: head.method.clone(),
            version: head.version,
            keep: head.keep_alive,
        };
        let (request, mut upload) = self.request(head);
        let response = {
            let mut router = router.clone();
            let mut answer = pin!(router.call(request));
            loop {
                tokio::select! {
                    response = answer.as_mut() => {
                        break response.unwrap_or_else(|never| match never {});
                    }
                    carried = self.carry(&mut upload) => carried?,
                }
            }
        };
        let closes = response
            .headers()
            .get(CONNECTION)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close"));
        asked.keep &= upload.is_none() && !closes && !stop.is_cancelled();
        // What writing needs is not held while the handler works.
        Box::pin(self.respond(&mut asked, response)).await?;
        if upload.is_some() {
            Box::pin(self.linger()).await;
        }
        Ok(asked.keep)
    }

    /// The request as the handler gets it, and what is still to be read for it.
    fn request(&mut self, head: RequestHead) -> (Request<Body>, Option<Upload>) {
        let whole = match head.framing {
            Framing::Length(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let (body, upload) = match (head.framing, whole) {
            (Framing::None | Framing::UntilClose, _) => (Body::empty(), None),
            (_, Some(n)) if n <= self.input.len() && n <= AHEAD => {
                let bytes = Bytes::copy_from_slice(&self.input[..n]);
                self.consume(n);
                (Body::from(bytes), None)
            }
            _ => {
                let (pieces, received) = mpsc::channel(1);
                let wanted = Arc::new(Notify::new());
                let upload = Upload {
                    decoder: BodyDecoder::new(head.framing),
                    pieces,
                    wanted: Arc::clone(&wanted),
                    begun: false,
                    owes_continue: head.expect_continue,
                };
                (Body::new(Pieces { received, wanted }), Some(upload))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        request.extensions_mut().insert(self.peer);
        (request, upload)
    }

    /// Brings one piece of the body to the handler; without a body, ends only when the client is gone.
    /// Nothing is lost when it is dropped.
    async fn carry(&mut self, upload: &mut Option<Upload>) -> io::Result<()> {
        let Some(up) = upload else {
            return self.gone().await;
        };
        if !up.begun {
            up.wanted.notified().await;
            up.begun = true;
        }
        if up.owes_continue {
            up.owes_continue = false;
            if self.input.is_empty() {
                self.write(CONTINUE).await?;
            }
        }
        let Ok(permit) = up.pieces.reserve().await else {
            // The handler does not want the rest: its answer is on the way.
            return std::future::pending().await;
        };
        if self.input.is_empty() {
            match timeout(STALL, self.fill()).await {
                Ok(Ok(n)) if n > 0 => {}
                _ => {
                    permit.send(Err(io::ErrorKind::UnexpectedEof.into()));
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        let step = match up.decoder.decode(&mut self.input) {
            Ok(step) => step,
            Err(error) => {
                permit.send(Err(io::Error::other(error)));
                // The handler says what it thinks of that; the connection cannot go on behind it.
                return std::future::pending().await;
            }
        };
        if step.len > 0 {
            let piece = &self.input[step.start..step.start + step.len];
            permit.send(Ok(Bytes::copy_from_slice(piece)));
        } else {
            drop(permit);
        }
        self.consume(step.consumed);
        if step.done {
            *upload = None;
        }
        Ok(())
    }

    /// Ends when the client has gone. What it sends ahead is kept, up to a bound.
    async fn gone(&mut self) -> io::Result<()> {
        while self.input.len() < AHEAD {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        std::future::pending().await
    }

    async fn respond(&mut self, asked: &mut Asked, response: Response<Body>) -> io::Result<()> {
        let (parts, mut body) = response.into_parts();
        let bodiless = asked.method == Method::HEAD
            || parts.status == StatusCode::NO_CONTENT
            || parts.status == StatusCode::NOT_MODIFIED;
        let framing = match body.size_hint().exact() {
            _ if bodiless => Framing::None,
            Some(0) => Framing::None,
            Some(n) => Framing::Length(n),
            None if asked.version == Version::HTTP_11 => Framing::Chunked,
            None => Framing::UntilClose,
        };
        asked.keep &= framing != Framing::UntilClose;
        let date = httpdate::fmt_http_date(SystemTime::now());
        let options = ResponseOptions {
            framing,
            date: date.as_bytes(),
            connection: match (asked.keep, asked.version) {
                (false, _) => Connection::Close,
                (true, Version::HTTP_10) => Connection::KeepAlive,
                (true, _) => Connection::Keep,
            },
            keep_length: bodiless,
        };
        let mut out = vec![0; 1024];
        let written = loop {
            match write_response(&mut out, parts.status, &parts.headers, &options) {
                Ok(n) => break n,
                Err(_) if out.len() < ANSWER_HEAD => out.resize(out.len() * 4, 0),
                Err(overflow) => return Err(io::Error::other(overflow)),
            }
        };
        out.truncate(written);
        if framing == Framing::None {
            return self.write(&out).await;
        }
        while let Some(data) = self.next_piece(&mut body, &mut out).await? {
            if framing != Framing::Chunked && data.len() >= READ {
                self.flush(&mut out).await?;
                self.write(&data).await?;
                continue;
            }
            push(&mut out, &data, framing);
            if out.len() >= READ {
                self.flush(&mut out).await?;
            }
        }
        if framing == Framing::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
        self.flush(&mut out).await
    }

    /// The next bytes of an answer; while there are none yet, what was collected goes out and the client
    /// is watched.
    async fn next_piece(
        &mut self,
        body: &mut Body,
        out: &mut Vec<u8>,
    ) -> io::Result<Option<Bytes>> {
        loop {
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;
            let frame = match polled {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.flush(out).await?;
                    tokio::select! {
                        frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)) => frame,
                        gone = self.gone() => return gone.map(|()| None),
                    }
                }
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(io::Error::other(error)),
                // Trailers are not sent on this listener.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }

    async fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let bytes = std::mem::take(out);
        self.write(&bytes).await
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = timeout(STALL, self.stream.write(bytes)).await??;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Answers what never became a request.
    async fn refuse(&mut self, refused: &Refused) {
        let (status, text) = match refused {
            Refused::Bad(error) => (error.status(), error.to_string()),
            Refused::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                "the head came too slowly".to_owned(),
            ),
        };
        tracing::debug!(status = status.as_u16(), why = %text, "a request was refused");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        let mut asked = Asked {
            method: Method::GET,
            version: Version::HTTP_11,
            keep: false,
        };
        if self.respond(&mut asked, response).await.is_ok() {
            self.linger().await;
        }
    }

    /// Takes in what the client still sends, for a while.
    async fn linger(&mut self) {
        let (time, most) = LINGER;
        let drained = async {
            self.stream.shutdown().await?;
            let mut taken = 0;
            while taken < most {
                self.input = Vec::new();
                match self.fill().await? {
                    0 => break,
                    n => taken += n,
                }
            }
            Ok::<(), io::Error>(())
        };
        // Whatever comes of it, the connection is closed behind it.
        let _ = timeout(time, drained).await;
    }
}

/// The stack is the buffer: whoever waits does not hold one.
fn read_some(stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<usize> {
    let mut scratch = [0; READ];
    let n = stream.try_read(&mut scratch)?;
    input.extend_from_slice(&scratch[..n]);
    Ok(n)
}

fn push(out: &mut Vec<u8>, data: &[u8], framing: Framing) {
    if framing != Framing::Chunked {
        out.extend_from_slice(data);
        return;
    }
    out.extend_from_slice(chunk_prefix(data.len(), &mut [0; CHUNK_PREFIX_MAX]));
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// A request's body as it comes.
struct Pieces {
    received: mpsc::Receiver<io::Result<Bytes>>,
    wanted: Arc<Notify>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.wanted.notify_one();
        self.received
            .poll_recv(cx)
            .map(|piece| piece.map(|p| p.map(Frame::data)))
    }
}
