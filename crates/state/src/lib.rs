//! Shared state of the replicas: bus, cache, rate limits, small values, heartbeats; in the process or in Redis.
//!
//! Truth is in the database (SC-3): everything here may be lost at any time, and costs time, never
//! data. One set of types serves both backends; the [`StateDriver`] must be run by the host's spawner
//! for anything to leave the process.

mod bus;
mod cache;
mod driver;
mod error;
mod limit;
mod link;
mod options;
mod state;
mod status;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use bus::{Bus, Event, Subscription};
pub use cache::{Cache, CacheKind, Levels};
pub use driver::StateDriver;
pub use error::StateError;
pub use limit::{Decision, KeyHasher, Limit, Limiter};
pub use options::{Deps, RedisOptions};
pub use state::State;
pub use status::{RedisStatus, StateStatus};
pub use store::{Beat, Heartbeats, SharedStore, Shelf, ShelfUse};

/// Declares what this crate exports, for the documentation.
pub fn declare_metrics(registry: &portico_telemetry::metrics::Registry) {
    registry.declare(&bus::FAMILIES);
    registry.declare(&cache::FAMILIES);
    registry.declare(&limit::FAMILIES);
    registry.declare(&link::FAMILIES);
}
