//! Calls a service of this process on the worker, with its own I/O living on the shared runtime.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;

use super::worker::Worker;
use crate::body::{BodyError, Pump, ReqBody, RespBody};

/// The service panicked; it was caught, the process goes on.
#[derive(Debug, thiserror::Error)]
#[error("the service panicked: {message}")]
pub struct Panicked {
    pub message: String,
}

/// Hands `request` to `service` without serialising it and polls it here; dropping the future (the
/// client went away) drops the handler. `detached` runs it to its end on the shared runtime instead.
///
/// # Errors
/// [`Panicked`].
pub async fn call(
    worker: &Rc<Worker>,
    service: &Router,
    request: Request<ReqBody>,
    detached: bool,
) -> Result<Response<RespBody>, Panicked> {
    let (parts, body) = request.into_parts();
    let (body, mut pump) = body.into_send();
    let request = Request::from_parts(parts, body);
    let runtime = worker.shared.clone();
    let mut service = service.clone();
    let answer = OnRuntime {
        runtime: runtime.clone(),
        future: Box::pin(async move { tower_call(&mut service, request).await }),
    };
    let answer: Pin<Box<dyn Future<Output = Result<Response<axum::body::Body>, Panicked>>>> =
        if detached {
            let task = runtime.spawn(answer);
            Box::pin(async move {
                task.await.unwrap_or_else(|e| {
                    Err(Panicked {
                        message: e.to_string(),
                    })
                })
            })
        } else {
            Box::pin(answer)
        };
    let mut answer = answer;
    let response = poll_fn(|cx| {
        if pump
            .as_mut()
            .is_some_and(|p| p.as_mut().poll(cx).is_ready())
        {
            pump = None;
        }
        answer.as_mut().poll(cx)
    })
    .await?;
    Ok(response.map(|body| wrap(body, runtime, pump)))
}

async fn tower_call(
    service: &mut Router,
    request: Request<axum::body::Body>,
) -> Response<axum::body::Body> {
    use tower_service::Service as _;
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn wrap(body: axum::body::Body, runtime: Handle, pump: Option<Pump>) -> RespBody {
    let exact = body.size_hint().exact();
    if exact == Some(0) {
        return RespBody::empty();
    }
    let body = Streamed { runtime, body };
    match pump {
        Some(pump) => RespBody::pumped(body, pump),
        None => RespBody::boxed(body),
    }
}

/// Polls a future while the shared runtime is entered, so that what it opens lives there; catches
/// its panics.
struct OnRuntime<F> {
    runtime: Handle,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for OnRuntime<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let runtime = self.runtime.clone();
        let _entered = runtime.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(Panicked {
                message: message(&*panic),
            })),
        }
    }
}

/// An answer's body that is polled the same way.
struct Streamed {
    runtime: Handle,
    body: axum::body::Body,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let runtime = self.runtime.clone();
        let _entered = runtime.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.body).poll_frame(cx)));
        match polled {
            Ok(polled) => {
                Poll::Ready(ready!(polled).map(|f| f.map_err(|e| BodyError::Other(e.into_inner()))))
            }
            Err(panic) => Poll::Ready(Some(Err(BodyError::Other(Box::new(Panicked {
                message: message(&*panic),
            }))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Polls a future of ours; a panic in it ends one request, not its connection's task.
pub(super) fn poll_guarded<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Panicked>> {
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(Panicked {
            message: message(&*panic),
        })),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
