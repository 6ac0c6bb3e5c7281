//! What the benchmarks need and Debian does not have: `portico-bench load` and `portico-bench answer`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod answer;
mod load;

use std::process::ExitCode;

const USAGE: &str = "usage: portico-bench <command>

  load HOST:PORT PATH RATE CONNECTIONS SECONDS [HEADER]…   requests at a fixed rate, one line of JSON
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
