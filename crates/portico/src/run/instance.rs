//! One copy of a program: start, wait until it listens, register, watch, deregister, restart.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use portico_base::SystemRandom;
use portico_base::secret::new_token;
use tokio::process::Child;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::child;
use super::output::Output;
use super::plugin::{self, Endpoint, Registered, Registration};
use super::restart::Backoff;
use crate::cli::Restart;
use crate::client::Client;

const START_LIMIT: Duration = Duration::from_secs(30);
const END_GRACE: Duration = Duration::from_secs(10);
/// Between "no new requests" and SIGTERM, so that short requests that are under way still get their answer
/// from programs that end at once.
const DRAIN: Duration = Duration::from_millis(300);

/// What to run and how to register it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) number: u16,
    pub(crate) version: String,
    /// Tells the copy apart for good, so that its successor takes its place; its address when absent.
    pub(crate) key: Option<String>,
    pub(crate) public: bool,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) health: Option<String>,
    pub(crate) weight: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) base_path: String,
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) restart: Option<Restart>,
    pub(crate) announce: bool,
    pub(crate) quiet: bool,
}

/// An editor saves a file in several steps; together they are one change.
const SETTLE: Duration = Duration::from_millis(100);

enum Ended {
    Exited(Option<ExitStatus>),
    Stopped,
    Changed,
}

/// Keeps one copy running until it ends for good or `stop` is cancelled; answers its exit code.
pub(crate) async fn supervise(
    client: &Client,
    plan: Plan,
    output: &Output,
    mut changed: watch::Receiver<u64>,
    stop: CancellationToken,
) -> Result<u8> {
    let mut backoff = Backoff::default();
    let mut announce = plan.announce;
    loop {
        let begun = Instant::now();
        let (ended, code) = once(client, &plan, output, &mut changed, &stop, announce).await?;
        announce = false;
        let again = match (&ended, plan.restart) {
            (Ended::Stopped, _) => false,
            (Ended::Changed, _) => true,
            (Ended::Exited(_), Some(Restart::Always)) => true,
            (Ended::Exited(_), Some(Restart::OnFailure)) => code != 0,
            (Ended::Exited(_), None) => false,
        };
        if !again {
            return Ok(code);
        }
        let (wait, text) = match ended {
            Ended::Changed => (SETTLE, "a file changed, starts again".to_owned()),
            _ => {
                let wait = backoff.next(begun.elapsed());
                let seconds = wait.as_secs();
                let text = format!("ended with code {code}, starts again in {seconds} s");
                (wait, text)
            }
        };
        say(&plan, output, &text);
        tokio::select! {
            () = stop.cancelled() => return Ok(code),
            () = tokio::time::sleep(wait) => {}
        }
        // Whatever changed until here is what starts now.
        changed.borrow_and_update();
    }
}

async fn once(
    client: &Client,
    plan: &Plan,
    output: &Output,
    changed: &mut watch::Receiver<u64>,
    stop: &CancellationToken,
    announce: bool,
) -> Result<(Ended, u8)> {
    let port = child::free_port()?;
    let secret = new_token("pis_", &SystemRandom);
    let mut environment = plan.environment.clone();
    environment.insert("PORTICO_URL".to_owned(), client.url.clone());
    environment.insert("PORTICO_SERVICE".to_owned(), plan.name.clone());
    environment.insert(
        "PORTICO_INSTANCE_SECRET".to_owned(),
        secret.expose().clone(),
    );
    let mut process = child::start(&plan.command, port, &environment)?;
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let forward = async {
        let out = async {
            if let Some(stream) = stdout {
                output.forward(&plan.label, plan.number, stream).await;
            }
        };
        let err = async {
            if let Some(stream) = stderr {
                output.forward(&plan.label, plan.number, stream).await;
            }
        };
        tokio::join!(out, err);
    };
    let registration = registration(plan, port, secret.expose());
    let watched = watch_over(
        client,
        plan,
        output,
        &registration,
        &mut process,
        changed,
        stop,
        announce,
    );
    // What the program still writes while it ends is shown too, but a grandchild that keeps the
    // pipe open does not hold us.
    tokio::pin!(watched, forward);
    let result = tokio::select! {
        result = &mut watched => {
            let _ = tokio::time::timeout(Duration::from_millis(200), forward).await;
            result
        }
        () = &mut forward => watched.await,
    }?;
    Ok(result)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one step of the life of one copy"
)]
async fn watch_over(
    client: &Client,
    plan: &Plan,
    output: &Output,
    registration: &Registration,
    process: &mut Child,
    changed: &mut watch::Receiver<u64>,
    stop: &CancellationToken,
    announce: bool,
) -> Result<(Ended, u8)> {
    tokio::select! {
        status = process.wait() => {
            let code = child::code(status.ok());
            say(plan, output, &format!("ended with code {code} before it listened on port {}", registration.port));
            return Ok((Ended::Exited(None), if code == 0 { 1 } else { code }));
        }
        () = stop.cancelled() => {
            let status = child::end(process, END_GRACE).await;
            return Ok((Ended::Stopped, child::code(status)));
        }
        listens = child::listens(registration.port, START_LIMIT) => if !listens {
            child::end(process, END_GRACE).await;
            bail!("{} does not listen on port {} after {} s", plan.label, registration.port, START_LIMIT.as_secs());
        }
    }
    let registered = match register(client, registration, stop).await {
        Ok(registered) => registered,
        Err(error) => {
            child::end(process, END_GRACE).await;
            return Err(error);
        }
    };
    if announce {
        show(client, plan, output);
    }
    let beats = CancellationToken::new();
    let heart = plugin::keep_alive(
        client,
        registration,
        registered.clone(),
        |text| say(plan, output, text),
        beats.clone(),
    );
    let ended = tokio::select! {
        status = process.wait() => Ended::Exited(status.ok()),
        () = stop.cancelled() => Ended::Stopped,
        _ = changed.changed() => Ended::Changed,
        () = heart => Ended::Stopped,
    };
    leave(client, plan, output, &registered, &ended).await;
    let status = match ended {
        Ended::Exited(status) => status,
        Ended::Stopped | Ended::Changed => {
            tokio::time::sleep(DRAIN).await;
            child::end(process, END_GRACE).await
        }
    };
    let code = match ended {
        // A program that ends on our SIGTERM did what it was told.
        Ended::Stopped | Ended::Changed => 0,
        Ended::Exited(_) => child::code(status),
    };
    Ok((ended, code))
}

