//! Telemetry through its public interface.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may unwrap")]

mod access;
mod exposition;
mod logs;
mod sink;
mod traces;
