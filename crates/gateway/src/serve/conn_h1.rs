//! Drives one HTTP/1.1 connection: head, handler, answer, and again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use http::{HeaderValue, Request, Response, StatusCode};
use portico_h1::{Connection, Framing, RequestHead, ResponseOptions, write_response};
use tokio::io::AsyncWriteExt;

use super::conn_h2;
use super::drain;
use super::h1_body::H1Body;
use super::h1_state::{H1Conn, NoHead};
use super::h1_write::{Asked, Written, respond};
use super::handler::{End, Handler, Outcome, Stream, UpgradeTo};
use super::in_process::{Panicked, poll_guarded};
use super::problem::{panic_answer, problem};
use crate::body::{Origin, ReqBody, RespBody, Source};
use crate::upstream::{Tunnel, relay};

/// Serves until the connection ends. `http2` allows the client to begin with HTTP/2's preface.
pub(super) async fn serve<H: Handler>(
    conn: Rc<H1Conn>,
    stream: Rc<Stream>,
    handler: Rc<H>,
    http2: bool,
) {
    let mut served = 0;
    let limits = &conn.worker.limits;
    conn.timer.set(limits.header_time);
    loop {
        let read = poll_fn(|cx| {
            if stream.poll_cut(cx).is_ready() {
                return Poll::Ready(Err(NoHead::Closed));
            }
            let head = conn.poll_head(http2 && served == 0, cx);
            // A drain closes what is idle; a head that has begun is still answered.
            if head.is_pending() && conn.worker.is_draining() && !conn.has_input() {
                return Poll::Ready(Err(NoHead::Closed));
            }
            head
        })
        .await;
        let kept = match read {
            Ok(head) => {
                served += 1;
                let last = served >= limits.requests;
                // One allocation a request keeps an idle connection's task small. The future is made
                // where it stays: `Box::pin` would make it on the stack and copy its kilobytes.
                let room = Box::new_uninit();
                let exchange = exchange(&conn, &stream, &handler, head, last);
                Box::into_pin(Box::write(room, exchange)).await
            }
            Err(NoHead::Closed) => false,
            Err(NoHead::Http2) => {
                let info = Rc::clone(&stream.conn);
                drop(stream);
                Box::pin(conn_h2::take_over(conn, handler, info)).await;
                return;
            }
            Err(NoHead::Timeout) => {
                refuse(
                    &conn,
                    &stream,
                    &*handler,
                    StatusCode::REQUEST_TIMEOUT,
                    "header_timeout",
                    "the head came too slowly",
                )
                .await
            }
            Err(NoHead::Bad(e)) => {
                refuse(
                    &conn,
                    &stream,
                    &*handler,
                    e.status(),
                    e.kind(),
                    &e.to_string(),
                )
                .await
            }
        };
        if !kept {
            break;
        }
        conn.timer.set(limits.keep_alive);
    }
    let io = conn.io.borrow_mut().take();
    if let Some(mut io) = io
        && stream.conn.tls.is_some()
    {
        // TLS says goodbye so that a cut cannot be taken for an end.
        let _closed = tokio::time::timeout(limits.drain_time, io.shutdown()).await;
    }
}

/// Answers one request; false when the connection must be closed.
async fn exchange<H: Handler>(
    conn: &Rc<H1Conn>,
    stream: &Rc<Stream>,
    handler: &Rc<H>,
    head: RequestHead,
    last: bool,
) -> bool {
    conn.worker.stats.requests.add(1);
    conn.timer.clear();
    stream.begin(&head.method, &head.uri);
    conn.begin_body(head.framing, head.expect_continue);
    let mut asked = Asked {
        method: head.method.clone(),
        version: head.version,
        keep_alive: head.keep_alive && !last,
    };
    let upgrading = head.upgrade.is_some();
    let request = request(conn, head);
    // The answer's future is on the heap with this one: no second box, and no copy on its way there.
    let made = {
        let answer = pin!(handler.handle(request, stream));
        make(conn, stream, answer).await
    };
    let (response, log) = match made {
        None => {
            stream.end();
            return false;
        }
        Some(Err(panicked)) => {
            asked.keep_alive = false;
            let response = panic_answer(&**handler, &stream.conn, &panicked);
            let written = respond(conn, stream, response, &asked).await;
            stream.end();
            return after(conn, &written).await;
        }
        Some(Ok(made)) => made,
    };
    let kept = match response {
        response if response.body().is_tunnel() => {
            let end = tunnel(conn, stream, response, upgrading).await;
            handler.finished(log, &end);
            false
        }
        response => {
            let response = replace_fault(conn, stream, &**handler, response);
            let drained = drain::before_answer(conn, response.body());
            asked.keep_alive &= drained && !upgrading && !conn.worker.is_leaving();
            let written = respond(conn, stream, response, &asked).await;
            if written.unsent {
                asked.keep_alive = false;
                tell_broken(conn, stream, &**handler, &asked).await;
            }
            handler.finished(
                log,
                &End {
                    outcome: written.outcome,
                    sent: written.sent,
                    received: conn.received(),
                },
            );
            after(conn, &written).await
        }
    };
    stream.end();
    kept
}