/// Registers, and waits for a gateway that is not there yet.
async fn register(
    client: &Client,
    registration: &Registration,
    stop: &CancellationToken,
) -> Result<Registered> {
    let mut wait = Duration::from_millis(100);
    loop {
        match plugin::register(client, registration).await {
            Ok(registered) => return Ok(registered),
            Err(error) if plugin::is_final(&error) || stop.is_cancelled() => return Err(error),
            Err(_) => tokio::time::sleep(wait).await,
        }
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

async fn leave(
    client: &Client,
    plan: &Plan,
    output: &Output,
    registered: &Registered,
    ended: &Ended,
) {
    let (now, reason) = match ended {
        Ended::Exited(_) => (true, "the program ended"),
        Ended::Stopped => (false, "stopped"),
        Ended::Changed => (false, "restarts after a change"),
    };
    if let Err(error) = plugin::deregister(client, &registered.id, now, reason).await {
        say(plan, output, &format!("could not be deregistered: {error}"));
    }
}

fn registration(plan: &Plan, port: u16, secret: &str) -> Registration {
    let health_check_url = plan
        .health
        .as_ref()
        .map(|path| format!("http://127.0.0.1:{port}{path}"));
    Registration {
        name: plan.name.clone(),
        version: plan.version.clone(),
        host: "127.0.0.1".to_owned(),
        port,
        base_path: plan.base_path.clone(),
        instance_key: plan
            .key
            .clone()
            .unwrap_or_else(|| format!("127.0.0.1:{port}")),
        instance_secret: secret.to_owned(),
        weight: plan.weight,
        tags: plan.tags.clone(),
        default_access: if plan.public {
            "public"
        } else {
            "authenticated"
        },
        endpoints: plan.endpoints.clone(),
        health_check_url,
        metadata: BTreeMap::from([("started_by".to_owned(), "portico run".to_owned())]),
    }
}

fn show(client: &Client, plan: &Plan, output: &Output) {
    if plan.quiet {
        return;
    }
    let url = format!("{}/api/{}/", client.url, plan.name);
    let line = match (&client.token_file, plan.public) {
        (Some(file), false) => {
            let header = quoted(&format!("@{}", file.display()));
            format!("curl -H {header} {url}")
        }
        (None, false) => format!("curl -H \"Authorization: Bearer $PORTICO_TOKEN\" {url}"),
        (_, true) => format!("curl {url}"),
    };
    output.line(
        &plan.label,
        plan.number,
        &format!("is behind the door: {line}"),
    );
}

/// A word as a shell takes it, quoted only where it must be.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn say(plan: &Plan, output: &Output, text: &str) {
    if plan.quiet {
        tracing::info!(service = %plan.label, "{text}");
    } else {
        output.line(&plan.label, plan.number, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in [
            "@portico-data/operator.token",
            "@my data/operator.token",
            "it's",
            "$(reboot)",
            "",
            "ü",
        ] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
        assert_eq!(quoted("@a/b.token"), "@a/b.token");
    }
}
