//! The command line: a contract that scripts rely on. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod audit;
mod backup;
mod connect;
mod manage;
mod operate;
mod people;
mod run;
mod serve;
mod settings;
mod setup;

use clap::{Parser, Subcommand};

pub(crate) use audit::{AuditArgs, AuditCommand, ExportArgs, SearchArgs, VerifyArgs};
pub(crate) use backup::{BackupArgs, BackupCommand, BackupNow, RestoreArgs};
pub(crate) use connect::{ConnectArgs, Remote};
pub(crate) use manage::{
    BreakerArgs, BreakerCommand, BreakerOrder, CacheArgs, CacheCommand, ExplainArgs, InstancesArgs,
    InstancesCommand, KvArgs, KvCommand, PurgeArgs, PurgeWhat, ReleaseArgs, ReleaseCommand,
    ReleaseSet, RouteArgs, RouteCommand, ServicesArgs,
};
pub(crate) use operate::{CronArgs, CronCommand, DoctorArgs, JobsArgs, JobsCommand};
pub(crate) use people::{
    AccessTokenArgs, AccessTokenCommand, AdminArgs, AdminCommand, ApikeyArgs, ApikeyCommand,
    IdentityCommand, KeysArgs, KeysCommand, NewUserArgs, SmsArgs, SmsCommand, UserArgs,
    UserCommand, WhoArgs,
};
pub(crate) use run::{Restart, RunArgs};
pub(crate) use serve::{ConfigFlags, ServeArgs};
pub(crate) use settings::{
    ChangeArgs, KeyCopyArgs, SecretsArgs, SecretsCommand, SettingsArgs, SettingsCommand,
};
pub(crate) use setup::{
    CompletionArgs, ConfigCommand, Demo, DemoArgs, DocsCommand, HealthArgs, MigrateAction,
    MigrateArgs, PluginArgs, PluginCommand, RegistryArgs, RegistryCommand, ReloadArgs, StatusArgs,
    TokenArgs,
};

/// A self-hosted application platform in one binary: gateway, registry, and what will stand on them.
///
/// Without a command Portico starts with everything it needs in ./portico-data and listens on this
/// machine only. `portico run` puts any program behind its door; `portico status` shows who is there.
#[derive(Debug, Parser)]
#[command(
    name = "portico",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration; a start that fails says \
                  3 data directory in use, 4 database too new, 5 dependency missing, 6 wrong master key."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start Portico; the same as no command at all.
    Serve(Box<ServeArgs>),
    /// Put any program behind the door: it gets a port, is registered, watched, and taken out at its end.
    Run(Box<RunArgs>),
    /// Health, services and instances of the running Portico.
    Status(StatusArgs),
    /// Services with their versions and health.
    Services(ServicesArgs),
    /// Running copies of services: list, drain, resume, weight, maintenance.
    Instances(InstancesArgs),
    /// Routes and the gateway's other objects: list, apply from a file, compare, roll back, explain.
    Route(RouteArgs),
    /// How traffic is divided among the versions of a service: canary, promotion, rollback.
    Release(ReleaseArgs),
    /// The response cache: purge, figures, explain.
    Cache(CacheArgs),
    /// Circuit breakers: list them, force one open or closed.
    Breaker(BreakerArgs),
    /// Keys and values that programs share (the Consul-compatible store).
    Kv(KvArgs),
    /// Settings: list, change, history, roll back, export, apply, watch.
    Settings(SettingsArgs),
    /// Master keys and what they seal: status, rotate.
    Secrets(SecretsArgs),
    /// Rescue of people: the first administrator, forgotten passwords, roles.
    Admin(AdminArgs),
    /// Users: list, show, disable, enable, roles, log out, export, erase.
    User(UserArgs),
    /// API keys for programs.
    Apikey(ApikeyArgs),
    /// Keys that access tokens are signed with: list, rotate, emergency.
    Keys(KeysArgs),
    /// Access tokens: inspect.
    Token(AccessTokenArgs),
    /// Messages: test a provider, check the vendors' examples.
    Sms(SmsArgs),
    /// Password hashing on this machine.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Who did what: search, verify that nobody touched it, export.
    Audit(AuditArgs),
    /// Durable work: list, show, retry, cancel.
    Jobs(JobsArgs),
    /// Schedules: list them, run one now.
    Cron(CronArgs),
    /// Look at everything that can be wrong: processes, database, storage, clock, disk, certificates, audit.
    Doctor(DoctorArgs),
    /// Tokens with which plug-ins register.
    Plugin(PluginArgs),
    /// Names of services: reserve and release.
    Registry(RegistryArgs),
    /// Is it ready? Exit code 0 or 1, for containers and scripts.
    Health(HealthArgs),
    /// Let the running Portico read its configuration again.
    Reload(ReloadArgs),
    /// Look at the configuration without starting anything.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Bring the database's schema up to this binary.
    Migrate(MigrateArgs),
    /// Make a backup: one encrypted file with everything but the master key. Also: list, verify.
    Backup(BackupArgs),
    /// Restore a backup into an empty data directory or database.
    Restore(Box<RestoreArgs>),
    /// Print a completion script for your shell.
    Completion(CompletionArgs),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["portico"], words].concat())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_run_keeps_the_command() {
        let cli = parse(&["--listen", "127.0.0.1:0", "--no-demo"]).unwrap();
        assert!(cli.command.is_none() && cli.serve.config.no_demo);
        let cli = parse(&[
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

    #[test]
    fn flags_of_the_start_before_a_command_are_refused_instead_of_forgotten() {
        assert!(parse(&["--data-dir", "x", "status"]).is_err());
        assert!(parse(&["status", "--data-dir", "x"]).is_ok());
    }

    #[test]
    fn connection_flags_stand_before_or_behind_the_word() {
        for words in [
            &["instances", "--json", "drain", "x"][..],
            &["instances", "drain", "x", "--json"],
        ] {
            let Some(Command::Instances(args)) = parse(words).unwrap().command else {
                panic!("not instances")
            };
            assert!(args.remote.json, "{words:?}");
        }
    }

    /// Everything that a newcomer reads begins with a sentence.
    #[test]
    fn every_command_and_every_flag_says_what_it_is() {
        fn walk(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} says nothing");
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(
                    matches!(id, "help" | "version") || argument.get_help().is_some(),
                    "{path} {id} says nothing"
                );
            }
            for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
                walk(below, &format!("{path} {}", below.get_name()));
            }
        }
        walk(&Cli::command(), "portico");
    }
}
