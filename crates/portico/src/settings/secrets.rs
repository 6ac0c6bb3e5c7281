//! `portico secrets`: which master keys seal what, and sealing everything with the current one.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{ask, print_json};
use crate::backup::{export_keys, import_keys};
use crate::cli::{SecretsArgs, SecretsCommand};
use crate::client::Client;
use crate::table::{Table, cell};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: SecretsArgs) -> Result<u8> {
    match &args.command {
        SecretsCommand::Export(copy) => {
            return export_keys(args.remote.connect.data_dir.as_deref(), copy);
        }
        SecretsCommand::Import { copy, to } => return import_keys(copy, to),
        _ => {}
    }
    let client = Client::connect(&args.remote.connect)?;
    match args.command {
        SecretsCommand::Export(_) | SecretsCommand::Import { .. } => Ok(0),
        SecretsCommand::Status => {
            let status = client.get("/api/settings/secrets").await?;
            if args.remote.json {
                print_json(&status)?;
            } else {
                show(&status);
            }
            Ok(0)
        }
        SecretsCommand::Rotate { yes } => {
            ask("seal every secret with the current master key?", yes)?;
            rotate(&client, args.remote.json).await
        }
    }
}

fn show(status: &Value) {
    let current = cell(&status["current"]);
    let mut table = Table::new(&["TABLE", "MASTER KEY", "ENVELOPES", ""]);
    for (name, counts) in status["tables"].as_object().into_iter().flatten() {
        for (kid, n) in counts.as_object().into_iter().flatten() {
            let word = if *kid == current { "current" } else { "" };
            table.row([name.clone(), kid.clone(), cell(n), word.to_owned()]);
        }
    }
    if !table.is_empty() {
        table.print();
    }
    say!("the current key is {current}");
    for kid in status["known"].as_array().into_iter().flatten().map(cell) {
        if kid != current && status["totals"][&kid].as_u64().unwrap_or(0) == 0 {
            say!(
                "nothing is sealed with {kid} any more: it can be removed from keys.previous_files"
            );
        }
    }
}

async fn rotate(client: &Client, as_json: bool) -> Result<u8> {
    let (mut done, mut broken, mut after) = (0, 0, Value::Null);
    loop {
        let step = client
            .post("/api/settings/secrets/rotate", &json!({ "after": after }))
            .await?;
        done += step["done"].as_u64().unwrap_or(0);
        broken += step["broken"].as_u64().unwrap_or(0);
        after = step["next"].clone();
        if !as_json {
            say!("{done} sealed anew, {} left", cell(&step["left"]));
        }
        if after.is_null() {
            let left = step["left"].as_u64().unwrap_or(0);
            if as_json {
                print_json(&json!({ "done": done, "broken": broken, "left": left }))?;
            }
            if broken > 0 {
                bail!(
                    "{broken} cannot be opened with any key here: is a file missing in keys.previous_files?"
                );
            }
            return Ok(0);
        }
    }
}
