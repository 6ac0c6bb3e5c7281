//! Flags of `portico serve`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `serve`. Each is a key of the configuration as well; flags win over environment and file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFlags,
    /// Print one line of JSON with every real address once connections are accepted.
    #[arg(long, visible_alias = "json")]
    pub(crate) ready_json: bool,
    /// No banner.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Open the API page in a browser once connections are accepted.
    #[arg(long)]
    pub(crate) open: bool,
    /// Allow listeners without a token on addresses that others can reach.
    #[arg(long)]
    pub(crate) insecure_listen: bool,
}

/// The flags that set keys of the configuration.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigFlags {
    /// Configuration file: TOML, YAML or JSON [default: portico.toml here, in the data directory, in /etc/portico].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept [default: ./portico-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Where clients come in [default: 127.0.0.1:8080; port 0 takes a free one].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Consul-compatible listener [default: 127.0.0.1:8500].
    #[arg(long, value_name = "ADDR|off")]
    pub(crate) consul_listen: Option<String>,
    /// Metrics and health [default: 127.0.0.1:9100].
    #[arg(long, value_name = "ADDR|off")]
    pub(crate) admin_listen: Option<String>,
    /// gRPC of the built-in services [default: 127.0.0.1:9090].
    #[arg(long, value_name = "ADDR|off")]
    pub(crate) grpc_listen: Option<String>,
    /// Calls between services [default: 127.0.0.1:9091].
    #[arg(long, value_name = "ADDR|off")]
    pub(crate) internal_listen: Option<String>,
    /// What this process does, of gateway, registry, worker … [default: all].
    #[arg(long, value_name = "A,B,…")]
    pub(crate) roles: Option<String>,
    /// `sqlite://PATH` or `postgres://…` [default: a SQLite file in the data directory].
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Redis [default: none, everything stays in this process].
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Do not start the demo plug-ins.
    #[arg(long)]
    pub(crate) no_demo: bool,
}
