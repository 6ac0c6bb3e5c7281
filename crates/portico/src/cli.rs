//! The command line: a contract that scripts rely on.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A self-hosted application platform in one binary: gateway, registry, and what will stand on them.
#[derive(Debug, Parser)]
#[command(name = "portico", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start Portico (the default command).
    Serve(Box<ServeArgs>),
    /// Start any program behind the door: it gets a free port, is registered, watched and deregistered.
    Run(Box<RunArgs>),
    /// Services, instances and their health.
    Status(StatusArgs),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Bring the database's schema up to this binary.
    Migrate(MigrateArgs),
    /// Tokens for plug-ins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Names of services.
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Is the process ready? Exit code 0 or 1, for containers.
    Health(HealthArgs),
    /// Print generated documentation.
    #[command(subcommand, hide = true)]
    Docs(DocsCommand),
    /// Run a demo plug-in; Portico starts these by itself.
    #[command(hide = true)]
    Demo(DemoArgs),
    /// Version, commit and compiler.
    Version {
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Flags of `serve`. Each is a key of the configuration as well; flags win over environment and file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFlags,
    /// Print one line of JSON with every real address once connections are accepted.
    #[arg(long)]
    pub(crate) ready_json: bool,
    /// No banner.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Allow listeners without a token on addresses that others can reach.
    #[arg(long)]
    pub(crate) insecure_listen: bool,
}

/// The flags that set keys of the configuration.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigFlags {
    /// Configuration file (TOML, YAML or JSON).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept [default: ./portico-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Public listener [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Consul-compatible listener [default: 127.0.0.1:8500].
    #[arg(long, value_name = "ADDR|off")]
    pub(crate) consul_listen: Option<String>,
    /// Metrics and health [default: 127.0.0.1:9100].
    #[arg(long, value_name = "ADDR|off")]
    pub(crate) admin_listen: Option<String>,
    /// What this process does [default: all].
    #[arg(long, value_name = "A,B,…")]
    pub(crate) roles: Option<String>,
    /// `sqlite://PATH` or `postgres://…` [default: a SQLite file in the data directory].
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Redis [default: none].
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Do not start the demo plug-ins.
    #[arg(long)]
    pub(crate) no_demo: bool,
}

/// How to reach a running process.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConnectArgs {
    /// Address of the gateway [default: `PORTICO_URL`, else from the data directory].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Credential [default: `PORTICO_TOKEN`, else the operator's token of the data directory].
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Data directory of the running process.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Name of the service: `[a-z][a-z0-9-]{1,39}`.
    #[arg(long)]
    pub(crate) name: String,
    /// Version of the instance.
    #[arg(long, default_value = "0.0.0")]
    pub(crate) version: String,
    /// Anybody may call it.
    #[arg(long, conflicts_with = "role")]
    pub(crate) public: bool,
    /// Only callers with this role may call it.
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
    /// Copies to start.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) instances: u16,
    /// Prefix of the program's paths.
    #[arg(long, default_value = "/")]
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
    /// The program; `{port}` in its arguments becomes its port, which is in `PORT` as well.
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

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// The commented default file.
    Default,
    /// Report every fault; exit code 2 when there is one.
    Check(ConfigFlags),
    /// The values in force.
    Show {
        #[command(flatten)]
        flags: ConfigFlags,
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
    },
    /// The JSON Schema of the file.
    Schema,
    /// The reference as Markdown.
    Docs,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFlags,
    #[command(subcommand)]
    pub(crate) action: Option<MigrateAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum MigrateAction {
    /// Which steps were done.
    Status,
    /// Which steps would be done.
    Plan,
    /// Do them (the default).
    Up,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Make a registration token; it is shown once.
    Token(TokenArgs),
    /// Registration tokens, without the tokens themselves.
    Tokens(StatusArgs),
    /// Take a registration token back.
    Revoke {
        #[command(flatten)]
        connect: ConnectArgs,
        /// Id of the token.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Name of the service that may be registered, or a prefix that ends in `*`.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
    /// Its endpoints may be public.
    #[arg(long)]
    pub(crate) allow_public: bool,
    /// It may get the callers' credentials.
    #[arg(long)]
    pub(crate) allow_credentials: bool,
    /// Most instances at once.
    #[arg(long)]
    pub(crate) max_instances: Option<u32>,
    /// Further scope (`registry:kv:read`); may be given several times.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// Life in days [default: no end].
    #[arg(long)]
    pub(crate) days: Option<u32>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Keep a service name for whoever an administrator gives it to.
    Reserve {
        #[command(flatten)]
        connect: ConnectArgs,
        /// The name.
        name: String,
    },
    /// Release a reserved or owned name.
    Release {
        #[command(flatten)]
        connect: ConnectArgs,
        /// The name.
        name: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum DocsCommand {
    /// OpenAPI 3.1 of the built-in services.
    Openapi,
    /// All metrics.
    Metrics,
    /// All settings.
    Settings,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Which plug-in.
    #[arg(value_enum)]
    pub(crate) which: Demo,
    /// Port on loopback [default: `PORT`].
    #[arg(long, env = "PORT")]
    pub(crate) port: u16,
    /// Version it shows.
    #[arg(long, default_value = "1.0.0")]
    pub(crate) show_version: String,
    /// Delay of each answer in milliseconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) delay_ms: u64,
}

/// A demo plug-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Demo {
    /// Says what it saw.
    Echo,
    /// Tells the time.
    Clock,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_run_keeps_the_command() {
        let cli = Cli::try_parse_from(["portico", "--listen", "127.0.0.1:0", "--no-demo"]).unwrap();
        assert!(cli.command.is_none() && cli.serve.config.no_demo);
        let cli = Cli::try_parse_from([
            "portico",
            "run",
            "--name",
            "hello",
            "--restart",
            "--",
            "python3",
            "-m",
            "http.server",
            "{port}",
        ])
        .unwrap();
        let Some(Command::Run(run)) = cli.command else {
            panic!("not run")
        };
        assert_eq!(run.command, ["python3", "-m", "http.server", "{port}"]);
        assert_eq!(run.restart, Some(Restart::Always));
    }
}
