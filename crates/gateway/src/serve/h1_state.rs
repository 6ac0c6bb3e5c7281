//! A client's HTTP/1.1 connection: what its driver and the body of its current request share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use portico_h1::{BodyDecoder, CONTINUE, Framing, HeadScan, RequestHead, parse_request};

use super::buffers::Block;
use super::io::Io;
use super::outbox::Outbox;
use super::pace::Pace;
use super::timers::Timer;
use super::worker::Worker;
use crate::body::{BodyError, Part, Piece};

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Input up to this size is moved out of its block while nobody reads it.
const PARK: usize = 16 * 1024;

pub(crate) struct H1Conn {
    pub(super) worker: Rc<Worker>,
    /// `None` once the connection was taken over by a tunnel or HTTP/2.
    pub(super) io: RefCell<Option<Io>>,
    pub(super) outbox: RefCell<Outbox>,
    /// For the head and for the time between requests.
    pub(super) timer: Timer,
    input: RefCell<Input>,
    scan: Cell<HeadScan>,
    body: RefCell<BodyState>,
    /// Counts requests, so that a body that outlives its request reads nothing of the next.
    turn: Cell<u64>,
    received: Cell<u64>,
    broken: Cell<bool>,
}

enum Input {
    None,
    Block(Block),
    /// Bytes that wait for more, in no more memory than they need.
    Parked(Vec<u8>),
}

struct BodyState {
    decoder: BodyDecoder,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The client waits for `100 Continue`.
    owes_continue: bool,
    pace: Option<Box<Pace>>,
    fault: Option<&'static str>,
}

/// What came instead of a head.
pub(super) enum NoHead {
    /// The end, an idle connection's time, a drain: nothing to answer.
    Closed,
    Http2,
    Timeout,
    Bad(portico_h1::Error),
}

impl H1Conn {
    pub(super) fn new(io: Io, worker: &Rc<Worker>) -> Rc<Self> {
        Rc::new(Self {
            worker: Rc::clone(worker),
            io: RefCell::new(Some(io)),
            outbox: RefCell::default(),
            timer: worker.timers.timer(),
            input: RefCell::new(Input::None),
            scan: Cell::default(),
            body: RefCell::new(BodyState::new(Framing::None, false)),
            turn: Cell::new(0),
            received: Cell::new(0),
            broken: Cell::new(false),
        })
    }

