//! What the benchmarks need and Debian does not have: `portico-bench load`, `steps` and `answer`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod answer;
mod argon2;
mod link;
mod load;
mod steps;

use std::process::ExitCode;

const USAGE: &str = "usage: portico-bench <command>

  load HOST:PORT PATH RATE CONNECTIONS SECONDS [HEADER]…   requests at a fixed rate, one line of JSON
  steps HOST:PORT FILE CONNECTIONS SECONDS                 requests that follow from each other, closed loop
  argon2 M_KIB T P THREADS SECONDS                         hashes of the library alone
  answer HOST:PORT BYTES                                   a bare hyper server on one core";

// The same as the product's, so that the bare server has no other advantage than being bare.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [
            "load",
            address,
            path,
            rate,
            connections,
            seconds,
            headers @ ..,
        ] => load::Plan::parse(address, path, [rate, connections, seconds], headers)
            .and_then(|plan| plan.run())
            .map(|report| println!("{report}")),
        ["steps", address, file, connections, seconds] => {
            steps::run(address, file, connections, seconds).map(|report| println!("{report}"))
        }
        ["argon2", m, t, p, threads, seconds] => {
            argon2::run([m, t, p, threads, seconds]).map(|report| println!("{report}"))
        }
        ["answer", address, bytes] => answer::run(address, bytes),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
