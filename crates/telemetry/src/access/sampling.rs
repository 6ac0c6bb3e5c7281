//! Which requests get a line: all, a falling share of the many, only errors, or none.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// What `gateway.access_log` chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessMode {
    /// Every request.
    All,
    /// Every request up to 1,000 a second, then a falling share; errors always.
    #[default]
    Sampled,
    /// Only answers with status 500 and above.
    Errors,
    /// No line; the records in memory stay sampled.
    Off,
}

impl AccessMode {
    /// The mode of a setting's value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "all" => Self::All,
            "sampled" => Self::Sampled,
            "errors" => Self::Errors,
            "off" => Self::Off,
            _ => return None,
        })
    }
}

#[derive(Debug)]
pub(super) struct SharedMode(AtomicU8);

impl SharedMode {
    pub(super) const fn new(mode: AccessMode) -> Self {
        Self(AtomicU8::new(mode as u8))
    }

    pub(super) fn set(&self, mode: AccessMode) {
        self.0.store(mode as u8, Relaxed);
    }

    pub(super) fn get(&self) -> AccessMode {
        match self.0.load(Relaxed) {
            0 => AccessMode::All,
            1 => AccessMode::Sampled,
            2 => AccessMode::Errors,
            _ => AccessMode::Off,
        }
    }
}

/// Lines a second of one process before sampling begins.
pub(super) const FULL_RATE: u32 = 1_000;

/// What happens to one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// To the stream and to memory, standing for so many.
    Line(u32),
    /// To memory only.
    Memory(u32),
    Nothing,
}

/// The counting of one worker.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    second: i64,
    seen: u32,
}

impl Sampling {
    /// Decides for a record that ended at `at_us`; `workers` share the full rate. In the nth thousand of
    /// a second every nth request is kept, so that the lines a second grow only with the logarithm.
    pub(super) fn decide(
        &mut self,
        mode: AccessMode,
        at_us: i64,
        is_error: bool,
        workers: u32,
    ) -> Fate {
        let second = at_us.div_euclid(1_000_000);
        if second != self.second {
            self.second = second;
            self.seen = 0;
        }
        self.seen = self.seen.saturating_add(1);
        let full = (FULL_RATE / workers.max(1)).max(1);
        let nth = (self.seen - 1) / full + 1;
        let kept = is_error || self.seen.is_multiple_of(nth);
        let weight = if is_error { 1 } else { nth };
        match mode {
            AccessMode::All => Fate::Line(1),
            AccessMode::Sampled if kept => Fate::Line(weight),
            AccessMode::Errors if is_error => Fate::Line(1),
            AccessMode::Errors | AccessMode::Off if kept => Fate::Memory(weight),
            _ => Fate::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mode: AccessMode, requests: u32, is_error: bool) -> (u32, u32) {
        let mut sampling = Sampling::default();
        let mut sum = (0, 0);
        for _ in 0..requests {
            match sampling.decide(mode, 5, is_error, 2) {
                Fate::Line(weight) => sum = (sum.0 + 1, sum.1 + weight),
                Fate::Memory(_) | Fate::Nothing => {}
            }
        }
        sum
    }

    #[test]
    fn the_share_falls_and_the_weights_add_up() {
        assert_eq!(lines(AccessMode::Sampled, 500, false), (500, 500));
        let (kept, stand_for) = lines(AccessMode::Sampled, 50_000, false);
        assert!((500..4_000).contains(&kept), "{kept}");
        assert!((45_000..55_000).contains(&stand_for), "{stand_for}");
        assert_eq!(lines(AccessMode::Sampled, 50_000, true).0, 50_000);
        assert_eq!(lines(AccessMode::All, 5_000, false).0, 5_000);
        assert_eq!(lines(AccessMode::Errors, 10, false).0, 0);
        assert_eq!(lines(AccessMode::Errors, 10, true).0, 10);
        assert_eq!(lines(AccessMode::Off, 10, true).0, 0);
    }

    #[test]
    fn a_new_second_starts_full() {
        let mut sampling = Sampling::default();
        for _ in 0..10_000 {
            sampling.decide(AccessMode::Sampled, 1, false, 1);
        }
        let next = sampling.decide(AccessMode::Sampled, 1_000_001, false, 1);
        assert_eq!(next, Fate::Line(1));
        assert_eq!(
            sampling.decide(AccessMode::Off, 2_000_001, false, 1),
            Fate::Memory(1)
        );
    }

    #[test]
    fn modes_by_name() {
        for (name, mode) in [
            ("all", AccessMode::All),
            ("sampled", AccessMode::Sampled),
            ("errors", AccessMode::Errors),
            ("off", AccessMode::Off),
        ] {
            assert_eq!(AccessMode::parse(name), Some(mode));
            assert_eq!(SharedMode::new(mode).get(), mode);
        }
        assert_eq!(AccessMode::parse("some"), None);
    }
}
