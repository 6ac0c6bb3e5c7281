//! `portico audit verify`: by the running Portico, from the database, or from an exported file.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use portico_audit::Report;
use portico_base::SystemClock;
use portico_db::Db;
use portico_host::{StartError, exit};
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{ConfigFlags, Remote, VerifyArgs};
use crate::client::Client;
use crate::config;
use crate::text::say;

/// How long a verification by the running Portico is waited for.
const PATIENCE: Duration = Duration::from_secs(1_800);
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn run(remote: &Remote, wish: &VerifyArgs) -> Result<u8> {
    let began = std::time::Instant::now();
    let (report, here) = if let Some(path) = &wish.file {
        let file = File::open(path).with_context(|| format!("{}", path.display()))?;
        (of_file(file, &wish.keys)?, true)
    } else if wish.offline {
        (of_database(remote, wish).await?, true)
    } else {
        (of_process(remote, wish).await?, false)
    };
    if remote.json {
        print_json(&serde_json::to_value(&report)?)?;
    } else {
        tell(&report, here.then(|| began.elapsed()));
    }
    Ok(u8::from(!report.ok))
}

fn of_file(file: File, keys: &[String]) -> Result<Report> {
    let mut broken = None;
    let lines = BufReader::new(file).lines().map_while(|line| match line {
        Ok(line) => Some(line),
        Err(error) => {
            broken = Some(error);
            None
        }
    });
    let report = portico_audit::verify_lines(lines, keys).map_err(|why| anyhow!(why));
    match broken {
        Some(error) => Err(error).context("the file cannot be read"),
        None => report,
    }
}

async fn of_database(remote: &Remote, wish: &VerifyArgs) -> Result<Report> {
    let data_dir = remote.connect.data_dir.as_ref();
    let flags = ConfigFlags {
        config: wish.config.clone(),
        database: wish.database.clone(),
        data_dir: data_dir.map(|dir| dir.display().to_string()),
        ..ConfigFlags::default()
    };
    let loaded = config::load(&flags, Vec::new())
        .map_err(|faults| StartError::new(exit::USAGE, faults.to_string()))?;
    let options = portico_host::db_options(&loaded.config);
    let db = Db::connect(&options, Arc::new(SystemClock))
        .await
        .map_err(|error| {
            StartError::new(exit::DEPENDENCY, "the database cannot be reached").because(error)
        })?;
    let report = portico_audit::verify_database(&db, wish.from, wish.to).await;
    db.close().await;
    Ok(report?)
}

async fn of_process(remote: &Remote, wish: &VerifyArgs) -> Result<Report> {
    let client = Client::connect(&remote.connect)?;
    let before = client.get("/api/audit/chain").await?;
    let part = json!({ "from": wish.from, "to": wish.to });
    client.post("/api/audit/verify", &part).await?;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        let chain = client.get("/api/audit/chain").await?;
        if chain["verified_at"] != before["verified_at"] {
            let found: Value = chain["verified"].clone();
            return serde_json::from_value(found).context("the answer is not a report");
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("the verification takes longer than half an hour; `portico jobs list` shows it")
}

fn tell(report: &Report, took: Option<Duration>) {
    say!(
        "records {} to {}: {} hashed again, {} redacted, {} signatures checked, {} not sealed yet",
        report.from_seq,
        report.to_seq,
        report.checked,
        report.redacted,
        report.checkpoints,
        report.pending
    );
    if let Some(took) = took.filter(|took| !took.is_zero()) {
        let rate = report.checked as f64 / took.as_secs_f64();
        say!("{rate:.0} records a second");
    }
    match &report.fault {
        None => say!("in order"),
        Some(fault) => {
            let kind = serde_json::to_value(fault.kind).unwrap_or_default();
            let kind = kind.as_str().unwrap_or_default().replace('_', " ");
            say!("NOT IN ORDER at {}: {kind}: {}", fault.seq, fault.detail);
            if let Some(id) = fault.record_id {
                say!("record {id}");
            }
        }
    }
}
