//! Tracked tasks: whoever is spawned here is known by name, told to stop, and waited for.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks on the shared runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spawner {
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Spawner {
    /// A spawner on the runtime of `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self {
            runtime: handle,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Runs a future until it ends; it should watch [`Spawner::stopping`] when it may run long.
    /// A panic in it is logged with its name.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let watched = self.tasks.track_future(future);
        let task = self.runtime.spawn(watched);
        self.runtime.spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(task = name, "a background task panicked");
            }
        });
    }

    /// Cancelled when the process begins to stop its workers.
    #[must_use]
    pub const fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// The shared runtime.
    #[must_use]
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The tracker, for servers that count their connections.
    #[must_use]
    pub const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Tells all tasks to stop and waits for them at most `grace`; answers how many are left.
    pub async fn stop(&self, grace: std::time::Duration) -> usize {
        self.stop.cancel();
        self.tasks.close();
        // A timeout is answered by the count of what is left, which the caller reports.
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        self.tasks.len()
    }
}
