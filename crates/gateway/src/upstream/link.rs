//! One HTTP/1.1 connection to an instance and the exchange that runs on it.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::{Body, SizeHint};
use portico_h1::{
    BodyDecoder, Framing, HeadScan, Limits, RequestLine, ResponseHead, parse_response,
    write_request,
};
use smallvec::SmallVec;

use super::pool::Permit;
use super::{SendErrorKind, SendOptions, TimeoutKind};
use crate::body::{BodyError, Part, Piece, ReqBody};
use crate::serve::Worker;
use crate::serve::buffers::Block;
use crate::serve::io::Io;
use crate::serve::outbox::Outbox;
use crate::serve::timers::Timer;

/// Bytes of a request's body that are held so that it can be sent again.
const HELD: usize = 64 * 1024;

/// A connection to an instance. Between exchanges it lies in its pool and owns no buffer.
pub(crate) struct Link {
    io: Io,
    worker: Rc<Worker>,
    timer: Timer,
    permit: Permit,
    /// Ticks at which it is not used again, because of its age and because it was idle.
    old_at: u32,
    idle_until: u32,
    idle_life: Duration,
    used: bool,
    reusable: bool,
    outbox: Outbox,
    body: ReqBody,
    sending: Sending,
    held: Held,
    input: Option<Block>,
    seen: bool,
    scan: HeadScan,
    decoder: BodyDecoder,
    trailers: Option<HeaderMap>,
    ended: bool,
    first_byte: Duration,
    between: Duration,
}

/// Where the request's body stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// So many bytes are still owed.
    Length(u64),
    Chunked,
    /// All is in the outbox or written.
    Done,
    /// Writing failed: the answer may still come, the connection is not used again.
    Broken,
}

enum Held {
    /// Nothing has left yet, or all that has is here.
    Pieces(SmallVec<[Bytes; 1]>, usize),
    Lost,
}

impl Link {
    pub(super) fn new(
        io: Io,
        worker: &Rc<Worker>,
        permit: Permit,
        max_age: Duration,
        idle_life: Duration,
    ) -> Box<Self> {
        Box::new(Self {
            io,
            worker: Rc::clone(worker),
            timer: worker.timers.timer(),
            permit,
            old_at: worker.timers.tick_after(max_age),
            idle_until: u32::MAX,
            idle_life,
            used: false,
            reusable: false,
            outbox: Outbox::default(),
            body: ReqBody::empty(),
            sending: Sending::Done,
            held: Held::Lost,
            input: None,
            seen: false,
            scan: HeadScan::default(),
            decoder: BodyDecoder::new(Framing::None),
            trailers: None,
            ended: false,
            first_byte: Duration::ZERO,
            between: Duration::ZERO,
        })
    }

    /// True when it lay in a pool before this exchange.
    pub(super) fn is_reused(&self) -> bool {
        self.used
    }

    pub(super) fn is_expired(&self, now: u32) -> bool {
        now >= self.idle_until || now >= self.old_at
    }

    /// False when it is too old, or something waits in it: the end, or an answer nobody asked for.
    pub(super) fn is_usable(&self, now: u32, cx: &mut Context<'_>) -> bool {
        !self.is_expired(now) && !self.io.seems_readable(cx)
    }

    pub(super) fn is_readable_now(&self) -> bool {
        self.io.is_readable_now()
    }

    /// Bytes of the request that the kernel took.
    pub(super) fn written(&self) -> u64 {
        self.outbox.written()
    }

    /// True once a byte of an answer was seen.
    pub(super) fn has_seen_answer(&self) -> bool {
        self.seen
    }

    /// Puts a request into the outbox; nothing is written yet.
    ///
    /// # Errors
    /// `HeadTooLarge`.
    pub(super) fn begin(
        &mut self,
        parts: &http::request::Parts,
        body: ReqBody,
        upgrade: Option<&http::HeaderValue>,
        options: &SendOptions,
    ) -> Result<(), SendErrorKind> {
        let framing = framing_of(&body);
        self.outbox.reset();
        self.sending = match framing {
            Framing::None | Framing::UntilClose => Sending::Done,
            Framing::Length(n) => Sending::Length(n),
            Framing::Chunked => Sending::Chunked,
        };
        self.body = body;
        self.held = Held::Pieces(SmallVec::new(), if options.hold_body { HELD } else { 0 });
        self.input = None;
        self.seen = false;
        self.scan = HeadScan::default();
        self.trailers = None;
        self.ended = false;
        self.reusable = false;
        (self.first_byte, self.between) = (options.first_byte, options.between_bytes);
        let mut block = self.worker.buffers.take();
        let line = RequestLine {
            method: &parts.method,
            uri: &parts.uri,
            framing,
            upgrade,
        };
        let n = write_request(block.spare(), &line, &parts.headers)
            .map_err(|_| SendErrorKind::HeadTooLarge)?;
        block.commit(n);
        self.outbox.push_block(block);
        self.timer.set(self.first_byte);
        Ok(())
    }

