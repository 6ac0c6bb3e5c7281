//! The body of a request, on its way from a client to a service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::{BodyError, Boxed, Part, Piece, boxed, poll_foreign};
use crate::serve::h1_body::H1Body;

/// Frames between the worker and an in-process service at most: each is at most 64 KiB, so one
/// waiting and one being read keep to the limit per direction.
const PUMP_FRAMES: usize = 1;

/// The body of a request.
pub struct ReqBody {
    source: Source,
    limit: u64,
    received: u64,
}

pub(crate) enum Source {
    Empty,
    Full(Bytes),
    /// Read from an HTTP/1.1 connection as it is polled.
    H1(H1Body),
    Boxed(Boxed),
    /// Held bytes of an attempt that failed, then the rest of the original.
    Replay(Option<Bytes>, Box<ReqBody>),
}

impl ReqBody {
    #[must_use]
    pub fn empty() -> Self {
        Source::Empty.into()
    }

    /// Wraps a body of another type.
    pub fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Source::Boxed(boxed(body)).into()
    }

    pub(crate) fn replay(held: Bytes, rest: ReqBody) -> Self {
        let limit = rest.limit;
        let held = (!held.is_empty()).then_some(held);
        Self {
            limit,
            ..Source::Replay(held, Box::new(rest)).into()
        }
    }

    /// Makes the body fail with [`BodyError::TooLarge`] behind `limit` bytes.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Bytes read so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes still to come, when that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, BodyError>>> {
        let part = match &mut self.source {
            Source::Empty => return Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                if bytes.is_empty() {
                    None
                } else {
                    Some(Ok(Part::Data(Piece::Bytes(bytes))))
                }
            }
            Source::H1(body) => ready!(body.poll_part(cx)),
            Source::Boxed(body) => ready!(poll_foreign(body.as_mut(), cx)),
            Source::Replay(held, rest) => match held.take() {
                Some(bytes) => Some(Ok(Part::Data(Piece::Bytes(bytes)))),
                None => ready!(rest.poll_part(cx)),
            },
        };
        if let Some(Ok(Part::Data(piece))) = &part {
            self.received += piece.data().len() as u64;
            if self.received > self.limit {
                self.source = Source::Empty;
                return Poll::Ready(Some(Err(BodyError::TooLarge { limit: self.limit })));
            }
        }
        Poll::Ready(part)
    }

    /// The body as one that may cross threads, for an in-process service, and the pump that feeds it.
    ///
    /// The pump must be polled on this worker beside whatever reads the body; it ends with the body,
    /// or when the reader drops it. Bodies that are already whole need none.
    pub fn into_send(self) -> (axum::body::Body, Option<Pump>) {
        match self.source {
            Source::Empty => (axum::body::Body::empty(), None),
            Source::Full(bytes) if bytes.len() as u64 <= self.limit => {
                (axum::body::Body::from(bytes), None)
            }
            _ => {
                let hint = self.size_hint();
                let (sender, receiver) = mpsc::channel(PUMP_FRAMES);
                let ended = Arc::new(AtomicBool::new(false));
                let pump: Pump = Box::pin(pump(self, sender, Arc::clone(&ended)));
                (
                    axum::body::Body::new(Received {
                        receiver,
                        hint,
                        ended,
                    }),
                    Some(pump),
                )
            }
        }
    }
}

impl From<Source> for ReqBody {
    fn from(source: Source) -> Self {
        Self {
            source,
            limit: u64::MAX,
            received: 0,
        }
    }
}

impl From<Bytes> for ReqBody {
    fn from(bytes: Bytes) -> Self {
        Source::Full(bytes).into()
    }
}

impl std::fmt::Debug for ReqBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReqBody")
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Body for ReqBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().poll_part(cx).map_ok(Part::into_frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::H1(body) => body.is_end(),
            Source::Boxed(body) => body.is_end_stream(),
            Source::Replay(held, rest) => held.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::H1(body) => body.size_hint(),
            Source::Boxed(body) => body.size_hint(),
            Source::Replay(held, rest) => {
                let held = held.as_ref().map_or(0, |b| b.len() as u64);
                rest.size_hint()
                    .exact()
                    .map_or_else(SizeHint::default, |n| SizeHint::with_exact(n + held))
            }
        }
    }
}

/// Moves a request's body to an in-process service; see [`ReqBody::into_send`].
pub type Pump = Pin<Box<dyn Future<Output = ()>>>;

async fn pump(
    mut body: ReqBody,
    sender: mpsc::Sender<Result<Frame<Bytes>, BodyError>>,
    ended: Arc<AtomicBool>,
) {
    loop {
        // Room first: a frame is read only when somebody will take it.
        let Ok(room) = sender.reserve().await else {
            return;
        };
        let part = tokio::select! {
            biased;
            part = std::future::poll_fn(|cx| body.poll_part(cx)) => part,
            () = sender.closed() => return,
        };
        match part {
            None => {
                ended.store(true, Ordering::Release);
                return;
            }
            Some(Ok(part)) => room.send(Ok(part.into_frame())),
            Some(Err(e)) => {
                room.send(Err(e));
                return;
            }
        }
    }
}

struct Received {
    receiver: mpsc::Receiver<Result<Frame<Bytes>, BodyError>>,
    hint: SizeHint,
    /// The pump saw the end: without it, an empty channel means that the client went away.
    ended: Arc<AtomicBool>,
}

impl Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(self.receiver.poll_recv(cx)) {
            None if !self.ended.load(Ordering::Acquire) => {
                Poll::Ready(Some(Err(BodyError::ClientGone)))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
