//! Commands about the audit: search, verify, export, checkpoint.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Remote;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    portico audit search --action 'identity.user.*' --since 24h\n  \
    portico audit verify\n  \
    portico audit export --out audit.jsonl && portico audit verify --file audit.jsonl")]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Records, newest first; the last fifty, unless more are asked for.
    Search(Box<SearchArgs>),
    /// Hash everything again and say whether anybody touched it. Exit code 1 when somebody did.
    Verify(Box<VerifyArgs>),
    /// Write the chain with its records, exactly as they were hashed, to a file that verifies anywhere.
    Export(ExportArgs),
    /// Sign the chain now, and print the signature to keep elsewhere.
    Checkpoint,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Id of whoever acted.
    #[arg(long, value_name = "ID")]
    pub(crate) actor: Option<String>,
    /// An action, or the beginning of one followed by `*`.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// What it was about, `type/id`.
    #[arg(long, value_name = "TYPE/ID")]
    pub(crate) target: Option<String>,
    /// A tenant's id, `system` or `default` [default: all that you may see].
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// How it ended: success, denied or failed.
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Address of the caller.
    #[arg(long)]
    pub(crate) ip: Option<String>,
    /// Id of the request.
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// A changed field.
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// Not before: a time (2026-01-31T12:00:00Z), or so long ago (90m, 24h, 7d).
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Before: a time, or so long ago.
    #[arg(long, value_name = "WHEN")]
    pub(crate) until: Option<String>,
    /// All of them.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// First number [default: the beginning].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
    /// Last number [default: the end].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) to: Option<u64>,
    /// Verify an exported file, without Portico.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) file: Option<PathBuf>,
    /// With `--file`: the public key that must have signed, in hex; may be given several times.
    #[arg(long = "key", value_name = "KEY", requires = "file")]
    pub(crate) keys: Vec<String>,
    /// Read the database itself instead of asking the running Portico.
    #[arg(long, conflicts_with = "file")]
    pub(crate) offline: bool,
    /// With `--offline`: configuration file [default: portico.toml here, in the data directory, in /etc/portico].
    #[arg(long, value_name = "FILE", requires = "offline")]
    pub(crate) config: Option<PathBuf>,
    /// With `--offline`: `sqlite://PATH` or `postgres://…` [default: what the configuration says].
    #[arg(long, value_name = "URL", requires = "offline")]
    pub(crate) database: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// File to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// First number [default: the beginning].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
    /// Last number [default: the end].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) to: Option<u64>,
}
