//! How a command reaches the running process.

use std::path::PathBuf;

use clap::Args;

const HEADING: &str = "Which Portico";

/// How to reach a running process.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConnectArgs {
    /// Address of the gateway [default: `PORTICO_URL`, else what the data directory says].
    #[arg(long, value_name = "URL", global = true, help_heading = HEADING)]
    pub(crate) url: Option<String>,
    /// Credential [default: `PORTICO_TOKEN`, else the operator's token of the data directory].
    #[arg(long, value_name = "TOKEN", global = true, help_heading = HEADING)]
    pub(crate) token: Option<String>,
    /// Data directory of the running process [default: ./portico-data].
    // An id of its own: a global argument shares its value with all of its name, and the one of `serve` is
    // of another type.
    #[arg(id = "connect_data_dir", long = "data-dir", value_name = "DIR", global = true, help_heading = HEADING)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// A running process, and how its answer is shown.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Remote {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// The answer as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}
