//! `--watch DIR`: a change below a folder restarts the program.

use std::path::Path;

use anyhow::Result;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::client::usage;

/// Counts changes below a folder; the watcher lives as long as this.
pub(super) struct Changes {
    counter: watch::Sender<u64>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Changes {
    /// Follows the count.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.counter.subscribe()
    }
}

/// Watches `folder`, or nothing.
pub(super) fn start(folder: Option<&Path>) -> Result<Changes> {
    let (counter, _) = watch::channel(0);
    let Some(folder) = folder else {
        return Ok(Changes {
            counter,
            _watcher: None,
        });
    };
    let sender = counter.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let changed = event.is_ok_and(|event| {
            !matches!(event.kind, EventKind::Access(_) | EventKind::Other)
                && !event.paths.iter().all(|path| is_noise(path))
        });
        if changed {
            sender.send_modify(|count| *count += 1);
        }
    })?;
    watcher
        .watch(folder, RecursiveMode::Recursive)
        .map_err(|error| usage(format!("--watch {}: {error}", folder.display())))?;
    Ok(Changes {
        counter,
        _watcher: Some(watcher),
    })
}

/// What programs write while they run is no change of the program.
fn is_noise(path: &Path) -> bool {
    path.components().any(|part| {
        matches!(
            part.as_os_str().to_str(),
            Some(".git" | "__pycache__" | "node_modules" | "target" | "portico-data")
        )
    })
}
