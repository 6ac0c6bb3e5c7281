//! `portico cron`: what is due again and again.

use anyhow::Result;
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{CronArgs, CronCommand};
use crate::client::{Client, encoded};
use crate::table::{Table, cell};
use crate::text::say;

const PATH: &str = "/api/control/cron";

/// Carries out one command.
pub(crate) async fn run(args: CronArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    match args.command {
        CronCommand::List => list(&client, args.remote.json).await,
        CronCommand::Run { name } => {
            let path = format!("{PATH}/{}/run", encoded(&name));
            let asked = client.post(&path, &json!({})).await?;
            if args.remote.json {
                print_json(&asked)?;
            } else if asked["job_id"].is_string() {
                say!("{name} runs as job {}", cell(&asked["job_id"]));
            } else {
                say!("{name} runs");
            }
            Ok(0)
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<u8> {
    let found = client.get(PATH).await?;
    if as_json {
        print_json(&found["items"])?;
        return Ok(0);
    }
    let mut table = Table::new(&["NAME", "WHEN", "ZONE", "NEXT", "LAST", "RESULT", "TOOK"]);
    for entry in found["items"].as_array().into_iter().flatten() {
        let last = &entry["last"];
        let took = last["took_ms"].as_i64().map(|ms| format!("{ms} ms"));
        table.row([
            cell(&entry["name"]),
            when(entry),
            cell(&entry["time_zone"]),
            cell(&entry["next"][0]),
            cell(&last["tick"]),
            cell(&last["outcome"]),
            took.unwrap_or_default(),
        ]);
    }
    table.print();
    Ok(0)
}

fn when(entry: &Value) -> String {
    if entry["enabled"] == false {
        return "off".to_owned();
    }
    match entry["every_s"].as_f64() {
        Some(every) => format!("every {every} s"),
        None => cell(&entry["expression"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_when_it_is_due() {
        assert_eq!(
            when(&json!({ "enabled": true, "every_s": 5.0 })),
            "every 5 s"
        );
        let cron = json!({ "enabled": true, "every_s": null, "expression": "0 3 * * *" });
        assert_eq!(when(&cron), "0 3 * * *");
        assert_eq!(when(&json!({ "enabled": false, "expression": "x" })), "off");
    }
}
