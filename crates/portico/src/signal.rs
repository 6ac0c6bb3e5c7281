//! Signals of the operating system that tell us to stop or to reload.

use tokio::signal::unix::{SignalKind, signal};

/// Ends with the first Ctrl-C or SIGTERM from now on: they are caught as soon as this returns, also when
/// nobody waits yet.
pub(crate) fn first() -> impl Future<Output = ()> {
    let handlers = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = handlers else {
            // Without signal handlers the kernel's default ends the process, so that there is nothing to wait for.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
