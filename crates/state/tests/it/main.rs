//! The state through its public interface, on both backends.

mod bus;
mod cache;
mod limit;
mod outage;
mod store;
