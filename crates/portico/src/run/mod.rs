//! `portico run`: any program behind the door.

mod child;
mod instance;
mod output;
mod plugin;
mod restart;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use portico_base::name::is_service_name;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::RunArgs;
use crate::client::{Client, usage};

pub(crate) use instance::{Plan, supervise};
pub(crate) use output::Output;
pub(crate) use plugin::Endpoint;

/// Runs until Ctrl-C or until every copy has ended; the exit code is the first copy's that failed.
pub(crate) async fn run(args: RunArgs) -> Result<u8> {
    check(&args)?;
    let client = Client::connect(&args.connect)?;
    let environment = match &args.env_file {
        Some(file) => read_environment(file)?,
        None => BTreeMap::new(),
    };
    let stop = CancellationToken::new();
    let output = Arc::new(Output::new());
    let changed = watch::start(args.watch.as_deref())?;

    let mut copies = JoinSet::new();
    for number in 1..=args.instances {
        let plan = plan(&args, number, environment.clone());
        let (client, stop, output) = (client.clone(), stop.clone(), Arc::clone(&output));
        let changed = changed.subscribe();
        copies.spawn(async move { supervise(&client, plan, &output, changed, stop).await });
    }

    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let mut code = 0;
    while let Some(copy) = copies.join_next().await {
        match copy.context("a copy panicked")? {
            Ok(ended) if code == 0 => code = ended,
            Ok(_) => {}
            Err(error) => {
                stop.cancel();
                while copies.join_next().await.is_some() {}
                return Err(error);
            }
        }
    }
    signals.abort();
    Ok(code)
}

fn check(args: &RunArgs) -> Result<()> {
    let mut faults = Vec::new();
    if !is_service_name(&args.name) {
        faults.push(format!(
            "--name: `{}` is not of the form [a-z][a-z0-9-]{{1,39}}",
            args.name
        ));
    }
    if args.weight > 1000 {
        faults.push("--weight: must be from 0 to 1000".to_owned());
    }
    if let Some(path) = args.health.as_deref().filter(|p| !p.starts_with('/')) {
        faults.push(format!("--health: `{path}` must begin with /"));
    }
    if !args.base_path.starts_with('/') {
        faults.push(format!(
            "--base-path: `{}` must begin with /",
            args.base_path
        ));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(usage(faults.join("\n")))
    }
}

fn plan(args: &RunArgs, number: u16, environment: BTreeMap<String, String>) -> Plan {
    let mut endpoints = Vec::new();
    if !args.role.is_empty() {
        endpoints.push(Endpoint::with_roles("/*", args.role.clone()));
    }
    Plan {
        name: args.name.clone(),
        label: if args.instances > 1 {
            format!("{}/{number}", args.name)
        } else {
            args.name.clone()
        },
        number,
        version: args.version.clone(),
        key: None,
        public: args.public,
        endpoints,
        health: args.health.clone(),
        weight: args.weight,
        tags: args.tags.clone(),
        base_path: args.base_path.clone(),
        command: args.command.clone(),
        environment,
        restart: args.restart,
        announce: number == 1,
        quiet: false,
    }
}

/// Lines of `NAME=VALUE`; empty ones and those that begin with `#` are passed over.
fn read_environment(file: &Path) -> Result<BTreeMap<String, String>> {
    let read = std::fs::read_to_string(file).map_err(anyhow::Error::from);
    read.and_then(|text| parse_environment(&text))
        .map_err(|error| usage(format!("--env-file {}: {error}", file.display())))
}

fn parse_environment(text: &str) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.strip_prefix("export ").unwrap_or(line).split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                let value = value.trim();
                let plain = ['"', '\'']
                    .iter()
                    .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
                    .unwrap_or(value);
                values.insert(name.trim().to_owned(), plain.to_owned());
            }
            _ => bail!("line {}: expected NAME=VALUE", number + 1),
        }
    }
    Ok(values)
}

/// Cancels on the first Ctrl-C or SIGTERM.
async fn stop_on_signal(stop: CancellationToken) {
    crate::signal::first().await;
    stop.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files() {
        let values = parse_environment("# c\nA=1\nexport B=\"two words\"\n\nC='x=y'").unwrap();
        assert_eq!(values["A"], "1");
        assert_eq!(values["B"], "two words");
        assert_eq!(values["C"], "x=y");
        let error = parse_environment("A=1\nnonsense").unwrap_err();
        assert_eq!(error.to_string(), "line 2: expected NAME=VALUE");
    }
}
