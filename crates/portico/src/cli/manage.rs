//! Commands that look at a running Portico and change what it does.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Remote;

#[derive(Debug, Args)]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Go on and tell every change, one a line, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    portico instances list\n  \
    portico instances drain hello/127.0.0.1:9000 --reason 'new kernel'\n  \
    portico instances weight hello/127.0.0.1:9000 10")]
pub(crate) struct InstancesArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: InstancesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstancesCommand {
    /// All instances, with their ids.
    List {
        /// Only of this service.
        #[arg(long)]
        service: Option<String>,
    },
    /// No new requests; what runs may finish; then it is taken out.
    Drain {
        /// Its id or the beginning of it, SERVICE when it has one instance, or SERVICE/ADDRESS.
        instance: String,
        /// Why, for its history.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take it out of service until it is resumed.
    Maintenance {
        /// Its id or the beginning of it, SERVICE when it has one instance, or SERVICE/ADDRESS.
        instance: String,
        /// Why, for its history.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// End a drain or a maintenance.
    Resume {
        /// Its id or the beginning of it, SERVICE when it has one instance, or SERVICE/ADDRESS.
        instance: String,
    },
    /// Change its share of traffic.
    Weight {
        /// Its id or the beginning of it, SERVICE when it has one instance, or SERVICE/ADDRESS.
        instance: String,
        /// 0 to 1000, or `registered` for what it asked for itself.
        weight: String,
    },
    /// The last changes of its state, newest first.
    History {
        /// Its id or the beginning of it, SERVICE when it has one instance, or SERVICE/ADDRESS.
        instance: String,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "A file holds one object, a list of objects, or tables of them by kind:\n\n  \
    [[routes]]\n  \
    name = \"docs\"\n  \
    [routes.doc]\n  \
    path = { prefix = \"/docs-of-hello\" }\n  \
    target = { service = { name = \"hello\" } }\n\n\
    The output of `portico route list --json` is such a file; a `version` in it guards against overwriting \
    what somebody else changed meanwhile."
)]
pub(crate) struct RouteArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Kind of the objects: routes, limits, cache-rules, cors, transforms, hosts, blocks, releases.
    #[arg(long, global = true, default_value = "routes", value_parser = ["routes", "limits", "cache-rules", "cors", "transforms", "hosts", "blocks", "releases"], hide_possible_values = true)]
    pub(crate) kind: String,
    #[command(subcommand)]
    pub(crate) command: RouteCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// All of them, in the order of their names.
    List,
    /// One, as JSON.
    Get {
        /// Its name.
        name: String,
    },
    /// Create or change what a file says, after showing the difference.
    Apply {
        /// JSON or TOML; `-` for JSON from standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Only show what would change, and every fault.
        #[arg(long)]
        dry_run: bool,
        /// Why, for the history.
        #[arg(short, long, default_value = "", hide_default_value = true)]
        message: String,
    },
    /// What changed between two versions [default: the newest and the one before].
    Diff {
        /// Its name.
        name: String,
        /// The older version.
        #[arg(long)]
        from: Option<i64>,
        /// The newer version.
        #[arg(long)]
        to: Option<i64>,
    },
    /// Its versions, newest first.
    History {
        /// Its name.
        name: String,
    },
    /// Make an earlier version the newest again.
    Rollback {
        /// Its name.
        name: String,
        /// Version to return to [default: the one before].
        #[arg(long)]
        to: Option<i64>,
        /// Why, for the history.
        #[arg(short, long)]
        message: Option<String>,
    },
    /// Delete it; its history stays, so that `rollback` brings it back.
    Delete {
        /// Its name.
        name: String,
    },
    /// Which route, checks, limits, version and instances a request would meet, without sending it.
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// `/api/hello/x`, or with a host: `https://api.example.com/hello/x`.
    pub(crate) target: String,
    /// Method of the request.
    #[arg(short = 'X', long, default_value = "GET")]
    pub(crate) method: String,
    /// Who would send it: `anonymous`, `operator`, or `user;sub=alice;roles=editor,admin;scopes=…` [default: you].
    #[arg(long = "as", value_name = "PRINCIPAL")]
    pub(crate) principal: Option<String>,
    /// From which address [default: yours].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    portico release set hello v2=10         a tenth of the traffic gets version 2\n  \
    portico release set hello v2=10 --stable 1.4.0\n  \
    portico release set hello v2 --plan     by itself, step by step, guarded\n  \
    portico release promote hello           the candidate becomes the stable version\n  \
    portico release rollback hello          back to what held before")]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: ReleaseCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// The release of a service, or of all that have one.
    Show {
        /// Name of the service [default: all].
        service: Option<String>,
    },
    /// Put a version on trial with a share of the traffic in percent: `v2=10`.
    Set(ReleaseSet),
    /// Go to the next step of the roll-out (1, 5, 10, 25, 50, 100 % without a plan).
    Step(ReleaseOrder),
    /// Hold the roll-out where it is.
    Pause(ReleaseOrder),
    /// Go on after a pause.
    Resume(ReleaseOrder),
    /// All traffic to the candidate, which becomes the stable version.
    Promote(ReleaseOrder),
    /// No traffic to the candidate any more.
    Abort(ReleaseOrder),
    /// Undo the last switch; with --to return to an earlier version of the release.
    Rollback {
        #[command(flatten)]
        order: ReleaseOrder,
        /// Version of the release to return to, as its history numbers them.
        #[arg(long)]
        to: Option<i64>,
    },
}

/// A release to change, and why.
#[derive(Debug, Args)]
pub(crate) struct ReleaseOrder {
    /// Name of the service.
    pub(crate) service: String,
    /// Why, for the history.
    #[arg(short, long)]
    pub(crate) message: Option<String>,
}

/// A version on trial.
#[derive(Debug, Args)]
pub(crate) struct ReleaseSet {
    /// Name of the service.
    pub(crate) service: String,
    /// VERSION=PERCENT; 2 and v2 stand for the highest version 2 that is there. With --plan VERSION is enough.
    pub(crate) share: String,
    /// The version that gets the rest [default: what the release says, else the highest other one].
    #[arg(long)]
    pub(crate) stable: Option<String>,
    /// Raise the share by itself and stop when the candidate does worse [default steps: 1,5,10,25,50,100].
    #[arg(long, value_name = "STEPS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) plan: Option<String>,
    /// Seconds that each step of the plan holds [default: 300].
    #[arg(long, value_name = "SECONDS", requires = "plan")]
    pub(crate) hold: Option<u32>,
    /// Why, for the history.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(crate) message: String,
}

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Make stored answers stale, or remove them with --hard.
    Purge(PurgeArgs),
    /// What the cache of this replica holds.
    Stats,
    /// What the cache knows of an address, and why it is or is not served from it.
    Explain {
        /// `/api/hello/x`, or with a host: `https://api.example.com/hello/x`.
        target: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) what: PurgeWhat,
    /// Gone at once; without it they become stale, and still serve while their origin fails.
    #[arg(long)]
    pub(crate) hard: bool,
}

