//! The handle by which everything outside the workers' threads reaches them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::stats::{ServeTotals, WorkerStats};

/// Commands that wait for a worker at most; a sender waits for room.
pub(super) const COMMANDS: usize = 64;

/// Something still open at the end of a drain, and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Listener, peer, method and path.
    pub what: String,
}

pub(super) enum Command {
    CloseStreams(Arc<str>, oneshot::Sender<usize>),
    OpenStreams(oneshot::Sender<Vec<String>>),
    Leave(oneshot::Sender<()>),
    Drain(Duration, oneshot::Sender<Vec<Cut>>),
}

/// Reaches all workers; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Control {
    pub(super) workers: Arc<[(mpsc::Sender<Command>, Arc<WorkerStats>)]>,
}

impl Control {
    /// Closes every open stream with `key` (`session:…`); gives their number once they are told.
    pub async fn close_streams(&self, key: &str) -> usize {
        let key: Arc<str> = key.into();
        self.ask(|reply| Command::CloseStreams(Arc::clone(&key), reply))
            .await
            .into_iter()
            .sum()
    }

    /// One line for each request in flight.
    pub async fn open_streams(&self) -> Vec<String> {
        self.ask(Command::OpenStreams).await.concat()
    }

    /// Keeps serving, but every answer is the last on its connection (HTTP/1.1 `Connection: close`,
    /// HTTP/2 GOAWAY). A drain closes idle connections, and a request may be on its way on one of
    /// them: after this and some time, only those are left on which nobody speaks.
    pub async fn leave(&self) {
        self.ask(Command::Leave).await;
    }

    /// Stops accepting, lets requests end, and after `deadline` cuts the rest; gives what was cut.
    /// Idle connections are closed at once. The workers end with it.
    pub async fn drain(&self, deadline: Duration) -> Vec<Cut> {
        self.ask(|reply| Command::Drain(deadline, reply))
            .await
            .concat()
    }

    /// The sums of all workers' counters.
    #[must_use]
    pub fn totals(&self) -> ServeTotals {
        let mut totals = ServeTotals::default();
        for (_, stats) in self.workers.iter() {
            totals.add(stats);
        }
        totals
    }

    /// The counters of each worker.
    pub fn stats(&self) -> impl Iterator<Item = &Arc<WorkerStats>> {
        self.workers.iter().map(|(_, stats)| stats)
    }

    /// Asks all workers at the same time; one that has ended answers nothing.
    async fn ask<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let mut replies = Vec::with_capacity(self.workers.len());
        for (sender, _) in self.workers.iter() {
            let (reply, answer) = oneshot::channel();
            if sender.send(command(reply)).await.is_ok() {
                replies.push(answer);
            }
        }
        let mut answers = Vec::with_capacity(replies.len());
        for reply in replies {
            answers.extend(reply.await.ok());
        }
        answers
    }
}
