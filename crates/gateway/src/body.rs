//! Request and response bodies of the data plane: concrete enums, streamed, never buffered whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::serve::buffers::Block;

mod request;
mod response;
#[cfg(test)]
mod tests;

pub(crate) use request::Source;
pub use request::{Pump, ReqBody};
pub(crate) use response::Origin;
pub use response::RespBody;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client closed its connection, or reset its stream.
    #[error("the client went away")]
    ClientGone,
    /// The client sent less than the allowed minimum, or a service less than one byte, for too long.
    #[error("the body came too slowly")]
    TooSlow,
    /// The body is longer than `limit` bytes.
    #[error("the body is longer than {limit} bytes")]
    TooLarge { limit: u64 },
    /// The framing is broken; `kind` is the metric label.
    #[error("the body's framing is broken: {kind}")]
    Framing { kind: &'static str },
    /// The instance closed or reset its connection in the middle.
    #[error("the instance went away in the middle of its answer")]
    UpstreamGone,
    /// The stream was cut by us: drain deadline, revoked session.
    #[error("the stream was cut")]
    Cut,
    #[error("the body could not be read or written")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl BodyError {
    /// Finds a `BodyError` inside an error that other layers wrapped.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(e) = next {
            if let Some(found) = e.downcast_ref() {
                return Some(found);
            }
            next = e.source();
        }
        None
    }
}

/// A run of body bytes: shared, or the block they were read into.
pub(crate) enum Piece {
    Bytes(Bytes),
    Block(Block),
}

impl Piece {
    pub(crate) fn data(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Block(block) => block.data(),
        }
    }

    pub(crate) fn advance(&mut self, n: usize) {
        match self {
            Self::Bytes(bytes) => {
                let n = n.min(bytes.len());
                let _gone = bytes.split_to(n);
            }
            Self::Block(block) => block.advance(n),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.data().is_empty()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Block(block) => Bytes::copy_from_slice(block.data()),
        }
    }
}

/// What a body yields inside the data plane, without copying.
pub(crate) enum Part {
    Data(Piece),
    Trailers(HeaderMap),
}

impl Part {
    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(piece) => Frame::data(piece.into_bytes()),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    /// A frame of another body type as a part; frames of unknown kinds are skipped.
    fn from_frame(frame: Frame<Bytes>) -> Option<Self> {
        match frame.into_data() {
            Ok(data) => Some(Self::Data(Piece::Bytes(data))),
            Err(frame) => frame.into_trailers().ok().map(Self::Trailers),
        }
    }
}

/// A body of any other type, with its error made ours.
pub(crate) type Boxed = Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>>;

/// Boxes a body whose error is any error; a `BodyError` inside it is kept.
pub(crate) fn boxed<B>(body: B) -> Boxed
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Box::pin(Foreign(Box::pin(body)))
}

struct Foreign<B>(Pin<Box<B>>);

impl<B> Body for Foreign<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0
            .as_mut()
            .poll_frame(cx)
            .map_err(|e| match e.into().downcast::<BodyError>() {
                Ok(ours) => *ours,
                Err(other) => BodyError::Other(other),
            })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Polls a boxed or foreign body for its next known part.
fn poll_foreign<B>(
    mut body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Part, B::Error>>>
where
    B: Body<Data = Bytes> + ?Sized,
{
    loop {
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(part) = Part::from_frame(frame) {
                    return Poll::Ready(Some(Ok(part)));
                }
            }
            Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(e))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}
