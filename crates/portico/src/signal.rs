//! Signals of the operating system that tell us to stop or to reload.

use tokio::signal::unix::{SignalKind, signal};

/// Ends with the first Ctrl-C or SIGTERM.
pub(crate) async fn first() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Without signal handlers the kernel's default ends the process, so that there is nothing to wait for.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
