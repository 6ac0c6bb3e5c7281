//! Flags of `portico run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ConnectArgs;

/// Put any program behind the door.
///
/// Portico picks a free port, gives it to the program as `PORT` and in place of `{port}`, waits until
/// the program listens, registers it, and prints the line that calls it. Ctrl-C takes it out and ends it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    portico run --name hello --public -- python3 -m http.server '{port}'\n  \
    portico run --name api --version 2.1.0 --health /healthz --restart -- ./api --port '{port}'\n  \
    portico run --name api --instances 3 --watch src -- node server.js")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Name of the service: `[a-z][a-z0-9-]{1,39}`; it is reached at /api/NAME/.
    #[arg(long)]
    pub(crate) name: String,
    /// Version of the program.
    #[arg(long, default_value = "0.0.0")]
    pub(crate) version: String,
    /// Anybody may call it; without this only callers with a credential.
    #[arg(long, conflicts_with = "role")]
    pub(crate) public: bool,
    /// Only callers with this role may call it; several: one of them.
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Vec<String>,
    /// Path that answers 2xx while the program is well.
    #[arg(long, value_name = "PATH")]
    pub(crate) health: Option<String>,
    /// Share of traffic, 0 to 1000.
    #[arg(long, default_value_t = 100)]
    pub(crate) weight: u16,
    /// Label of the instance; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Copies to start, 1 to 64.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) instances: u16,
    /// Prefix of the program's own paths: /api/NAME/x becomes PREFIX/x.
    #[arg(long, value_name = "PREFIX", default_value = "/")]
    pub(crate) base_path: String,
    /// File of NAME=VALUE lines for the program's environment.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// Restart when a file below this folder changes.
    #[arg(long, value_name = "DIR")]
    pub(crate) watch: Option<PathBuf>,
    /// Start it again when it ends, with back-off from 1 to 30 s.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub(crate) restart: Option<Restart>,
    /// The program with its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// When a program that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// When it failed.
    OnFailure,
    /// Always.
    Always,
}
