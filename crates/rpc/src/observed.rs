//! The body of an answer, watched: it tells the code that it ends with, ends at the deadline, and does not
//! take the connection with it when it panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use crate::MAX_MESSAGE;

/// Told once how a call ended.
pub(crate) trait Ending: Send + 'static {
    /// The last status that the client gets.
    fn ended(&mut self, code: Code);
    /// The body panicked.
    fn panicked(&mut self) -> Status;
}

/// A body that is watched by `ending`.
pub(crate) struct Observed<E: Ending> {
    inner: Option<Body>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The process leaves: streams end.
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Until the end was told.
    ending: Option<E>,
}

impl<E: Ending> Observed<E> {
    pub(crate) fn new(
        inner: Body,
        deadline: Option<Pin<Box<Sleep>>>,
        stopping: Option<CancellationToken>,
        ending: E,
    ) -> Self {
        Self {
            inner: Some(inner),
            deadline,
            stopping: stopping.map(|stop| Box::pin(stop.cancelled_owned())),
            ending: Some(ending),
        }
    }

    fn end(&mut self, code: Code) {
        self.inner = None;
        self.deadline = None;
        self.stopping = None;
        if let Some(mut ending) = self.ending.take() {
            ending.ended(code);
        }
    }

    /// Ends the answer with a status of ours.
    fn cut(&mut self, status: &Status) -> Frame<Bytes> {
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", HeaderValue::from(i32::from(status.code())));
        }
        self.end(status.code());
        Frame::trailers(trailers)
    }
}

impl<E: Ending + Unpin> http_body::Body for Observed<E> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx)));
        let Ok(polled) = polled else {
            let status = match &mut this.ending {
                Some(ending) => ending.panicked(),
                None => Status::internal("internal error"),
            };
            return Poll::Ready(Some(Ok(this.cut(&status))));
        };
        if polled.is_pending()
            && let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let status = Status::deadline_exceeded("the deadline is over");
            return Poll::Ready(Some(Ok(this.cut(&status))));
        }
        if polled.is_pending()
            && let Some(stopping) = &mut this.stopping
            && stopping.as_mut().poll(cx).is_ready()
        {
            let status = Status::unavailable("this process is stopping, call again");
            return Poll::Ready(Some(Ok(this.cut(&status))));
        }
        let mut frame = ready!(polled);
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    name_sizes(trailers);
                    let code = code_of(trailers).unwrap_or(Code::Unknown);
                    this.end(code);
                }
            }
            Some(Err(_)) | None => this.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<E: Ending> Drop for Observed<E> {
    fn drop(&mut self) {
        // Dropped before its trailers: the client went away.
        self.end(Code::Cancelled);
    }
}

/// A message above the limit is out of range for the codec; it is a matter of resources, and both sizes are
/// named (GW-104).
pub(crate) fn name_sizes(headers: &mut HeaderMap) {
    if code_of(headers) != Some(Code::OutOfRange) {
        return;
    }
    let status = Status::from_header_map(headers);
    let text = status.as_ref().map(Status::message).unwrap_or_default();
    let found = text
        .split_once("coded message length too large: found ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
    if let Some(found) = found {
        let text = format!("the message has {found} bytes, at most {MAX_MESSAGE} are allowed");
        // Only what cannot be a header's value is refused; this can.
        let _ = Status::resource_exhausted(text).add_header(headers);
    }
}

/// The status in headers or trailers.
pub(crate) fn code_of(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get("grpc-status")?;
    Some(Code::from_bytes(value.as_bytes()))
}
