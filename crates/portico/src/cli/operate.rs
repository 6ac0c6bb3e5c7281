//! Commands about the running installation: jobs, schedules, its state.

use clap::{Args, Subcommand};

use super::Remote;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    portico jobs list --state dead\n  \
    portico jobs retry 01900000-0000-7000-8000-00000000dead\n  \
    portico jobs retry --kind identity.mail.send")]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) command: JobsCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Jobs, newest first; the last fifty, unless more are asked for.
    List {
        /// One kind, `service.verb`.
        #[arg(long)]
        kind: Option<String>,
        /// One state: ready, retrying, running, done, dead or cancelled.
        #[arg(long)]
        state: Option<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
    /// Everything about a job: payload without secrets, attempts, errors, last log lines.
    Show {
        /// Id of the job.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Try a job again, or all dead ones of a kind.
    Retry {
        /// Id of the job.
        #[arg(value_name = "ID", required_unless_present = "kind")]
        id: Option<String>,
        /// All dead jobs of this kind.
        #[arg(long, conflicts_with = "id")]
        kind: Option<String>,
        /// Only say how many these are.
        #[arg(long, requires = "kind")]
        dry_run: bool,
    },
    /// Take a waiting job back, or ask a running one to end.
    Cancel {
        /// Id of the job.
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Exit code 1 also when something should only be looked at.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct CronArgs {
    #[command(subcommand)]
    pub(crate) command: CronCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CronCommand {
    /// Schedules and what is due at an interval, with the next moment and the last result.
    List,
    /// Run one now.
    Run {
        /// Its name, `service.verb`.
        #[arg(value_name = "NAME")]
        name: String,
    },
}
