//! Disk space of the data directory: below the reserve, what fills the disk stops and says so (SC-11).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico_config::Config;
use portico_jobs::Periodic;

use crate::degraded::Degraded;
use crate::health::{Check, CheckResult};

const EVERY: Duration = Duration::from_secs(10);

/// Share of a disk below which it counts as low, whatever the reserve is.
const LOW_SHARE: f64 = 0.05;

/// Whether the disk of the data directory is low. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<AtomicBool>);

impl Disk {
    /// True while uploads, recordings and file caches must stop.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The job that looks every ten seconds, in every process (`ops.disk`).
pub(crate) fn job(disk: &Disk, config: &Config, news: &Degraded) -> Periodic {
    let (disk, news) = (disk.clone(), news.clone());
    let folder = config.node.data_dir.clone();
    let reserve = config.limits.disk_reserve_mb * 1024 * 1024;
    Periodic::new("ops.disk", EVERY, move |_| {
        let (disk, news, path) = (disk.clone(), news.clone(), folder.clone());
        async move {
            let looked = tokio::task::spawn_blocking(move || space(&path)).await?;
            let Some(space) = looked else { return Ok(()) };
            let low = space.is_low(reserve);
            if low == disk.0.swap(low, Ordering::Relaxed) {
                return Ok(());
            }
            let free_mb = space.free / (1024 * 1024);
            if low {
                tracing::error!(
                    free_mb,
                    "the disk of the data directory is low; what fills it is refused"
                );
                news.tell("system.disk_low", serde_json::json!({ "free_mb": free_mb }));
            } else {
                tracing::info!(free_mb, "the disk of the data directory has room again");
            }
            Ok(())
        }
    })
}

/// What was found last, for `/health`.
pub(crate) fn check(disk: &Disk) -> Check {
    let disk = disk.clone();
    Check {
        name: "disk",
        unready_after: None,
        run: Arc::new(move || {
            let result = if disk.is_low() {
                CheckResult::Degraded("the disk of the data directory is low".to_owned())
            } else {
                CheckResult::Ok
            };
            Box::pin(std::future::ready(result))
        }),
    }
}

/// Free and all bytes of the disk that holds a folder.
#[must_use]
pub fn disk_space(folder: &Path) -> Option<(u64, u64)> {
    space(folder).map(|space| (space.free, space.total))
}

#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
    total: u64,
}

impl Space {
    fn is_low(self, reserve: u64) -> bool {
        // A small disk is not low from the start because of a reserve that was made for large ones.
        let reserve = reserve.min(self.total / 5);
        self.free < reserve || (self.free as f64) < self.total as f64 * LOW_SHARE
    }
}

fn space(folder: &Path) -> Option<Space> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    let unit = stat.fragment_size();
    Some(Space {
        free: stat.blocks_available() * unit,
        total: stat.blocks() * unit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_is_a_reserve_or_a_share() {
        const MB: u64 = 1024 * 1024;
        let space = |free, total| Space {
            free: free * MB,
            total: total * MB,
        };
        assert!(space(400, 100_000).is_low(512 * MB));
        assert!(!space(6_000, 100_000).is_low(512 * MB));
        assert!(space(4_000, 100_000).is_low(512 * MB), "below 5 %");
        assert!(
            !space(60, 64).is_low(512 * MB),
            "a small disk that is empty"
        );
    }

    #[test]
    fn this_disk_has_a_size() {
        assert!(space(Path::new("/")).is_some_and(|s| s.total > 0));
    }
}
