//! The way of a request: a fixed sequence of plain functions (GW-20).

pub(crate) mod authorise;
mod between;
mod builtin;
mod cache_explain;
mod cached;
mod caller;
pub mod client;
pub mod cors;
mod deadline;
mod denial;
pub mod door;
pub(crate) mod entrance;
pub(crate) mod errand;
mod files;
mod forward;
pub mod gate;
mod housekeeping;
mod hygiene;
pub mod metrics;
pub mod operate;
mod out;
mod overrides;
mod record;
pub mod refusal;
mod scope;
mod secure;
pub mod settings;
pub mod signature;
pub(crate) mod target;
#[cfg(test)]
mod tests;
pub mod transform;
mod way;

pub(crate) use cache_explain::{CacheQuestion, CacheTold};
pub use door::Door;
pub(crate) use entrance::CallListener;
pub use entrance::{Entrance, RefusedCall};
pub use gate::{BreakerEvent, BreakerListener, Builtins, Gate, Parts};
pub(crate) use metrics::Families;
