//! Why a request got no answer, and whether it may be sent again.

use http::Request;

use crate::body::{BodyError, ReqBody};

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct SendError {
    pub kind: SendErrorKind,
    /// The request as it was, when its body is whole: untouched, or still held.
    pub request: Option<Box<Request<ReqBody>>>,
    /// Some byte of the request may have reached the instance.
    pub wrote: bool,
}

impl SendError {
    /// True when the request can be sent again without risk for any method: nothing had left, or the
    /// instance said that it did nothing.
    #[must_use]
    pub fn is_safe_to_repeat(&self) -> bool {
        self.request.is_some() && (!self.wrote || matches!(self.kind, SendErrorKind::Refused))
    }

    /// True when an idempotent request can be sent again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.request.is_some()
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SendErrorKind {
    /// No connection could be made.
    #[error("the instance cannot be connected to")]
    Connect(#[source] std::io::Error),
    /// The name resolved only to addresses that must not be connected to.
    #[error("the instance's address is not allowed")]
    AddressNotAllowed,
    /// The connection ended before the answer's head was whole.
    #[error("the instance closed the connection before it answered")]
    Reset,
    /// The instance refused the stream without having looked at it (`REFUSED_STREAM`, `GOAWAY`).
    #[error("the instance refused the request unprocessed")]
    Refused,
    #[error("the instance took too long ({0:?})")]
    Timeout(TimeoutKind),
    /// The answer is not HTTP; the text is a stable label.
    #[error("the instance's answer is not valid: {0}")]
    Invalid(&'static str),
    /// All connections are in use and the queue is full or too slow.
    #[error("too many requests wait for the instance")]
    QueueFull,
    /// The request's own body failed: the client went away, was too slow, or sent too much.
    #[error("the request's body failed")]
    RequestBody(#[source] BodyError),
    /// The request cannot be written: its head is too large after what was added to it.
    #[error("the request's head is too large to forward")]
    HeadTooLarge,
}

/// Which limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutKind {
    Connect,
    FirstByte,
    Total,
}
