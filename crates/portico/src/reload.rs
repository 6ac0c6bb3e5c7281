//! `portico reload`: the running process reads its configuration again, and whoever asked learns what came of it.
//!
//! The order is SIGHUP, which only the same user or root may send; the outcome comes back in a file of the
//! data directory, which only they may read.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portico_host::datadir::holder;
use serde_json::{Value, json};

use crate::cli::ReloadArgs;
use crate::client::data_dir_or_default;
use crate::text::{self, say};

/// The file with the last outcome.
const OUTCOME: &str = "reload.json";
/// How long the process may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks for a reload and waits for its outcome.
pub(crate) async fn run(args: ReloadArgs) -> Result<u8> {
    let data_dir = data_dir_or_default(args.data_dir.as_deref());
    let Some(pid) = holder(&data_dir) else {
        bail!(
            "no Portico runs on {}; start `portico`, or say where it is with --data-dir",
            data_dir.display()
        );
    };
    let file = data_dir.join(OUTCOME);
    let before = std::fs::read_to_string(&file).ok();
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGHUP) {
        bail!("process {pid} cannot be told: {error}; run as the user who started it");
    }
    let outcome = wait(&file, before.as_deref()).await?;
    if args.json {
        text::print(&(serde_json::to_string_pretty(&outcome)? + "\n"));
    }
    if outcome["ok"] != true {
        let faults = outcome["faults"].as_str().unwrap_or_default();
        bail!("the configuration was not taken over, the old values hold:\n{faults}");
    }
    if !args.json {
        say!("the configuration was read again");
        let keys: Vec<&str> = outcome["needs_restart"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !keys.is_empty() {
            say!("these changes need a restart: {}", keys.join(", "));
        }
    }
    Ok(0)
}

async fn wait(file: &Path, before: Option<&str>) -> Result<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = std::fs::read_to_string(file).ok();
        if let Some(now) = now.filter(|now| Some(&**now) != before) {
            return Ok(serde_json::from_str(&now)?);
        }
        if Instant::now() >= end {
            bail!(
                "it did not say what came of it within {} s; its log does",
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Leaves the outcome of a reload for whoever asked: the keys that need a restart, or the faults. `number`
/// tells one outcome from the next.
pub(crate) fn leave_word(data_dir: &Path, number: u64, outcome: &Result<Vec<String>, String>) {
    let word = match outcome {
        Ok(restart) => json!({ "ok": true, "needs_restart": restart }),
        Err(faults) => json!({ "ok": false, "faults": faults }),
    };
    let mut word = word;
    word["pid"] = Value::from(std::process::id());
    word["number"] = Value::from(number);
    if let Err(error) = write(&data_dir.join(OUTCOME), &word.to_string()) {
        tracing::warn!(err = %error, "the outcome of the reload could not be written");
    }
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let temporary = file.with_extension("json.new");
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    out.write_all(text.as_bytes())?;
    std::fs::rename(&temporary, file)
}
