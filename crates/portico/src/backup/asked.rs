//! Backups made, listed and verified by the running process.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cli::{BackupNow, Remote};
use crate::client::{Client, encoded};
use crate::table::{Table, cell, plain};
use crate::text::say;

const BACKUPS: &str = "/api/control/backups";
/// How often a backup that is being made or verified is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(6 * 3_600);

/// Asks for a backup and waits for it.
pub(super) async fn now(remote: &Remote, now: &BackupNow) -> Result<u8> {
    let client = Client::connect(&remote.connect)?;
    let wish = json!({ "include_objects": now.include_objects });
    let asked = client.post(BACKUPS, &wish).await?;
    let backup = settled(&client, &asked, |state| {
        !["waiting", "running"].contains(&state)
    })
    .await?;
    if remote.json {
        say!("{backup:#}");
    } else if backup["state"] == "done" {
        say!(
            "{}: {} bytes; not verified yet",
            cell(&backup["location"]),
            backup["bytes"]
        );
    }
    Ok(ended(&backup))
}

/// The backups that the process knows.
pub(super) async fn list(remote: &Remote) -> Result<u8> {
    let client = Client::connect(&remote.connect)?;
    let all = client.pages(BACKUPS).await?;
    if remote.json {
        say!("{}", Value::from(all));
        return Ok(0);
    }
    let mut table = Table::new(&[
        "ID", "MADE", "STATE", "KIND", "BYTES", "VERIFIED", "LOCATION",
    ]);
    for backup in &all {
        let verified = match (&backup["verified_at"], &backup["report"]["good"]) {
            (Value::String(at), _) => at.clone(),
            (_, Value::Bool(false)) => "FAULTY".to_owned(),
            _ => "never".to_owned(),
        };
        table.row([
            cell(&backup["id"]),
            cell(&backup["at"]),
            cell(&backup["state"]),
            cell(&backup["kind"]),
            cell(&backup["bytes"]),
            verified,
            cell(&backup["location"]),
        ]);
    }
    if table.is_empty() {
        say!("there is no backup yet; `portico backup` makes one");
    } else {
        table.print();
    }
    Ok(0)
}

/// Lets the process verify one and waits for it.
pub(super) async fn verify(remote: &Remote, backup: &str) -> Result<u8> {
    let client = Client::connect(&remote.connect)?;
    let id = find(&client, backup).await?;
    let path = format!("{BACKUPS}/{}/verify", encoded(&id));
    let asked = client.post(&path, &json!({})).await?;
    let done = settled(&client, &asked, |state| state == "done").await?;
    if remote.json {
        say!("{done:#}");
    } else if let Some(findings) = done["report"]["findings"].as_array() {
        for finding in findings {
            let mark = if finding["fault"] == true {
                "FAULT"
            } else {
                "ok"
            };
            say!(
                "{mark:5} {}: {}",
                cell(&finding["service"]),
                cell(&finding["what"])
            );
        }
    }
    Ok(u8::from(done["report"]["good"] != true))
}

/// The id of a backup that is named by id, name or the beginning of its id.
async fn find(client: &Client, backup: &str) -> Result<String> {
    let all = client.pages(BACKUPS).await?;
    let named = |one: &&Value| {
        one["location"] == backup || one["id"].as_str().is_some_and(|id| id.starts_with(backup))
    };
    let mut found = all.iter().filter(named).map(|one| cell(&one["id"]));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => bail!("several backups begin with {}", plain(backup)),
        _ => bail!("there is no backup {}", plain(backup)),
    }
}

/// Waits until a backup's state is one that lasts.
async fn settled(client: &Client, asked: &Value, lasts: fn(&str) -> bool) -> Result<Value> {
    let id = cell(&asked["id"]);
    let path = format!("{BACKUPS}/{}", encoded(&id));
    let waiting = async {
        loop {
            let backup = client.get(&path).await?;
            if lasts(backup["state"].as_str().unwrap_or_default()) {
                return Ok(backup);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(backup) => backup,
        Err(_) => bail!("backup {id} has not ended; look at it with `portico backup list`"),
    }
}

fn ended(backup: &Value) -> u8 {
    if backup["state"] == "done" {
        return 0;
    }
    eprintln!(
        "portico: the backup failed: {}",
        plain(&cell(&backup["error"]))
    );
    1
}
