//! What belongs to every line of a request, without a tracing span: set while its future is polled.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use super::tail::LogTail;
use crate::trace::{SpanId, TraceId, Tracer};

/// Whose request is being worked on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogContext {
    /// `X-Request-Id`.
    pub request_id: Option<Arc<str>>,
    /// The trace.
    pub trace_id: Option<TraceId>,
    /// The open span.
    pub span_id: Option<SpanId>,
    /// The tenant acted in.
    pub tenant_id: Option<Arc<str>>,
    /// Who acts.
    pub user_id: Option<Arc<str>>,
    /// The service that works on it.
    pub service: Option<Arc<str>>,
    /// Where the spans of this request go; only when its trace is kept.
    pub tracer: Option<Tracer>,
    /// Where its last lines are kept besides.
    pub tail: Option<Arc<LogTail>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<LogContext>>> = const { RefCell::new(None) };
}

/// The context of the request that this thread works on now.
#[must_use]
pub fn current() -> Option<Arc<LogContext>> {
    CURRENT.try_with(|c| c.borrow().clone()).ok().flatten()
}

/// Runs a future so that every line it logs, and a panic in it, carries `context`.
pub async fn in_scope<F: Future>(context: Arc<LogContext>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _entered = Entered::new(Arc::clone(&context));
        future.as_mut().poll(cx)
    })
    .await
}

/// The same for a request that may have nothing to say: then this is one branch a poll.
pub async fn in_scope_if<F: Future>(context: Option<Arc<LogContext>>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _entered = context.as_ref().map(|c| Entered::new(Arc::clone(c)));
        future.as_mut().poll(cx)
    })
    .await
}

/// The same future under the context of whoever calls this, for work that goes on as a task of its own.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let context = current();
    async move {
        match context {
            Some(context) => in_scope(context, future).await,
            None => future.await,
        }
    }
}

/// Puts the former context back, also when the poll panics.
struct Entered(Option<Arc<LogContext>>);

impl Entered {
    fn new(context: Arc<LogContext>) -> Self {
        Self(CURRENT.with(|c| c.borrow_mut().replace(context)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let former = self.0.take();
        let _ = CURRENT.try_with(|c| *c.borrow_mut() = former);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn contexts_nest_and_end() {
        let named = |id: &str| {
            Arc::new(LogContext {
                request_id: Some(Arc::from(id)),
                ..LogContext::default()
            })
        };
        fn id() -> Option<Arc<str>> {
            current()?.request_id.clone()
        }
        assert_eq!(id(), None);
        in_scope(named("a"), async {
            assert_eq!(id().as_deref(), Some("a"));
            tokio::task::yield_now().await;
            in_scope(named("b"), async {
                tokio::task::yield_now().await;
                assert_eq!(id().as_deref(), Some("b"));
            })
            .await;
            assert_eq!(id().as_deref(), Some("a"));
            let task = tokio::spawn(carried(async { id() }));
            assert_eq!(task.await.unwrap().as_deref(), Some("a"));
        })
        .await;
        assert_eq!(id(), None);
        assert_eq!(tokio::spawn(carried(async { id() })).await.unwrap(), None);
    }
}
