//! `portico_host_*`: load, memory, disks and network of the machine, or of the control group that limits us.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sysinfo::{Networks, System};

use crate::family::{CounterFamily, Family, GaugeFamily};
use crate::registry::{Registry, Samples};

static CPU: GaugeFamily = GaugeFamily::new(
    "portico_host_cpu_ratio",
    "Busy share of the machine's cores, or of the control group's quota, 0 to 1.",
    &[],
    1,
);
static LOAD: GaugeFamily = GaugeFamily::new(
    "portico_host_load1",
    "Load average of the machine over one minute.",
    &[],
    1,
);
static MEMORY: GaugeFamily = GaugeFamily::new(
    "portico_host_memory_bytes",
    "Memory of the machine or control group: total, used, available.",
    &["state"],
    3,
);
static DISK: GaugeFamily = GaugeFamily::new(
    "portico_host_disk_bytes",
    "Space of the volume that holds the data directory: total, used, available.",
    &["volume", "state"],
    12,
);
static NETWORK: CounterFamily = CounterFamily::new(
    "portico_host_network_bytes_total",
    "Bytes that crossed the machine's network interfaces, loopback left out.",
    &["direction"],
    2,
);

/// What [`collect_host`] exports.
pub(crate) static FAMILIES: [&Family; 5] = [
    CPU.family(),
    LOAD.family(),
    MEMORY.family(),
    DISK.family(),
    NETWORK.family(),
];

/// Between two readings of the processor time lies at least this, however often one scrapes.
const CPU_WINDOW: Duration = Duration::from_secs(1);

/// Adds the figures of the machine to every scrape. `volumes` are pairs of a name for people (`data`)
/// and a path on the volume.
pub fn collect_host(registry: &Registry, volumes: Vec<(String, PathBuf)>) {
    registry.declare(&FAMILIES);
    let host = Mutex::new(Host::new());
    registry.collect_with(move |samples| host.lock().collect(samples, &volumes));
}

/// A source that the machine does not have (a sandbox without `/proc`) leaves its metrics out.
struct Host {
    system: Option<System>,
    networks: Option<Networks>,
    cpu_ratio: f64,
    cpu_read: Instant,
    group_cpu_us: Option<u64>,
}

impl Host {
    fn new() -> Self {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        Self {
            system,
            networks: Networks::new_with_refreshed_list().ok(),
            cpu_ratio: 0.0,
            cpu_read: Instant::now(),
            group_cpu_us: group_cpu_us(),
        }
    }

    fn collect(&mut self, samples: &mut Samples, volumes: &[(String, PathBuf)]) {
        self.read_cpu();
        samples.gauge(&CPU, &[], self.cpu_ratio);
        if let Ok(load) = System::load_average() {
            samples.gauge(&LOAD, &[], load.one);
        }
        if let Some(system) = &mut self.system {
            system.refresh_memory();
            let (total, available) = match system.cgroup_limits() {
                Some(group) if group.total_memory < system.total_memory() => {
                    (group.total_memory, group.free_memory)
                }
                _ => (system.total_memory(), system.available_memory()),
            };
            for (state, bytes) in states(total, available) {
                samples.gauge(&MEMORY, &[state], bytes as f64);
            }
        }
        for (name, path) in volumes {
            let Some((total, available)) = space(path) else {
                continue;
            };
            for (state, bytes) in states(total, available) {
                samples.gauge(&DISK, &[name, state], bytes as f64);
            }
        }
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
            let outside = || networks.iter().filter(|(name, _)| *name != "lo");
            let received: u64 = outside().map(|(_, n)| n.total_received()).sum();
            let sent: u64 = outside().map(|(_, n)| n.total_transmitted()).sum();
            samples.counter(&NETWORK, &["in"], received as f64);
            samples.counter(&NETWORK, &["out"], sent as f64);
        }
    }

    fn read_cpu(&mut self) {
        let elapsed = self.cpu_read.elapsed();
        if elapsed < CPU_WINDOW {
            return;
        }
        self.cpu_read = Instant::now();
        let now = group_cpu_us();
        if let (Some(quota), Some(before), Some(now)) = (group_quota(), self.group_cpu_us, now) {
            let used = now.saturating_sub(before) as f64 / 1e6;
            self.cpu_ratio = (used / elapsed.as_secs_f64() / quota).clamp(0.0, 1.0);
        } else if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            self.cpu_ratio = f64::from(system.global_cpu_usage()) / 100.0;
        }
        self.group_cpu_us = now;
    }
}

fn states(total: u64, available: u64) -> [(&'static str, u64); 3] {
    let used = total.saturating_sub(available);
    [("total", total), ("used", used), ("available", available)]
}

/// Total and available bytes of the volume that holds `path`. Only this volume is asked: another one
/// (a dead network share) must not hold up a scrape.
#[cfg(unix)]
fn space(path: &Path) -> Option<(u64, u64)> {
    let volume = nix::sys::statvfs::statvfs(path).ok()?;
    let unit = volume.fragment_size();
    Some((volume.blocks() * unit, volume.blocks_available() * unit))
}

#[cfg(not(unix))]
fn space(path: &Path) -> Option<(u64, u64)> {
    let path = path.canonicalize().ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list().ok()?;
    let holds = disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()));
    holds
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(|disk| (disk.total_space(), disk.available_space()))
}

/// Processor time of our control group (cgroup v2 `cpu.stat`).
fn group_cpu_us() -> Option<u64> {
    let stat = std::fs::read_to_string("/sys/fs/cgroup/cpu.stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?
        .trim()
        .parse()
        .ok()
}

/// Cores that the control group may use (cgroup v2 `cpu.max`), when it is limited.
fn group_quota() -> Option<f64> {
    parse_quota(&std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?)
}

fn parse_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn quota_of_a_control_group() {
        assert_eq!(parse_quota("150000 100000\n"), Some(1.5));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota(""), None);
    }

    #[test]
    fn a_scrape_tells_about_the_machine() {
        let registry = Registry::default();
        collect_host(&registry, vec![("data".to_owned(), PathBuf::from("."))]);
        let text = registry.render(Format::Prometheus);
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let total = value("portico_host_memory_bytes{state=\"total\"}");
        let used = value("portico_host_memory_bytes{state=\"used\"}");
        assert!(total > 1e6 && used > 0.0 && used <= total);
        let disk = value("portico_host_disk_bytes{volume=\"data\",state=\"total\"}");
        assert!(disk > 1e6);
        assert!((0.0..=1.0).contains(&value("portico_host_cpu_ratio")));
    }
}
