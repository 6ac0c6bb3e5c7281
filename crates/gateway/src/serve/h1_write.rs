//! Writes one answer to an HTTP/1.1 client.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Method, Response, StatusCode, Version, header};
use http_body::Body;
use portico_h1::{Connection, Framing, ResponseOptions, write_response};

use super::h1_state::H1Conn;
use super::handler::{Outcome, Stream};
use super::timers::Timer;
use crate::body::{Part, Piece, RespBody};

/// What the answer depends on besides itself.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    /// The connection may carry another request, as far as is known.
    pub(super) keep_alive: bool,
}

/// How writing ended.
pub(super) struct Written {
    pub(super) outcome: Outcome,
    pub(super) sent: u64,
    /// The connection can be kept as far as the answer goes.
    pub(super) keep: bool,
    /// It broke before its first byte: another answer can take its place.
    pub(super) unsent: bool,
}

/// Writes `response`, streaming its body.
pub(super) async fn respond(
    conn: &Rc<H1Conn>,
    stream: &Stream,
    response: Response<RespBody>,
    asked: &Asked,
) -> Written {
    let (parts, body) = response.into_parts();
    let framing = framing(&parts, &body, asked);
    let keep = asked.keep_alive && framing != Framing::UntilClose;
    let bodiless = asked.method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED;
    // What the body itself says comes first.
    let keep_length = bodiless
        && !matches!(framing, Framing::Length(_))
        && parts.headers.contains_key(header::CONTENT_LENGTH);
    let mut block = conn.worker.buffers.take();
    let date = conn.worker.date.text();
    let options = ResponseOptions {
        framing,
        date: &date,
        connection: connection(keep, asked),
        keep_length,
    };
    let Ok(n) = write_response(block.spare(), parts.status, &parts.headers, &options) else {
        return Written {
            outcome: Outcome::Broken,
            sent: 0,
            keep: false,
            unsent: true,
        };
    };
    block.commit(n);
    conn.outbox.borrow_mut().push_block(block);
    let (body, framing) = if bodiless {
        (RespBody::empty(), Framing::None)
    } else {
        (body, framing)
    };
    let mut writer = Writer {
        conn,
        stream,
        body,
        framing,
        sent: 0,
        ended: false,
        waiting: false,
        stall: None,
    };
    let before = conn.outbox.borrow().written();
    let outcome = poll_fn(|cx| writer.poll(cx)).await;
    let unsent = outcome == Outcome::Broken && conn.outbox.borrow().written() == before;
    if unsent {
        conn.outbox.borrow_mut().pieces_lost();
    }
    Written {
        outcome,
        sent: writer.sent,
        keep: keep && outcome == Outcome::Complete,
        unsent,
    }
}

fn framing(parts: &http::response::Parts, body: &RespBody, asked: &Asked) -> Framing {
    if parts.status.is_informational()
        || matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
    {
        return Framing::None;
    }
    match body.size_hint().exact() {
        Some(0) => Framing::None,
        Some(n) => Framing::Length(n),
        None if asked.method == Method::HEAD => Framing::None,
        None if asked.version == Version::HTTP_10 => Framing::UntilClose,
        None => Framing::Chunked,
    }
}

fn connection(keep: bool, asked: &Asked) -> Connection<'static> {
    match (keep, asked.version) {
        (true, Version::HTTP_10) => Connection::KeepAlive,
        (true, _) => Connection::Keep,
        (false, _) => Connection::Close,
    }
}

struct Writer<'a> {
    conn: &'a Rc<H1Conn>,
    stream: &'a Stream,
    body: RespBody,
    framing: Framing,
    sent: u64,
    ended: bool,
    /// The body had nothing when last asked.
    waiting: bool,
    stall: Option<Timer>,
}

impl Writer<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            // The first piece goes out together with the head.
            if !self.ended {
                match self.poll_body(cx) {
                    Poll::Ready(Ok(())) => self.waiting = false,
                    Poll::Ready(Err(outcome)) => return Poll::Ready(outcome),
                    Poll::Pending => self.waiting = true,
                }
            }
            match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(outcome)) => return Poll::Ready(outcome),
                Poll::Pending => {
                    self.body.poll_pump(cx);
                    return Poll::Pending;
                }
            }
            if self.ended {
                return Poll::Ready(Outcome::Complete);
            }
            if self.waiting {
                if self.stream.poll_cut(cx).is_ready() {
                    return Poll::Ready(Outcome::Cut);
                }
                if self.conn.poll_gone(cx).is_ready() {
                    return Poll::Ready(Outcome::ClientGone);
                }
                return Poll::Pending;
            }
        }
    }

    /// Moves one part of the body into the outbox, if that has room.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        if self.framing == Framing::None {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        match self.body.poll_part(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(Part::Data(piece)))) => Poll::Ready(self.push(piece)),
            Poll::Ready(Some(Ok(Part::Trailers(trailers)))) => {
                if self.framing == Framing::Chunked {
                    let end = portico_h1::write_trailers(&trailers);
                    self.conn.outbox.borrow_mut().push(Piece::Bytes(end.into()));
                    self.ended = true;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Err(Outcome::Broken)),
            Poll::Ready(None) => Poll::Ready(self.end()),
        }
    }

    fn push(&mut self, piece: Piece) -> Result<(), Outcome> {
        let n = piece.data().len() as u64;
        self.sent += n;
        let last = self.body.is_end_stream();
        let mut outbox = self.conn.outbox.borrow_mut();
        match self.framing {
            Framing::Chunked => {
                outbox.push_chunk(piece, last, &self.conn.worker.buffers);
                self.ended = last;
            }
            Framing::Length(length) => {
                // A body longer than it said would be read as the next answer.
                if self.sent > length {
                    return Err(Outcome::Broken);
                }
                outbox.push(piece);
                self.ended = self.sent == length;
            }
            Framing::UntilClose | Framing::None => outbox.push(piece),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Outcome> {
        self.ended = true;
        match self.framing {
            Framing::Length(length) if self.sent < length => Err(Outcome::Broken),
            Framing::Chunked => {
                self.conn.outbox.borrow_mut().push_last_chunk();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes the outbox; the client must take something of it in time.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        let mut outbox = self.conn.outbox.borrow_mut();
        if outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut io = self.conn.io.borrow_mut();
        let Some(io) = io.as_mut() else {
            return Poll::Ready(Err(Outcome::ClientGone));
        };
        let before = outbox.written();
        match outbox.poll_flush(io, cx) {
            Poll::Ready(Ok(())) => {
                if let Some(stall) = &self.stall {
                    stall.clear();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Outcome::ClientGone)),
            Poll::Pending => {
                let fresh = outbox.written() != before;
                let stall = self
                    .stall
                    .get_or_insert_with(|| self.conn.worker.timers.timer());
                if fresh || !stall.is_set() {
                    stall.set(self.conn.worker.limits.write_stall);
                }
                if self.stream.poll_cut(cx).is_ready() {
                    return Poll::Ready(Err(Outcome::Cut));
                }
                if stall.poll(cx).is_ready() {
                    Poll::Ready(Err(Outcome::ClientGone))
                } else {
                    Poll::Pending
                }
            }
        }
    }
}
