//! Black-box tests: the real binary, real sockets, real signals.

mod attacks;
mod cli;
mod house;
mod life;
mod raw;
mod run_command;
mod upstreams;
