//! The binary: command line, list of services, process roles.
#![expect(
    clippy::print_stderr,
    reason = "a command line tool; what it prints on standard output goes through `text`"
)]

mod audit;
mod backup;
mod banner;
mod cli;
mod client;
mod completion;
mod composition;
mod config;
mod demo;
mod docs;
mod health;
mod manage;
mod migrate;
mod names;
mod operate;
mod people;
mod reload;
mod run;
mod serve;
mod settings;
mod signal;
mod status;
mod table;
mod text;
mod token;
mod version;

use std::future::Future;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use portico_host::{StartError, exit};

use crate::cli::{Cli, Command, ConfigCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The only failure is that a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("portico: {error:#}");
            ExitCode::from(
                error
                    .downcast_ref::<StartError>()
                    .map_or(exit::FAILED, |e| e.code),
            )
        }
    }
}

fn dispatch(cli: Cli) -> Result<u8> {
    match cli
        .command
        .unwrap_or_else(|| Command::Serve(Box::new(cli.serve)))
    {
        Command::Serve(args) => serve::run(&args),
        Command::Run(args) => small(run::run(*args)),
        Command::Status(args) => small(status::run(args)),
        Command::Health(args) => small(health::run(args)),
        Command::Demo(args) => small(async { demo::run(args).await.map(|()| 0) }),
        Command::Config(ConfigCommand::Default) => done(config::print_default),
        Command::Config(ConfigCommand::Schema) => done(config::print_schema),
        Command::Config(ConfigCommand::Docs) => done(config::print_docs),
        Command::Config(ConfigCommand::Check(flags)) => Ok(config::check(&flags)),
        Command::Config(ConfigCommand::Show { flags, origin }) => Ok(config::show(&flags, origin)),
        Command::Migrate(args) => small(migrate::run(args)),
        Command::Audit(args) => small(audit::run(args)),
        Command::Backup(args) => small(backup::run(args)),
        Command::Restore(args) => small(backup::restore(*args)),
        Command::Services(args) => small(manage::services(args)),
        Command::Instances(args) => small(manage::instances(args)),
        Command::Route(args) => small(manage::routes(args)),
        Command::Release(args) => small(manage::release(args)),
        Command::Cache(args) => small(manage::cache(args)),
        Command::Breaker(args) => small(manage::breakers(args)),
        Command::Kv(args) => small(manage::kv(args)),
        Command::Settings(args) => small(settings::run(args)),
        Command::Secrets(args) => small(settings::secrets(args)),
        Command::Admin(args) => small(people::admin(args)),
        Command::User(args) => small(people::user(args)),
        Command::Apikey(args) => small(people::apikey(args)),
        Command::Keys(args) => small(people::keys(args)),
        Command::Token(args) => small(people::token(args)),
        Command::Sms(args) => small(people::sms(args)),
        Command::Identity(cli::IdentityCommand::Argon2Tune { json }) => people::argon2_tune(json),
        Command::Jobs(args) => small(operate::jobs(args)),
        Command::Cron(args) => small(operate::cron(args)),
        Command::Doctor(args) => small(operate::doctor(args)),
        Command::Plugin(args) => small(token::run(args)),
        Command::Registry(args) => small(names::run(args)),
        Command::Reload(args) => small(reload::run(args)),
        Command::Completion(args) => done(|| completion::print(args.shell)),
        Command::Docs(which) => docs::print(which).map(|()| 0),
        Command::Version { json } => done(|| version::print(json)),
    }
}

fn done(print: impl FnOnce()) -> Result<u8> {
    print();
    Ok(0)
}

/// Runs a command that needs no more than one thread.
fn small(command: impl Future<Output = Result<u8>>) -> Result<u8> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime could not be made")?
        .block_on(command)
}
