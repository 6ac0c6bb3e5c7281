//! `portico keys`: the keys that access tokens are signed with.

use anyhow::Result;
use serde_json::json;

use super::print_json;
use crate::cli::{KeysArgs, KeysCommand};
use crate::client::Client;
use crate::table::{Table, cell};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: KeysArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let (answer, done) = match args.command {
        KeysCommand::List => (client.get("/api/identity/keys").await?, None),
        KeysCommand::Rotate { reason } => {
            let wish = json!({ "reason": reason });
            let answer = client.post("/api/identity/keys/rotate", &wish).await?;
            (answer, Some("the next key signs from now on"))
        }
        KeysCommand::Emergency {
            end_sessions,
            reason,
        } => {
            let wish = json!({ "emergency": true, "end_sessions": end_sessions, "reason": reason });
            let answer = client.post("/api/identity/keys/rotate", &wish).await?;
            (
                answer,
                Some("every key was dropped; no access token of before is good"),
            )
        }
    };
    if args.remote.json {
        print_json(&answer)?;
        return Ok(0);
    }
    let mut table = Table::new(&["KEY", "ALGORITHM", "STATE", "SIGNS FROM", "RETIRED"]);
    for key in answer["items"].as_array().into_iter().flatten() {
        table.row(["kid", "alg", "state", "not_before", "retired_at"].map(|name| cell(&key[name])));
    }
    if !table.is_empty() {
        table.print();
    }
    if let Some(done) = done {
        say!("{done}");
    }
    Ok(0)
}