/// The request as the handler gets it.
fn request(conn: &Rc<H1Conn>, head: RequestHead) -> Request<ReqBody> {
    let whole = match head.framing {
        Framing::Length(n) if !head.expect_continue => conn.take_whole_body(n),
        _ => None,
    };
    let body = match (head.framing, whole) {
        (_, Some(bytes)) => ReqBody::from(bytes),
        (Framing::None, None) => ReqBody::empty(),
        _ => ReqBody::from(Source::H1(H1Body::new(conn))),
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    if let Some(protocol) = head.upgrade {
        request
            .headers_mut()
            .insert(http::header::UPGRADE, protocol.clone());
        request.extensions_mut().insert(UpgradeTo(protocol));
    }
    request
}

/// Runs the handler; `None` when the client went away or the stream was cut.
async fn make<T>(
    conn: &H1Conn,
    stream: &Stream,
    mut answer: Pin<&mut impl Future<Output = T>>,
) -> Option<Result<T, Panicked>> {
    poll_fn(|cx| {
        if let Poll::Ready(made) = poll_guarded(answer.as_mut(), cx) {
            return Poll::Ready(Some(made));
        }
        if stream.poll_cut(cx).is_ready() || conn.poll_gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// Whatever the handler says about a body with broken framing, the client is told what was wrong.
fn replace_fault<H: Handler>(
    conn: &H1Conn,
    stream: &Stream,
    handler: &H,
    response: Response<RespBody>,
) -> Response<RespBody> {
    let Some(kind) = conn.body_fault() else {
        return response;
    };
    let id = handler.refused(&stream.conn, StatusCode::BAD_REQUEST, kind);
    problem(
        StatusCode::BAD_REQUEST,
        kind,
        "the request's body is not framed as it must be",
        &id,
    )
}

/// An answer that broke before its first byte went out becomes a 502.
async fn tell_broken<H: Handler>(conn: &Rc<H1Conn>, stream: &Stream, handler: &H, asked: &Asked) {
    let (status, kind) = (StatusCode::BAD_GATEWAY, "answer_broken");
    let id = handler.refused(&stream.conn, status, kind);
    let response = problem(
        status,
        kind,
        "the answer could not be read from its service",
        &id,
    );
    respond(conn, stream, response, asked).await;
}

/// Whether the connection goes on behind an answer.
async fn after(conn: &Rc<H1Conn>, written: &Written) -> bool {
    if written.outcome != Outcome::Complete {
        return false;
    }
    if written.keep && drain::rest(conn).await {
        conn.park();
        return true;
    }
    if !conn.is_at_boundary() || conn.has_input() {
        drain::linger(conn).await;
    }
    false
}

/// Answers what never became a request, and closes.
async fn refuse<H: Handler>(
    conn: &Rc<H1Conn>,
    stream: &Stream,
    handler: &H,
    status: StatusCode,
    kind: &'static str,
    detail: &str,
) -> bool {
    let id = handler.refused(&stream.conn, status, kind);
    let asked = Asked {
        method: http::Method::GET,
        version: http::Version::HTTP_11,
        keep_alive: false,
    };
    let answered: Pin<Box<dyn Future<Output = Written> + '_>> = Box::pin(respond(
        conn,
        stream,
        problem(status, kind, detail, &id),
        &asked,
    ));
    answered.await;
    drain::linger(conn).await;
    false
}

/// Passes on a 101 and relays bytes until either side ends. Nothing of what the client sent behind
/// its request has gone to the instance before.
async fn tunnel(
    conn: &Rc<H1Conn>,
    stream: &Stream,
    response: Response<RespBody>,
    asked: bool,
) -> End {
    let broken = End {
        outcome: Outcome::Broken,
        sent: 0,
        received: 0,
    };
    let (parts, body) = response.into_parts();
    let Origin::Tunnel(instance) = body.into_origin() else {
        return broken;
    };
    let io = conn.io.borrow_mut().take();
    let (true, Some(mut io)) = (asked, io) else {
        return broken;
    };
    let mut block = conn.worker.buffers.take();
    let websocket = HeaderValue::from_static("websocket");
    let protocol = parts
        .headers
        .get(http::header::UPGRADE)
        .unwrap_or(&websocket);
    let date = conn.worker.date.text();
    let options = ResponseOptions {
        framing: Framing::None,
        date: &date,
        connection: Connection::To(protocol),
        keep_length: false,
    };
    let Ok(n) = write_response(block.spare(), parts.status, &parts.headers, &options) else {
        return broken;
    };
    block.commit(n);
    if io.write_all(block.data()).await.is_err() {
        return End {
            outcome: Outcome::ClientGone,
            ..broken
        };
    }
    drop(block);
    let early = conn.take_block();
    relay_or_cut(conn, stream, &mut io, early, *instance).await
}

async fn relay_or_cut(
    conn: &Rc<H1Conn>,
    stream: &Stream,
    io: &mut super::io::Io,
    early: Option<super::buffers::Block>,
    instance: Tunnel,
) -> End {
    let idle = conn.worker.limits.tunnel_idle;
    let mut relayed = pin!(relay(io, early, instance, &conn.worker, idle));
    poll_fn(|cx| {
        if stream.poll_cut(cx).is_ready() {
            return Poll::Ready(End {
                outcome: Outcome::Cut,
                sent: 0,
                received: 0,
            });
        }
        relayed.as_mut().poll(cx).map(|r| End {
            outcome: Outcome::Complete,
            sent: r.to_client,
            received: r.to_instance,
        })
    })
    .await
}
