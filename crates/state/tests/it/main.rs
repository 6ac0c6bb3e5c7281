//! The state through its public interface, on both backends.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may unwrap")]

mod bus;
mod cache;
mod limit;
mod outage;
mod spans;
mod store;
mod topology;
mod wait;
