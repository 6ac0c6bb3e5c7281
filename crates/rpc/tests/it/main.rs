//! The chain on a real listener with a real client: who, may, how much, by when, errors, panics, drain.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod chain;
mod clients;
mod house;
mod listener;
