//! `portico completion`: words for the shell's Tab key.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::text;

/// Prints the script of a shell.
pub(crate) fn print(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "portico", &mut script);
    text::print(&String::from_utf8_lossy(&script));
}
