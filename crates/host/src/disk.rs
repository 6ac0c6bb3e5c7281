//! Disk space of the data directory: below the reserve, what fills the disk stops and says so (SC-11).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico_config::Config;

use crate::build::Ground;
use crate::spawn::Spawner;
use crate::telemetry::Telemetry;

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

/// Looks every ten seconds.
pub(crate) fn watch(
    ground: &Ground,
    spawner: &Spawner,
    config: &Arc<Config>,
    telemetry: &Telemetry,
) {
    let disk = ground.disk.clone();
    let folder = config.node.data_dir.clone();
    let reserve = config.limits.disk_reserve_mb * 1024 * 1024;
    let degraded = telemetry.degraded.clone();
    let stop = spawner.stopping().clone();
    spawner.spawn("disk-watch", async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let path: PathBuf = folder.clone();
            let Ok(Some(space)) = tokio::task::spawn_blocking(move || space(&path)).await else {
                continue;
            };
            let low = space.is_low(reserve);
            degraded.with(&["disk_low"]).set(f64::from(u8::from(low)));
            if low != disk.0.swap(low, Ordering::Relaxed) {
                let free_mb = space.free / (1024 * 1024);
                if low {
                    tracing::error!(
                        free_mb,
                        "the disk of the data directory is low; what fills it is refused"
                    );
                } else {
                    tracing::info!(free_mb, "the disk of the data directory has room again");
                }
            }
        }
    });
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
