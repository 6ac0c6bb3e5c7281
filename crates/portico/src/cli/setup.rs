//! Commands about the process itself: configuration, schema, health, tokens and names.

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigFlags, Remote};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Data directory of the running process [default: ./portico-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<std::path::PathBuf>,
    /// The outcome as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bash:  source <(portico completion bash)\n  \
    zsh:   portico completion zsh > ~/.zfunc/_portico\n  \
    fish:  portico completion fish > ~/.config/fish/completions/portico.fish")]
pub(crate) struct CompletionArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// The commented default file.
    Default,
    /// Report every fault with its place; exit code 2 when there is one.
    Check(ConfigFlags),
    /// The values in force, secrets masked.
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
    /// The answer as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) action: Option<MigrateAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum MigrateAction {
    /// Which steps were done, and when.
    Status,
    /// Which steps would be done.
    Plan,
    /// Do them (the default).
    Up,
}

#[derive(Debug, Args)]
pub(crate) struct PluginArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: PluginCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Make a registration token; it is shown once.
    Token(TokenArgs),
    /// Registration tokens, without the tokens themselves.
    Tokens,
    /// Take a registration token back.
    Revoke {
        /// Id of the token, as `portico plugin tokens` shows it.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
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
}

#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Keep a service name for whoever an administrator gives it to.
    Reserve {
        /// The name.
        name: String,
    },
    /// Release a reserved or owned name.
    Release {
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
