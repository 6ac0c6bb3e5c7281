//! `portico apikey`: keys for programs.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use super::{find, print_json};
use crate::cli::{ApikeyArgs, ApikeyCommand, WhoArgs};
use crate::client::{Client, encoded};
use crate::table::{Table, cell};
use crate::text::say;

const PATH: &str = "/api/identity/api-keys";

/// Carries out one command.
pub(crate) async fn run(args: ApikeyArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let as_json = args.remote.json;
    match args.command {
        ApikeyCommand::List => list(&client, as_json).await,
        ApikeyCommand::Create {
            name,
            scopes,
            services,
            cidrs,
            owner,
            days,
        } => {
            let mut wish =
                json!({ "name": name, "scopes": scopes, "services": services, "cidrs": cidrs });
            if let Some(owner) = owner {
                let who = WhoArgs {
                    user: owner,
                    tenant: None,
                };
                wish["owner_user_id"] = find(&client, &who).await?["id"].clone();
            }
            if let Some(days) = days {
                let end = chrono::Utc::now() + chrono::Duration::days(i64::from(days));
                wish["expires_at"] = serde_json::to_value(end)?;
            }
            let made = client.post(PATH, &wish).await?;
            if as_json {
                print_json(&made)?;
            } else {
                say!("{}", cell(&made["key"]));
                eprintln!(
                    "this key is shown only once; it ends {}",
                    cell(&made["expires_at"])
                );
            }
            Ok(0)
        }
        ApikeyCommand::Revoke { id } => {
            let path = format!("{PATH}/{}", encoded(&id));
            client.call(Method::DELETE, &path, None::<&Value>).await?;
            if as_json {
                print_json(&json!({ "id": id, "revoked": true }))?;
            } else {
                say!("revoked {id}");
            }
            Ok(0)
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<u8> {
    let keys = client.pages(PATH).await?;
    if as_json {
        print_json(&Value::Array(keys))?;
        return Ok(0);
    }
    if keys.is_empty() {
        say!(
            "there are no API keys; make one: portico apikey create --name NAME --scope PERMISSION"
        );
        return Ok(0);
    }
    let mut table = Table::new(&["ID", "NAME", "SCOPES", "EXPIRES", "USED"]);
    for key in &keys {
        let scopes = key["scopes"].as_array().into_iter().flatten();
        table.row([
            cell(&key["id"]),
            cell(&key["name"]),
            scopes.map(cell).collect::<Vec<_>>().join(" "),
            cell(&key["expires_at"]),
            cell(&key["last_used_at"]),
        ]);
    }
    table.print();
    Ok(0)
}
