//! `cargo xtask`: code generation, the rules of the house, benchmarks, the release binary.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod bench;
mod codegen;
mod dist;
mod licences;
mod proto;
mod security;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  tidy                 check the rules of the house
  codegen [--check]    write generated files anew, or fail when they are stale
  proto release        take the gRPC contracts as those of the last release
  licences             check the licences of all dependencies
  dist                 build the small release binary
  bench <name|all>     run a benchmark of bench/ beside its peers";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tidy"] => tidy::run(&root()),
        ["codegen"] => codegen::run(&root(), false),
        ["codegen", "--check"] => codegen::run(&root(), true),
        ["proto", "release"] => proto::release(&root()),
        ["licences"] => licences::run(&root()),
        ["dist"] => dist::run(&root()),
        ["bench", name, rest @ ..] => bench::run(&root(), name, rest),
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

/// The workspace's root: the folder above this crate's.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}
