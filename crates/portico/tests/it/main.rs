//! Black-box tests: the real binary, real sockets, real signals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod bystanders;
mod chaos;
mod cli;
mod clock;
mod commands;
mod crowd;
mod demo;
mod disk;
mod door;
mod house;
mod http2;
mod life;
mod matrix;
mod operate;
mod prometheus;
mod raw;
mod recorder;
mod release;
mod rolling;
mod run_command;
mod scaled;
mod scaled_hostile;
mod scaled_outage;
mod shop;
mod sockets;
mod telemetry;
mod tls;
mod upstreams;
mod vectors;
mod wire;