    /// The body as it was before the exchange, if that is still possible.
    pub(super) fn take_back(&mut self) -> Option<ReqBody> {
        let body = std::mem::replace(&mut self.body, ReqBody::empty());
        match std::mem::replace(&mut self.held, Held::Lost) {
            Held::Lost => None,
            Held::Pieces(pieces, _) if pieces.is_empty() => Some(body),
            Held::Pieces(mut pieces, _) if pieces.len() == 1 => {
                Some(ReqBody::replay(std::mem::take(&mut pieces[0]), body))
            }
            Held::Pieces(pieces, _) => Some(ReqBody::replay(Bytes::from(pieces.concat()), body)),
        }
    }

    /// Sends what can be sent and reads until the answer's head is whole.
    pub(super) fn poll_head(
        &mut self,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendErrorKind>> {
        if let Poll::Ready(Err(e)) = self.poll_send(cx) {
            return Poll::Ready(Err(SendErrorKind::RequestBody(e)));
        }
        loop {
            if let Some(head) = self.parse_head(method)? {
                return Poll::Ready(Ok(head));
            }
            let mut block = self
                .input
                .take()
                .unwrap_or_else(|| self.worker.buffers.take());
            let read = self.io.poll_fill(cx, block.spare());
            match read {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.seen = true;
                    block.commit(n);
                    self.input = Some(block);
                }
                // An end in the middle of a head is no valid answer, but as dead as one before it.
                Poll::Ready(_) => return Poll::Ready(Err(SendErrorKind::Reset)),
                Poll::Pending => {
                    if !block.is_empty() {
                        self.input = Some(block);
                    }
                    if self.timer.poll(cx).is_ready() {
                        return Poll::Ready(Err(SendErrorKind::Timeout(TimeoutKind::FirstByte)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes a whole head out of the input; interim answers are skipped.
    fn parse_head(&mut self, method: &Method) -> Result<Option<ResponseHead>, SendErrorKind> {
        while let Some(block) = &mut self.input {
            let found = self.scan.advance(block.data(), &Limits::default());
            let Some((start, end)) = found.map_err(|e| SendErrorKind::Invalid(e.kind()))? else {
                return Ok(None);
            };
            let bytes = Bytes::copy_from_slice(&block.data()[start..end]);
            let head =
                parse_response(&bytes, method).map_err(|e| SendErrorKind::Invalid(e.kind()))?;
            block.advance(end);
            if block.is_empty() {
                self.input = None;
            }
            self.scan = HeadScan::default();
            if head.status.is_informational()
                && head.status != http::StatusCode::SWITCHING_PROTOCOLS
            {
                continue;
            }
            self.adopt(&head);
            return Ok(Some(head));
        }
        Ok(None)
    }

    fn adopt(&mut self, head: &ResponseHead) {
        self.reusable = head.keep_alive;
        self.decoder = BodyDecoder::new(head.framing);
        self.ended = self.decoder.is_done();
        if let Some(seconds) = head.keep_alive_timeout {
            self.idle_life = Duration::from_secs(u64::from(seconds.saturating_sub(1)));
        }
        self.timer.set(self.between);
    }

    /// Writes the request. Ready when all of it is with the kernel, or writing is over for another
    /// reason; an error is the request's own body's.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            if !self.outbox.is_empty() {
                let before = self.outbox.written();
                let flushed = self.outbox.poll_flush(&mut self.io, cx);
                if self.outbox.written() != before && !self.seen {
                    self.timer.set(self.first_byte);
                }
                if let Err(_gone) = ready!(flushed) {
                    self.outbox.pieces_lost();
                    self.sending = Sending::Broken;
                }
            }
            match self.sending {
                Sending::Done | Sending::Broken => return Poll::Ready(Ok(())),
                Sending::Length(_) | Sending::Chunked => {}
            }
            let part = ready!(self.body.poll_part(cx));
            if let Err(e) = self.take_part(part) {
                self.sending = Sending::Broken;
                return Poll::Ready(Err(e));
            }
        }
    }

    fn take_part(&mut self, part: Option<Result<Part, BodyError>>) -> Result<(), BodyError> {
        match (part.transpose()?, self.sending) {
            (Some(Part::Data(piece)), Sending::Length(owed)) => {
                self.hold(&piece);
                let n = piece.data().len() as u64;
                // A body that says one length and is another must not become a second request.
                let left = owed.checked_sub(n).ok_or(BodyError::Framing {
                    kind: "body_too_long",
                })?;
                self.sending = if left == 0 {
                    Sending::Done
                } else {
                    Sending::Length(left)
                };
                self.outbox.push(piece);
            }
            (Some(Part::Data(piece)), _) => {
                self.hold(&piece);
                self.outbox.push_chunk(piece, false, &self.worker.buffers);
            }
            (Some(Part::Trailers(trailers)), Sending::Chunked) => {
                self.held = Held::Lost;
                self.outbox
                    .push(Piece::Bytes(portico_h1::write_trailers(&trailers).into()));
                self.sending = Sending::Done;
            }
            (None, Sending::Length(_)) => {
                return Err(BodyError::Framing {
                    kind: "body_too_short",
                });
            }
            (None, _) => {
                self.outbox.push_last_chunk();
                self.sending = Sending::Done;
            }
            (Some(Part::Trailers(_)), _) => {}
        }
        Ok(())
    }

    fn hold(&mut self, piece: &Piece) {
        let Held::Pieces(pieces, room) = &mut self.held else {
            return;
        };
        match room.checked_sub(piece.data().len()) {
            Some(left) => {
                *room = left;
                pieces.push(match piece {
                    Piece::Bytes(bytes) => bytes.clone(),
                    Piece::Block(block) => Bytes::copy_from_slice(block.data()),
                });
            }
            None => self.held = Held::Lost,
        }
    }

    /// Keeps the request's body moving; its errors end the answer too.
    pub(crate) fn poll_pump(&mut self, cx: &mut Context<'_>) {
        if self.sending != Sending::Broken
            && self.poll_send(cx).map(|sent| sent.is_err()) == Poll::Ready(true)
        {
            self.sending = Sending::Broken;
        }
    }

    /// The next part of the answer's body.
    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, BodyError>>> {
        if self.sending != Sending::Done || !self.outbox.is_empty() {
            self.poll_pump(cx);
        }
        while !self.ended {
            let mut block = match self.input.take() {
                Some(block) => block,
                None => match ready!(self.poll_block(cx)) {
                    Ok(Some(block)) => block,
                    Ok(None) => break,
                    Err(e) => return Poll::Ready(Some(Err(e))),
                },
            };
            match self.decode(&mut block) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Some(Ok(Part::Data(Piece::Block(block))))),
                Err(e) => return Poll::Ready(Some(Err(e))),
            }
        }
        Poll::Ready(self.trailers.take().map(|t| Ok(Part::Trailers(t))))
    }

    /// Reads one block; `None` is the end of a body that ends with the connection.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Block>, BodyError>> {
        let mut block = self.worker.buffers.take();
        match self.io.poll_fill(cx, block.spare()) {
            Poll::Ready(Ok(0)) => {
                self.reusable = false;
                self.ended = true;
                Poll::Ready(
                    self.decoder
                        .end_of_input()
                        .map(|()| None)
                        .map_err(|_| BodyError::UpstreamGone),
                )
            }
            Poll::Ready(Ok(n)) => {
                block.commit(n);
                self.timer.set(self.between);
                Poll::Ready(Ok(Some(block)))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(BodyError::UpstreamGone)),
            Poll::Pending if self.timer.poll(cx).is_ready() => Poll::Ready(Err(BodyError::TooSlow)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Narrows a block to the body's bytes in it; false when there are none.
    fn decode(&mut self, block: &mut Block) -> Result<bool, BodyError> {
        let total = block.len();
        let step = self
            .decoder
            .decode(block.data_mut())
            .map_err(|e| BodyError::Framing { kind: e.kind() })?;
        if step.done {
            self.ended = true;
            self.trailers = self
                .decoder
                .take_trailers()
                .map_err(|e| BodyError::Framing { kind: e.kind() })?;
        }
        if step.consumed < total {
            // An answer that nobody asked for (response-queue poisoning).
            self.reusable = false;
        }
        block.narrow(step.start, step.len);
        Ok(step.len > 0)
    }

    /// Changes the limit between two reads of the answer.
    pub(crate) fn set_between(&mut self, between: Duration) {
        self.between = between;
        self.timer.set(between);
    }

    /// True when nothing more will come.
    pub(crate) fn is_end(&self) -> bool {
        self.ended && self.trailers.is_none()
    }

    /// True when the answer has ended and the request is with the kernel whole.
    fn is_clean(&self) -> bool {
        self.reusable
            && self.is_end()
            && self.sending == Sending::Done
            && self.outbox.is_empty()
            && self.input.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.decoder.remaining() {
            Some(n) => SizeHint::with_exact(n),
            None => SizeHint::default(),
        }
    }

    /// Gives the connection back to its pool when it can carry another exchange, else closes it.
    pub(crate) fn release(mut self: Box<Self>) {
        if !self.is_clean() || self.worker.is_draining() {
            return;
        }
        self.used = true;
        self.held = Held::Lost;
        self.body = ReqBody::empty();
        self.timer.clear();
        self.idle_until = self
            .worker
            .timers
            .tick_after(self.idle_life)
            .saturating_sub(1);
        let pool = Rc::clone(self.permit.pool());
        pool.put_idle(self);
    }

    pub(super) fn into_tunnel(self) -> (Io, Option<Block>, Permit) {
        (self.io, self.input, self.permit)
    }
}

/// How a body of ours is framed.
fn framing_of(body: &ReqBody) -> Framing {
    if body.is_end_stream() {
        return Framing::None;
    }
    match body.size_hint().exact() {
        Some(0) => Framing::None,
        Some(n) => Framing::Length(n),
        None => Framing::Chunked,
    }
}
