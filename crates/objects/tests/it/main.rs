//! One suite over both places for objects, and what only one of them has.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod local;
mod s3;
mod suite;
