//! Runs hyper's tasks on the worker they belong to.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::Executor;

use super::handler::Stream;

/// Spawns on the current worker.
#[derive(Clone, Copy, Default)]
pub(crate) struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Spawns the streams of one HTTP/2 connection so that each can be cut: dropping a stream's task
/// resets the stream, even while it waits for the client to read.
///
/// hyper calls the service and then, with nothing between, hands its future to the executor; the
/// service leaves the stream in `next` for that moment.
#[derive(Clone, Default)]
pub(super) struct StreamExecutor {
    pub(super) next: Rc<RefCell<Option<Rc<Stream>>>>,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        match self.next.borrow_mut().take() {
            Some(stream) => tokio::task::spawn_local(Cuttable {
                task: Box::pin(task),
                stream,
            }),
            None => tokio::task::spawn_local(task),
        };
    }
}

struct Cuttable<F> {
    task: Pin<Box<F>>,
    stream: Rc<Stream>,
}

impl<F: Future<Output = ()>> Future for Cuttable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.stream.poll_cut(cx).is_ready() {
            return Poll::Ready(());
        }
        self.task.as_mut().poll(cx)
    }
}
