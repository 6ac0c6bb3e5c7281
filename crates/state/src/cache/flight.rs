//! One load that many wait for. Whoever leads and goes away hands over; a removal detaches the load from the cache.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Key;

pub(super) enum Outcome<T> {
    Pending,
    Value(Option<Arc<T>>),
    Error(Arc<dyn Any + Send + Sync>),
    Abandoned,
}

impl<T> Clone for Outcome<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Pending => Self::Pending,
            Self::Value(value) => Self::Value(value.clone()),
            Self::Error(error) => Self::Error(Arc::clone(error)),
            Self::Abandoned => Self::Abandoned,
        }
    }
}

pub(super) struct Flight<T> {
    outcome: watch::Sender<Outcome<T>>,
}

impl<T> Flight<T> {
    pub(super) fn new() -> Self {
        Self {
            outcome: watch::Sender::new(Outcome::Pending),
        }
    }

    /// Waits for the end of the load.
    pub(super) async fn outcome(&self) -> Outcome<T> {
        let mut outcome = self.outcome.subscribe();
        match outcome.wait_for(|o| !matches!(o, Outcome::Pending)).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => Outcome::Abandoned,
        }
    }
}

/// The place of whoever loads.
pub(super) struct Leader<'a, T> {
    flights: &'a Mutex<HashMap<Key, Arc<Flight<T>>>>,
    key: Key,
    flight: Arc<Flight<T>>,
    finished: bool,
}

impl<'a, T> Leader<'a, T> {
    pub(super) fn new(
        flights: &'a Mutex<HashMap<Key, Arc<Flight<T>>>>,
        key: Key,
        flight: Arc<Flight<T>>,
    ) -> Self {
        Self {
            flights,
            key,
            flight,
            finished: false,
        }
    }

    /// Ends the load. `store` runs only when no removal came in between, under the lock that removals take.
    pub(super) fn finish(mut self, outcome: Outcome<T>, store: impl FnOnce()) {
        self.finished = true;
        {
            let mut flights = self.flights.lock();
            if self.is_current(&flights) {
                store();
                flights.remove(&self.key);
            }
        }
        self.flight.outcome.send_replace(outcome);
    }

    fn is_current(&self, flights: &HashMap<Key, Arc<Flight<T>>>) -> bool {
        let known = flights.get(&self.key);
        known.is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
    }
}

impl<T> Drop for Leader<'_, T> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        {
            let mut flights = self.flights.lock();
            if self.is_current(&flights) {
                flights.remove(&self.key);
            }
        }
        self.flight.outcome.send_replace(Outcome::Abandoned);
    }
}
