//! Black-box tests: the real binary, real sockets, real signals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod cli;
mod clock;
mod crowd;
mod disk;
mod door;
mod house;
mod life;
mod matrix;
mod prometheus;
mod raw;
mod recorder;
mod run_command;
mod scaled;
mod upstreams;