/// What is purged: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PurgeWhat {
    /// One address: `/path?query` on every host, or `https://host/path?query`.
    pub(crate) address: Option<String>,
    /// Every address that begins so.
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Answers with this word in their `Cache-Tag`.
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Answers of this service.
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Answers for this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "A decision holds on all replicas and survives a restart.")]
pub(crate) struct BreakerArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: BreakerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BreakerCommand {
    /// All breakers, with their last failures.
    List,
    /// Force it open: no requests for a time.
    Open(BreakerOrder),
    /// Force it closed: requests go through, whatever fails.
    Close(BreakerOrder),
    /// Let it decide by itself again.
    Auto {
        /// Which breaker.
        id: String,
    },
}

/// A decision about a breaker.
#[derive(Debug, Args)]
pub(crate) struct BreakerOrder {
    /// Which breaker: id of an instance or service, or name of a service.
    pub(crate) id: String,
    /// For how many seconds, up to a day; then it decides by itself again.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Why, for the audit record.
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The store is served on the Consul-compatible listener; for these commands --url is its \
                        address [default: `CONSUL_HTTP_ADDR`, else what the data directory says].\n\nExamples:\n  \
    portico kv put app/colour blue\n  \
    portico kv put app/logo @logo.svg\n  \
    portico kv ls app/\n  \
    portico kv watch app/ --recurse"
)]
pub(crate) struct KvArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: KvCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// The value of a key, as it is.
    Get {
        /// The key.
        key: String,
    },
    /// Write a value.
    Put {
        /// The key.
        key: String,
        /// The value; `@FILE` for a file's content, `-` or nothing for standard input.
        value: Option<String>,
        /// Only when the key still has this index; 0: only when it is not there.
        #[arg(long, value_name = "INDEX")]
        cas: Option<u64>,
        /// A number kept with the value.
        #[arg(long, default_value_t = 0)]
        flags: u64,
    },
    /// Keys below a prefix, one level at a time.
    Ls {
        /// The prefix [default: everything].
        #[arg(default_value = "")]
        prefix: String,
        /// All levels.
        #[arg(short, long)]
        recurse: bool,
    },
    /// Remove a key.
    Rm {
        /// The key, or with --recurse a prefix.
        key: String,
        /// Everything that begins with it.
        #[arg(short, long)]
        recurse: bool,
        /// Only when the key still has this index.
        #[arg(long, value_name = "INDEX", conflicts_with = "recurse")]
        cas: Option<u64>,
    },
    /// Tell the value, and every change, one a line, until Ctrl-C.
    Watch {
        /// The key, or with --recurse a prefix.
        key: String,
        /// Everything that begins with it.
        #[arg(short, long)]
        recurse: bool,
    },
}
