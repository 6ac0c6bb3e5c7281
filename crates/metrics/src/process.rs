//! Standard `process_*` metrics and `portico_build_info`.

use crate::family::{CounterFamily, Family, GaugeFamily};
use crate::registry::{Registry, Samples};

/// Which program this is.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// Version of the release.
    pub version: &'static str,
    /// Commit that it was built from, or `unknown`.
    pub commit: &'static str,
    /// Version of the compiler, or `unknown`.
    pub rustc: &'static str,
}

static BUILD_INFO: GaugeFamily = GaugeFamily::new(
    "portico_build_info",
    "Always 1; the labels say which program this is.",
    &["version", "commit", "rustc"],
    1,
);
static CPU: CounterFamily = CounterFamily::new(
    "process_cpu_seconds_total",
    "User and system time of the process in seconds.",
    &[],
    1,
);
static RESIDENT: GaugeFamily = GaugeFamily::new(
    "process_resident_memory_bytes",
    "Resident memory of the process.",
    &[],
    1,
);
static VIRTUAL: GaugeFamily = GaugeFamily::new(
    "process_virtual_memory_bytes",
    "Virtual memory of the process.",
    &[],
    1,
);
static START: GaugeFamily = GaugeFamily::new(
    "process_start_time_seconds",
    "Start of the process as Unix time.",
    &[],
    1,
);
static OPEN_FDS: GaugeFamily = GaugeFamily::new(
    "process_open_fds",
    "Open file descriptors of the process.",
    &[],
    1,
);
static MAX_FDS: GaugeFamily = GaugeFamily::new(
    "process_max_fds",
    "Most file descriptors that the process may open.",
    &[],
    1,
);
static THREADS: GaugeFamily = GaugeFamily::new(
    "process_threads",
    "Operating-system threads of the process.",
    &[],
    1,
);

/// What [`collect_process`] exports.
pub(crate) static FAMILIES: [&Family; 8] = [
    BUILD_INFO.family(),
    CPU.family(),
    RESIDENT.family(),
    VIRTUAL.family(),
    START.family(),
    OPEN_FDS.family(),
    MAX_FDS.family(),
    THREADS.family(),
];

/// Adds `portico_build_info` and the standard metrics of this process to every scrape.
pub fn collect_process(registry: &Registry, build: BuildInfo) {
    registry.declare(&FAMILIES);
    let start = start_time();
    registry.collect_with(move |samples| {
        let labels = [build.version, build.commit, build.rustc];
        samples.gauge(&BUILD_INFO, &labels, 1.0);
        if let Some(start) = start {
            samples.gauge(&START, &[], start);
        }
        collect(samples);
    });
}

#[cfg(target_os = "linux")]
fn collect(samples: &mut Samples) {
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some(stat) = Stat::parse(&stat)
    {
        samples.counter(&CPU, &[], stat.cpu_ticks as f64 / 100.0);
        samples.gauge(&THREADS, &[], stat.threads as f64);
        samples.gauge(&VIRTUAL, &[], stat.virtual_bytes as f64);
        samples.gauge(&RESIDENT, &[], (stat.resident_pages * page_size()) as f64);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // The listing itself holds one.
        samples.gauge(&OPEN_FDS, &[], entries.count().saturating_sub(1) as f64);
    }
    if let Some(max) = max_fds() {
        samples.gauge(&MAX_FDS, &[], max);
    }
}

#[cfg(not(target_os = "linux"))]
fn collect(samples: &mut Samples) {
    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
    let pid = Pid::from_u32(std::process::id());
    let Ok(mut system) = System::new() else {
        return;
    };
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    if let Some(process) = system.process(pid) {
        samples.gauge(&RESIDENT, &[], process.memory() as f64);
        samples.gauge(&VIRTUAL, &[], process.virtual_memory() as f64);
        let cpu = process.accumulated_cpu_time() as f64 / 1000.0;
        samples.counter(&CPU, &[], cpu);
    }
}

/// What `/proc/self/stat` says (proc(5)); times are in ticks of 1/100 s on every Linux that is in use.
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

#[cfg(target_os = "linux")]
impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name stands in brackets and may hold spaces and brackets itself.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            threads: number(20)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

#[cfg(target_os = "linux")]
fn start_time() -> Option<f64> {
    let stat = Stat::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + stat.start_ticks as f64 / 100.0)
}

#[cfg(not(target_os = "linux"))]
fn start_time() -> Option<f64> {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

#[cfg(target_os = "linux")]
fn max_fds() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|l| l.starts_with("Max open files"))?;
    let soft = line.split_ascii_whitespace().nth(3)?;
    if soft == "unlimited" {
        Some(f64::INFINITY)
    } else {
        soft.parse().ok()
    }
}

#[cfg(target_os = "linux")]
fn page_size() -> u64 {
    // The auxiliary vector tells it without a system call that would need `unsafe` (AT_PAGESZ is 6).
    std::fs::read("/proc/self/auxv")
        .ok()
        .and_then(|bytes| {
            bytes.chunks_exact(16).find_map(|pair| {
                let (key, value) = pair.split_at(8);
                let key = u64::from_ne_bytes(key.try_into().ok()?);
                let value = u64::from_ne_bytes(value.try_into().ok()?);
                (key == 6).then_some(value)
            })
        })
        .unwrap_or(4096)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn a_program_name_may_hold_brackets() {
        let tail = (4..=52)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        let stat = Stat::parse(&format!("77 (a) b (c)) S {tail}")).unwrap();
        assert_eq!(
            (stat.cpu_ticks, stat.threads, stat.start_ticks),
            (29, 20, 22)
        );
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (23, 24));
        assert_eq!(Stat::parse("77 (x"), None);
    }

    #[test]
    fn a_scrape_tells_about_this_process() {
        let registry = Registry::default();
        let build = BuildInfo {
            version: "1.2.3",
            commit: "abc",
            rustc: "1.95.0",
        };
        collect_process(&registry, build);
        let text = registry.render(Format::Prometheus);
        assert!(
            text.contains(
                "portico_build_info{version=\"1.2.3\",commit=\"abc\",rustc=\"1.95.0\"} 1\n"
            )
        );
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_threads",
            "process_start_time_seconds",
        ] {
            let line = text
                .lines()
                .find(|l| l.starts_with(&format!("{name} ")))
                .unwrap();
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value >= 1.0, "{line}");
        }
        assert!(page_size().is_power_of_two());
    }
}
