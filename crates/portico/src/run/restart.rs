//! Back-off between restarts: 1 s doubled up to 30 s, forgotten after a minute of good running.

use std::time::Duration;

/// Tells how long to wait before the next start.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// The wait after a run that lasted `ran`.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        if ran >= Duration::from_secs(60) {
            self.0 = 0;
        }
        let wait = Duration::from_secs(1 << self.0.min(5)).min(Duration::from_secs(30));
        self.0 = self.0.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_half_a_minute_and_is_forgotten() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(5);
        let waits: Vec<u64> = (0..7).map(|_| backoff.next(short).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.next(Duration::from_secs(61)).as_secs(), 1);
    }
}
