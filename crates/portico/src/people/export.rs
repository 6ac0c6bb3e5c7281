//! `portico user export`: a copy of everything that is kept about a user, in a zip file.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::{called, of_user, print_json};
use crate::client::Client;
use crate::text::say;

/// Between two looks whether the copy is ready.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks until the copy is given up: ten minutes.
const LOOKS: usize = 1_200;

/// Asks for the copy, waits for it, and writes it into a file that only this user can read.
pub(super) async fn run(
    client: &Client,
    user: &Value,
    reason: &str,
    output: Option<PathBuf>,
    as_json: bool,
) -> Result<u8> {
    let id = user["id"].as_str().unwrap_or_default();
    let path = output.unwrap_or_else(|| PathBuf::from(format!("{id}.zip")));
    // Before anything is asked for: the copy shall not be made in vain.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be made", path.display()))?;
    let made = fetch(client, user, reason, &mut file).await;
    if made.is_err() {
        // Nothing came of it; what is left would only be in the way of the next try.
        let _ = std::fs::remove_file(&path);
    }
    let export = made?;
    if as_json {
        print_json(&export)?;
    } else {
        say!("the data of {} is in {}", called(user), path.display());
    }
    Ok(0)
}

async fn fetch(
    client: &Client,
    user: &Value,
    reason: &str,
    file: &mut std::fs::File,
) -> Result<Value> {
    let wish = json!({ "reason": reason });
    let mut export = client
        .call(Method::POST, &of_user(user, "/export"), Some(&wish))
        .await?;
    let id = export["id"].as_str().unwrap_or_default().to_owned();
    for _ in 0..LOOKS {
        if export["state"] != "waiting" {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        export = client.get(&format!("/api/identity/exports/{id}")).await?;
    }
    let Some(url) = export["url"].as_str() else {
        bail!("the copy could not be made; the log of Portico says why");
    };
    let mut response = client.open(url).await?;
    while let Some(chunk) = response.chunk().await.context("the copy broke off")? {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(export)
}
