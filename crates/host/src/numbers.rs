//! Figures that each process tells the others with its heartbeat: for the page that shows all replicas.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value};

/// Most figures of one process; more are a defect.
const MOST: usize = 50;

type Figure = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// The figures of this process. Cheap to clone.
#[derive(Clone, Default)]
pub struct ReplicaNumbers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    figures: Mutex<Vec<(&'static str, Figure)>>,
    cpu: Mutex<Option<(Instant, f64)>>,
}

impl ReplicaNumbers {
    /// Adds a figure: a position up to which this process follows (`registry_seq`), or what else should be
    /// seen of all replicas beside each other. It must be quick; nothing while it is not known.
    pub fn add(
        &self,
        name: &'static str,
        figure: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let mut figures = self.0.figures.lock();
        if figures.len() < MOST {
            figures.push((name, Box::new(figure)));
        }
    }

    /// All figures now: those of services, and what the process needs (`cpu_cores` since the last time,
    /// `memory_bytes`).
    #[must_use]
    pub fn read(&self) -> Value {
        let mut all = Map::new();
        let mut put = |name: &str, figure: Option<f64>| {
            if let Some(number) = figure.and_then(serde_json::Number::from_f64) {
                all.insert(name.to_owned(), Value::Number(number));
            }
        };
        put("cpu_cores", self.cpu_cores());
        put("memory_bytes", memory_bytes());
        for (name, figure) in &*self.0.figures.lock() {
            put(name, figure());
        }
        Value::Object(all)
    }

    /// Cores that the process kept busy since the last question.
    fn cpu_cores(&self) -> Option<f64> {
        let (now, used) = (Instant::now(), cpu_seconds()?);
        let (then, before) = self.0.cpu.lock().replace((now, used))?;
        let passed = now.duration_since(then).as_secs_f64();
        (passed > 0.1).then(|| ((used - before) / passed * 1_000.0).round() / 1_000.0)
    }
}

/// CPU time of the process until now (`getrusage(2)`).
fn cpu_seconds() -> Option<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Resident memory (`/proc/self/status`, in KiB there); nothing on systems without it.
fn memory_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_needs_and_what_services_tell() {
        let numbers = ReplicaNumbers::default();
        numbers.add("registry_seq", || Some(7.0));
        numbers.add("unknown", || None);
        let told = numbers.read();
        assert_eq!(told["registry_seq"], 7.0);
        assert!(told["memory_bytes"].as_f64().unwrap() > 1_000_000.0);
        assert!(told.get("unknown").is_none() && told.get("cpu_cores").is_none());
    }
}
