//! Commands about settings and secrets, over the API of a running Portico.

mod change;
mod exchange;
mod read;
mod secrets;

pub(crate) use secrets::run as secrets;

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cli::{SettingsArgs, SettingsCommand};
use crate::client::{Client, encoded};

/// What every command needs.
struct Session {
    client: Client,
    scope: Option<String>,
    json: bool,
}

impl Session {
    /// A path with the scope as its last parameter.
    fn path(&self, path: &str) -> String {
        let sign = if path.contains('?') { '&' } else { '?' };
        match &self.scope {
            None => path.to_owned(),
            Some(scope) => format!("{path}{sign}scope={}", encoded(scope)),
        }
    }
}

/// Carries out one command.
pub(crate) async fn run(args: SettingsArgs) -> Result<u8> {
    let session = Session {
        client: Client::connect(&args.remote.connect)?,
        scope: args.scope,
        json: args.remote.json,
    };
    match args.command {
        SettingsCommand::List { prefix, set } => read::list(&session, &prefix, set).await,
        SettingsCommand::Get { key } => read::get(&session, &key).await,
        SettingsCommand::Diff { key, from, to } => read::diff(&session, &key, from, to).await,
        SettingsCommand::History { key: Some(key) } => read::history(&session, &key).await,
        SettingsCommand::History { key: None } => read::sets(&session).await,
        SettingsCommand::Watch { after } => tokio::select! {
            result = read::watch(&session, after) => result,
            () = crate::signal::first() => Ok(0),
        },
        SettingsCommand::Set {
            key, value, change, ..
        } => change::set(&session, &key, value, &change).await,
        SettingsCommand::Rollback {
            what,
            version,
            change,
        } => change::rollback(&session, &what, version, &change).await,
        SettingsCommand::Export { prefix } => exchange::export(&session, &prefix).await,
        SettingsCommand::Apply {
            file,
            prune,
            change,
        } => exchange::apply(&session, &file, prune, &change).await,
    }
}

/// Prints an answer as JSON for programs.
fn print_json(value: &Value) -> Result<()> {
    crate::text::print(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}

/// Asks before something is changed; without a terminal `--yes` has to say it.
fn ask(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: say --yes, or --dry-run to look first");
    }
    let mut terminal = std::io::stderr();
    terminal.write_all(format!("{question} [y/N] ").as_bytes())?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    bail!("nothing was changed")
}
