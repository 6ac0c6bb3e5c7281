//! The least speed of a request's body: so many bytes in so long, counting only the time that we
//! wait for the client.

use std::task::{Context, Poll};
use std::time::Duration;

use super::timers::Timer;
use super::worker::Worker;

pub(super) struct Pace {
    timer: Timer,
    bytes: u64,
    time: Duration,
    got: u64,
    /// Ticks of waiting left for the current run of `bytes`.
    left: u32,
    waiting_since: Option<u32>,
}

impl Pace {
    pub(super) fn new(worker: &Worker) -> Self {
        let (bytes, time) = (worker.limits.body_bytes, worker.limits.body_time);
        Self {
            timer: worker.timers.timer(),
            bytes,
            time,
            got: 0,
            left: ticks(time),
            waiting_since: None,
        }
    }

    /// Bytes came.
    pub(super) fn note(&mut self, n: u64, now: u32) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(now.saturating_sub(since));
            self.timer.clear();
        }
        self.got += n;
        if self.got >= self.bytes {
            self.got = 0;
            self.left = ticks(self.time);
        }
    }

    /// Nothing is there; ready when the client was too slow.
    pub(super) fn poll_wait(&mut self, now: u32, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
            self.timer
                .set(Duration::from_millis(u64::from(self.left) * 100));
        }
        self.timer.poll(cx)
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::serve::ServeLimits;

    fn pace() -> Pace {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let limits = ServeLimits {
            body_bytes: 1024,
            body_time: Duration::from_secs(10),
            ..ServeLimits::default()
        };
        Pace::new(&Worker::new(0, 1, limits, runtime.handle().clone()))
    }

    #[test]
    fn waiting_uses_up_the_time_and_enough_bytes_renew_it() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut pace = pace();
        assert!(pace.poll_wait(0, &mut cx).is_pending());
        pace.note(1, 60);
        assert_eq!(pace.left, 40, "a dripped byte does not renew the time");
        pace.note(1023, 500);
        assert_eq!(
            pace.left, 100,
            "the time in which nobody waited is not counted"
        );
    }
}
