//! Commands about backups, and about copies of the master key.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Remote;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BackupCommand>,
    #[command(flatten)]
    pub(crate) now: BackupNow,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Configuration file, where no Portico runs that could be asked.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Make a backup now; the same as no word at all.
    Now(BackupNow),
    /// The backups that there are, with their size and whether they were verified.
    List,
    /// Restore a backup into a scratch database, look for faults, and throw the scratch away.
    Verify {
        /// File, or id or name in the list.
        backup: String,
        /// File with identities, for a backup that was made for a recipient (AGE-SECRET-KEY-1…).
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
    },
}

#[derive(Debug, Default, Args)]
pub(crate) struct BackupNow {
    /// Write it into this file instead of where backups are kept; works beside a running Portico.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Take the objects along; those of a bucket are only named otherwise.
    #[arg(long)]
    pub(crate) include_objects: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup: a file, or its name where backups are kept.
    pub(crate) file: String,
    /// Data directory or database to restore into, both empty [default: those of the configuration].
    #[arg(long, value_name = "DIR|postgres://…")]
    pub(crate) into: Option<String>,
    /// Whoever was logged in when the backup was made stays so; access tokens are dead nevertheless.
    #[arg(long)]
    pub(crate) keep_sessions: bool,
    /// Leave the objects of the backup where they are.
    #[arg(long)]
    pub(crate) without_objects: bool,
    /// Move a database that is there aside instead of refusing (SQLite); needs --yes.
    #[arg(long, requires = "yes")]
    pub(crate) replace: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    /// File of the master key; it becomes that of a data directory that has none.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
    /// File with identities, for a backup that was made for a recipient (AGE-SECRET-KEY-1…).
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory [default: ./portico-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
