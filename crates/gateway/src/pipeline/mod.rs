//! The way of a request: a fixed sequence of plain functions (GW-20).

pub(crate) mod authorise;
mod builtin;
mod cached;
pub mod client;
pub mod cors;
mod deadline;
pub mod door;
mod files;
mod forward;
pub mod gate;
mod hygiene;
pub mod metrics;
pub mod operate;
mod out;
mod record;
pub mod refusal;
mod secure;
pub mod settings;
pub mod signature;
mod target;
#[cfg(test)]
mod tests;
pub mod transform;
mod way;

pub use door::Door;
pub use gate::{BreakerEvent, BreakerListener, Builtins, Gate, Parts};
pub(crate) use metrics::Families;
