//! A clock that runs as the machine's does and jumps when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use portico_base::{Clock, SystemClock, Timestamp};

/// The machine's clock with an offset; shared by cloning.
#[derive(Debug, Clone, Default)]
pub struct JumpingClock(Arc<AtomicI64>);

impl JumpingClock {
    /// Moves it by seconds, back when negative.
    pub fn jump(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + chrono::Duration::seconds(self.0.load(Ordering::SeqCst))
    }
}
