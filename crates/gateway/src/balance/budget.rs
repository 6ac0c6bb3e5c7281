//! The retry budget of a service: retries may add a share to its requests, not multiply an outage (GW-37).

use super::window::Window;

const WINDOW_MS: u64 = 10_000;
/// Retries a second that are always allowed.
const FLOOR_PER_S: u64 = 3;

/// Counts requests and retries of the last ten seconds.
#[derive(Debug, Default)]
pub struct Budget(Window);

impl Budget {
    /// Counts a request of a client.
    pub fn request(&self, now_ms: u64) {
        self.0.count(now_ms, WINDOW_MS, false);
    }

    /// Takes one retry out of the budget; false when there is none left.
    pub fn take(&self, now_ms: u64, percent: u32) -> bool {
        let sums = self.0.sums(now_ms, WINDOW_MS);
        let allowed = (sums.all * u64::from(percent) / 100).max(FLOOR_PER_S * WINDOW_MS / 1000);
        // Between reading and counting another worker may do the same: the error is one retry a worker.
        if sums.marked >= allowed {
            return false;
        }
        self.0.add(now_ms, WINDOW_MS, 0, 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_within_their_share() {
        let budget = Budget::default();
        assert_eq!(
            (0..100).filter(|_| budget.take(1_000, 20)).count(),
            30,
            "the floor of three a second"
        );
        for _ in 0..1_000 {
            budget.request(2_000);
        }
        assert_eq!(
            (0..1_000).filter(|_| budget.take(2_000, 20)).count(),
            170,
            "20 % of 1000, 30 of them taken"
        );
        assert!(budget.take(30_000, 20), "the window moves on");
    }
}
