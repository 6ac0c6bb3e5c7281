//! `portico jobs`: durable work.

use anyhow::Result;
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{JobsArgs, JobsCommand};
use crate::client::{Client, encoded};
use crate::table::{Table, cell, facts, plain};
use crate::text::say;

const PATH: &str = "/api/control/jobs";

/// Carries out one command.
pub(crate) async fn run(args: JobsArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let as_json = args.remote.json;
    match args.command {
        JobsCommand::List { kind, state, all } => {
            let mut path = format!("{PATH}?");
            for (name, value) in [("kind", kind), ("state", state)] {
                if let Some(value) = value {
                    path.push_str(&format!("{name}={}&", encoded(&value)));
                }
            }
            let path = path.trim_end_matches(['?', '&']);
            list(&client, path, all, as_json).await
        }
        JobsCommand::Show { id } => show(&client, &id, as_json).await,
        JobsCommand::Retry { id: Some(id), .. } => command(&client, &id, "retry", as_json).await,
        JobsCommand::Retry { kind, dry_run, .. } => {
            let wish = json!({ "kind": kind, "action": "retry_dead", "dry_run": dry_run });
            let done = client.post(&format!("{PATH}/bulk"), &wish).await?;
            if as_json {
                print_json(&done)?;
                return Ok(0);
            }
            let verb = if dry_run {
                "would be tried"
            } else {
                "are tried"
            };
            say!("{} jobs {verb} again", cell(&done["count"]));
            if done["left"].as_u64().unwrap_or(0) > 0 {
                say!("{} are left for another time", cell(&done["left"]));
            }
            Ok(0)
        }
        JobsCommand::Cancel { id } => command(&client, &id, "cancel", as_json).await,
    }
}

async fn list(client: &Client, path: &str, all: bool, as_json: bool) -> Result<u8> {
    let jobs = if all {
        client.pages(path).await?
    } else {
        let page = client.get(path).await?;
        page["items"].as_array().cloned().unwrap_or_default()
    };
    if as_json {
        print_json(&Value::Array(jobs))?;
        return Ok(0);
    }
    if jobs.is_empty() {
        say!("there are no such jobs");
        return Ok(0);
    }
    let mut table = Table::new(&["ID", "KIND", "STATE", "TRIES", "DUE", "ERROR"]);
    for job in &jobs {
        let error: String = cell(&job["last_error"]).chars().take(60).collect();
        table.row([
            cell(&job["id"]),
            cell(&job["kind"]),
            cell(&job["state"]),
            format!("{}/{}", cell(&job["tries"]), cell(&job["max_tries"])),
            cell(&job["run_at"]),
            error,
        ]);
    }
    table.print();
    Ok(0)
}

async fn show(client: &Client, id: &str, as_json: bool) -> Result<u8> {
    let mut job = client.get(&format!("{PATH}/{}", encoded(id))).await?;
    if as_json {
        print_json(&job)?;
        return Ok(0);
    }
    let attempts = job["attempts"].take();
    if let Some(fields) = job.as_object_mut() {
        fields.remove("attempts");
    }
    for fact in facts(&job) {
        say!("{fact}");
    }
    for attempt in attempts.as_array().into_iter().flatten() {
        say!(
            "\ntry {} of {} by {}: {} {}",
            cell(&attempt["number"]),
            cell(&attempt["began_at"]),
            plain(&cell(&attempt["holder"])),
            cell(&attempt["outcome"]),
            plain(&cell(&attempt["error"]))
        );
        for line in attempt["logs"].as_array().into_iter().flatten() {
            say!("  {}", plain(&cell(line)));
        }
    }
    Ok(0)
}

async fn command(client: &Client, id: &str, verb: &str, as_json: bool) -> Result<u8> {
    let path = format!("{PATH}/{}/{verb}", encoded(id));
    let job = client.post(&path, &json!({})).await?;
    if as_json {
        print_json(&job)?;
    } else if job["cancel_asked"] == true {
        say!("{} is asked to end", cell(&job["id"]));
    } else {
        say!("{} is {}", cell(&job["id"]), cell(&job["state"]));
    }
    Ok(0)
}
