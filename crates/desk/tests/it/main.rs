//! The desk of durable jobs on real databases.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;
mod orders;
mod rig;
