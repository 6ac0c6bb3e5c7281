//! The body of an answer, on its way from a service to a client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{BodyError, Boxed, Part, Piece, Pump, boxed, poll_foreign};
use crate::upstream::{Link, Streamed, Tunnel};

/// The body of an answer.
pub struct RespBody(Origin);

pub(crate) enum Origin {
    Empty,
    Full(Bytes),
    /// Read from an instance's connection as it is polled; owns that connection and what is left of
    /// the request's body.
    Upstream(Box<Link>),
    /// The same over HTTP/2.
    Streamed(Box<Streamed>),
    Boxed(Boxed),
    /// As `Boxed`, with the pump that still feeds the service the request's body.
    Pumped(Boxed, Pump),
    /// Not a body: the instance switched protocols, the bytes are relayed both ways.
    Tunnel(Box<Tunnel>),
}

impl RespBody {
    #[must_use]
    pub fn empty() -> Self {
        Self(Origin::Empty)
    }

    /// Wraps a body of another type: an in-process service's, a cached one, one that copies what
    /// passes through it.
    pub fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self(Origin::Boxed(boxed(body)))
    }

    /// As [`RespBody::boxed`], polling the pump of [`super::ReqBody::into_send`] beside it.
    pub fn pumped<B>(body: B, pump: Pump) -> Self
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self(Origin::Pumped(boxed(body), pump))
    }

    /// True for the answer to a switch of protocols (101): it must be passed on untouched.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        matches!(self.0, Origin::Tunnel(_))
    }

    /// Changes how long an instance may say nothing in the middle of this answer, once its kind is
    /// known: event streams may be silent for longer than downloads. Other bodies have no limit.
    pub fn set_between_bytes(&mut self, limit: Duration) {
        match &mut self.0 {
            Origin::Upstream(link) => link.set_between(limit),
            Origin::Streamed(body) => body.set_between(limit),
            Origin::Empty
            | Origin::Full(_)
            | Origin::Boxed(_)
            | Origin::Pumped(..)
            | Origin::Tunnel(_) => {}
        }
    }

    /// True when the source of the answer may still be reading the request's body.
    pub(crate) fn may_read_request(&self) -> bool {
        matches!(
            self.0,
            Origin::Upstream(_) | Origin::Streamed(_) | Origin::Boxed(_) | Origin::Pumped(..)
        )
    }

    pub(crate) fn into_origin(self) -> Origin {
        self.0
    }

    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, BodyError>>> {
        match &mut self.0 {
            Origin::Empty | Origin::Tunnel(_) => Poll::Ready(None),
            Origin::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Origin::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Part::Data(Piece::Bytes(bytes)))))
            }
            Origin::Upstream(link) => {
                let part = link.poll_part(cx);
                // The connection is free for others as soon as its last byte was read.
                if link.is_end()
                    && let Origin::Upstream(link) = std::mem::replace(&mut self.0, Origin::Empty)
                {
                    link.release();
                }
                part
            }
            Origin::Streamed(body) => poll_foreign(Pin::new(&mut **body), cx),
            Origin::Boxed(body) => poll_foreign(body.as_mut(), cx),
            Origin::Pumped(body, pump) => {
                let pumped = pump.as_mut().poll(cx).is_ready();
                let part = poll_foreign(body.as_mut(), cx);
                if pumped
                    && let Origin::Pumped(body, _) = std::mem::replace(&mut self.0, Origin::Empty)
                {
                    self.0 = Origin::Boxed(body);
                }
                part
            }
        }
    }

    /// Keeps the request's body moving while the client does not read the answer.
    pub(crate) fn poll_pump(&mut self, cx: &mut Context<'_>) {
        match &mut self.0 {
            Origin::Upstream(body) => body.poll_pump(cx),
            Origin::Pumped(_, pump) => {
                if pump.as_mut().poll(cx).is_ready()
                    && let Origin::Pumped(body, _) = std::mem::replace(&mut self.0, Origin::Empty)
                {
                    self.0 = Origin::Boxed(body);
                }
            }
            Origin::Empty
            | Origin::Full(_)
            | Origin::Streamed(_)
            | Origin::Boxed(_)
            | Origin::Tunnel(_) => {}
        }
    }

    /// Reads the whole body, for small ones that must be looked at: `TooLarge` above `limit`.
    ///
    /// # Errors
    /// The body's own error, or `TooLarge`.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut whole: Option<Bytes> = None;
        let mut many: Vec<u8> = Vec::new();
        while let Some(part) = std::future::poll_fn(|cx| self.poll_part(cx)).await {
            let Part::Data(piece) = part? else { continue };
            if many.len() + whole.as_ref().map_or(0, Bytes::len) + piece.data().len() > limit {
                return Err(BodyError::TooLarge {
                    limit: limit as u64,
                });
            }
            match whole.take() {
                None if many.is_empty() => whole = Some(piece.into_bytes()),
                first => {
                    many.extend_from_slice(&first.unwrap_or_default());
                    many.extend_from_slice(piece.data());
                }
            }
        }
        Ok(whole.unwrap_or_else(|| Bytes::from(many)))
    }
}

impl From<Origin> for RespBody {
    fn from(origin: Origin) -> Self {
        Self(origin)
    }
}

impl From<Bytes> for RespBody {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() {
            Origin::Empty
        } else {
            Origin::Full(bytes)
        })
    }
}

impl From<Vec<u8>> for RespBody {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for RespBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for RespBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl Default for RespBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl std::fmt::Debug for RespBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RespBody")
            .field("size", &self.size_hint().exact())
            .finish_non_exhaustive()
    }
}

impl Body for RespBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let part = ready!(self.get_mut().poll_part(cx));
        Poll::Ready(part.map(|part| part.map(Part::into_frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Origin::Empty | Origin::Tunnel(_) => true,
            Origin::Full(bytes) => bytes.is_empty(),
            Origin::Upstream(body) => body.is_end(),
            Origin::Streamed(body) => body.is_end_stream(),
            Origin::Boxed(body) | Origin::Pumped(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Origin::Empty | Origin::Tunnel(_) => SizeHint::with_exact(0),
            Origin::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Origin::Upstream(body) => body.size_hint(),
            Origin::Streamed(body) => body.size_hint(),
            Origin::Boxed(body) | Origin::Pumped(body, _) => body.size_hint(),
        }
    }
}