    /// Reads until a head is whole. `first` allows an HTTP/2 preface instead.
    pub(super) fn poll_head(
        &self,
        first: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RequestHead, NoHead>> {
        loop {
            if let Some(result) = self.try_head(first) {
                return Poll::Ready(result);
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHead::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    self.park();
                    let begun = self.has_input();
                    if self.timer.poll(cx).is_ready() {
                        return Poll::Ready(Err(if begun {
                            NoHead::Timeout
                        } else {
                            NoHead::Closed
                        }));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn try_head(&self, first: bool) -> Option<Result<RequestHead, NoHead>> {
        let mut input = self.input.borrow_mut();
        let data = input.data();
        if data.is_empty() {
            return None;
        }
        if first && data.len() >= 3 && PREFACE.starts_with(&data[..data.len().min(PREFACE.len())]) {
            return (data.len() >= PREFACE.len()).then_some(Err(NoHead::Http2));
        }
        let mut scan = self.scan.get();
        if scan.is_fresh() {
            self.timer.set(self.worker.limits.header_time);
        }
        let found = scan.advance(data, &self.worker.limits.head);
        self.scan.set(scan);
        match found {
            Err(e) => Some(Err(NoHead::Bad(e))),
            Ok(None) => None,
            Ok(Some((start, end))) => {
                let bytes = Bytes::copy_from_slice(&data[start..end]);
                input.advance(end);
                self.scan.set(HeadScan::default());
                Some(parse_request(&bytes).map_err(NoHead::Bad))
            }
        }
    }

    /// Prepares for the body of a request whose head was read.
    pub(super) fn begin_body(&self, framing: Framing, expects_continue: bool) {
        self.turn.set(self.turn.get() + 1);
        self.received.set(0);
        *self.body.borrow_mut() = BodyState::new(framing, expects_continue);
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn.get()
    }

    /// The whole body, when it is short and already here.
    pub(super) fn take_whole_body(&self, length: u64) -> Option<Bytes> {
        let mut input = self.input.borrow_mut();
        let data = input.data();
        let length = usize::try_from(length)
            .ok()
            .filter(|n| *n <= data.len() && *n <= PARK)?;
        let bytes = Bytes::copy_from_slice(&data[..length]);
        input.advance(length);
        self.received.set(length as u64);
        *self.body.borrow_mut() = BodyState::new(Framing::None, false);
        Some(bytes)
    }

    /// The next part of the current request's body.
    pub(super) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, BodyError>>> {
        let mut body = self.body.borrow_mut();
        let body = &mut *body;
        if body.fault.is_some() || self.broken.get() {
            return Poll::Ready(Some(Err(self.fault(body))));
        }
        self.send_continue(body, cx);
        while !body.ended {
            if !self.has_input() {
                match self.poll_read(cx) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    Poll::Ready(_) => {
                        self.broken.set(true);
                        return Poll::Ready(Some(Err(BodyError::ClientGone)));
                    }
                    Poll::Pending => {
                        let pace = body
                            .pace
                            .get_or_insert_with(|| Box::new(Pace::new(&self.worker)));
                        if pace.poll_wait(self.worker.timers.now(), cx).is_ready() {
                            self.broken.set(true);
                            return Poll::Ready(Some(Err(BodyError::TooSlow)));
                        }
                        return Poll::Pending;
                    }
                }
            }
            match self.decode(body) {
                Ok(None) => {}
                Ok(Some(block)) => return Poll::Ready(Some(Ok(Part::Data(Piece::Block(block))))),
                Err(kind) => {
                    body.fault = Some(kind);
                    return Poll::Ready(Some(Err(BodyError::Framing { kind })));
                }
            }
        }
        Poll::Ready(body.trailers.take().map(|t| Ok(Part::Trailers(t))))
    }

    fn fault(&self, body: &BodyState) -> BodyError {
        body.fault
            .map_or(BodyError::ClientGone, |kind| BodyError::Framing { kind })
    }

    fn send_continue(&self, body: &mut BodyState, cx: &mut Context<'_>) {
        if std::mem::take(&mut body.owes_continue) && !self.has_input() {
            self.outbox.borrow_mut().push_static(CONTINUE);
        }
        // What does not fit now is flushed before the answer, or by the next poll.
        if let (Ok(mut outbox), Ok(mut io)) =
            (self.outbox.try_borrow_mut(), self.io.try_borrow_mut())
            && !outbox.is_empty()
            && outbox.is_interim()
            && let Some(io) = io.as_mut()
        {
            let _later = outbox.poll_flush(io, cx);
        }
    }

    /// Takes the input and narrows it to the body's bytes; what follows the body stays.
    fn decode(&self, body: &mut BodyState) -> Result<Option<Block>, &'static str> {
        let Some(mut block) = self.take_block() else {
            return Ok(None);
        };
        let total = block.len();
        let step = body
            .decoder
            .decode(block.data_mut())
            .map_err(portico_h1::Error::kind)?;
        if let Some(pace) = &mut body.pace {
            pace.note(step.consumed as u64, self.worker.timers.now());
        }
        if step.consumed < total {
            *self.input.borrow_mut() = Input::Parked(block.data()[step.consumed..].to_vec());
        }
        if step.done {
            body.ended = true;
            body.pace = None;
            body.trailers = body
                .decoder
                .take_trailers()
                .map_err(portico_h1::Error::kind)?;
        }
        block.narrow(step.start, step.len);
        self.received.set(self.received.get() + step.len as u64);
        Ok((step.len > 0).then_some(block))
    }

    /// Bytes of the body still to come, when known.
    pub(super) fn body_remaining(&self) -> Option<u64> {
        self.body.borrow().decoder.remaining()
    }

    /// True when the current request's body was read to its end.
    pub(super) fn is_body_ended(&self) -> bool {
        let body = self.body.borrow();
        body.ended && body.trailers.is_none()
    }

    /// True when the connection can go on behind the current request's body.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.body.borrow().ended && !self.broken.get()
    }

    /// Bytes of the current request's body that were read, without framing.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// The label of what was wrong with the current request's body.
    pub(super) fn body_fault(&self) -> Option<&'static str> {
        self.body.borrow().fault
    }

    pub(super) fn is_waiting_for_continue(&self) -> bool {
        self.body.borrow().owes_continue
    }

    /// Ready when the client has gone while its answer is being made. What it sends early is kept.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.broken.get() {
            return Poll::Ready(());
        }
        if !self.is_body_ended() || self.has_input() {
            return Poll::Pending;
        }
        match ready!(self.poll_read(cx)) {
            Ok(n) if n > 0 => {
                self.park();
                Poll::Pending
            }
            _ => {
                self.broken.set(true);
                Poll::Ready(())
            }
        }
    }

    pub(super) fn has_input(&self) -> bool {
        !self.input.borrow().data().is_empty()
    }

    /// Reads once, behind what is there.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut io = self.io.borrow_mut();
        let Some(io) = io.as_mut() else {
            return Poll::Ready(Ok(0));
        };
        let mut block = self
            .take_block()
            .unwrap_or_else(|| self.worker.buffers.take());
        let read = io.poll_fill(cx, block.spare());
        if let Poll::Ready(Ok(n)) = read {
            block.commit(n);
        }
        if !block.is_empty() {
            *self.input.borrow_mut() = Input::Block(block);
        }
        read
    }

    pub(super) fn take_block(&self) -> Option<Block> {
        match std::mem::replace(&mut *self.input.borrow_mut(), Input::None) {
            Input::None => None,
            Input::Block(block) => (!block.is_empty()).then_some(block),
            Input::Parked(bytes) => {
                let mut block = self.worker.buffers.take();
                block.push(&bytes);
                Some(block)
            }
        }
    }

    /// Moves waiting input into memory of its own size, so that the block is free for others.
    pub(super) fn park(&self) {
        let mut input = self.input.borrow_mut();
        if let Input::Block(block) = &*input {
            *input = if block.is_empty() {
                Input::None
            } else if block.len() <= PARK {
                Input::Parked(block.data().to_vec())
            } else {
                return;
            };
        }
    }
}

impl BodyState {
    fn new(framing: Framing, owes_continue: bool) -> Self {
        let decoder = BodyDecoder::new(framing);
        let ended = decoder.is_done();
        Self {
            decoder,
            trailers: None,
            ended,
            owes_continue: owes_continue && !ended,
            pace: None,
            fault: None,
        }
    }
}

impl Input {
    fn data(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Block(block) => block.data(),
            Self::Parked(bytes) => bytes,
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::None => {}
            Self::Block(block) => block.advance(n),
            Self::Parked(bytes) => {
                bytes.drain(..n.min(bytes.len()));
            }
        }
        if self.data().is_empty() {
            *self = Self::None;
        }
    }
}
