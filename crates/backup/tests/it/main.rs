//! Whole backups on both databases: made while others write, restored into either, verified.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod house;
mod matrix;
mod objects;
mod refused;
mod writers;
