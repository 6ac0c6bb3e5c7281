//! Commands about settings and secrets.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Remote;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    portico settings list gateway.\n  \
    portico settings set gateway.breaker.open_s 10 --comment \"calmer\" --yes\n  \
    portico settings rollback gateway.breaker.open_s 1 --yes\n  \
    portico settings export > settings.yaml\n  \
    portico settings apply settings.yaml --dry-run")]
pub(crate) struct SettingsArgs {
    #[command(subcommand)]
    pub(crate) command: SettingsCommand,
    /// `system`, or the id of a tenant [default: system for the operator].
    #[arg(long, global = true)]
    pub(crate) scope: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// How a change is made.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChangeArgs {
    /// Why, for the history and the audit.
    #[arg(long)]
    pub(crate) comment: Option<String>,
    /// Check everything and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SettingsCommand {
    /// Settings with the values in force and where they come from.
    List {
        /// Beginning of a key.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Only what is set, not what only the default says.
        #[arg(long)]
        set: bool,
    },
    /// One setting: value, source, version, what it is.
    Get {
        /// The key.
        key: String,
    },
    /// Change a setting. A secret is read from standard input with `-`.
    Set {
        /// The key.
        key: String,
        /// The value as JSON, or plain text for a text; `-` reads it from standard input.
        #[arg(required_unless_present = "reset")]
        value: Option<String>,
        /// Back to what holds without a value here.
        #[arg(long, conflicts_with = "value")]
        reset: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Compare two versions of a setting.
    Diff {
        /// The key.
        key: String,
        /// The older version; 0: nothing set.
        from: u64,
        /// The newer version.
        to: u64,
    },
    /// Versions of a setting, newest first; without a key the change sets.
    History {
        /// The key.
        key: Option<String>,
    },
    /// Bring a version of a setting back, or take a change set back.
    Rollback {
        /// The key, or the id of a change set.
        what: String,
        /// The version that comes back; for a key.
        version: Option<u64>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Print what is set as YAML, without secrets.
    Export {
        /// Beginning of a key.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Take the values of a file in, as one change; shows the difference first.
    Apply {
        /// YAML, JSON or TOML by its ending.
        file: PathBuf,
        /// Reset what is set now and not in the file; secrets never.
        #[arg(long)]
        prune: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Print changed settings as they come.
    Watch {
        /// Position to begin behind [default: from now on].
        #[arg(long)]
        after: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SecretsArgs {
    #[command(subcommand)]
    pub(crate) command: SecretsCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A copy of the master keys, and its passphrase.
#[derive(Debug, Args)]
pub(crate) struct KeyCopyArgs {
    /// The copy [default for export: standard output].
    pub(crate) file: Option<PathBuf>,
    /// The passphrase is the first line of standard input.
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// The passphrase is the first line of this file.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Which master keys seal how much, by table.
    Status,
    /// Write a copy of the master keys under a passphrase, to be kept where the backups are not.
    Export(KeyCopyArgs),
    /// Make the key file again from such a copy.
    Import {
        #[command(flatten)]
        copy: KeyCopyArgs,
        /// Where the key file is to be; there must be none.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Seal everything with the current master key, while everything runs. May be broken off and begun again.
    Rotate {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}
