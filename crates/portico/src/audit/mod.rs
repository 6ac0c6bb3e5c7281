//! `portico audit`: who did what, and the proof that nobody touched it.

mod export;
mod search;
mod verify;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::{AuditArgs, AuditCommand};
use crate::client::Client;
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: AuditArgs) -> Result<u8> {
    let remote = args.remote;
    match args.command {
        AuditCommand::Search(wish) => search::run(&remote, &wish).await,
        AuditCommand::Verify(wish) => verify::run(&remote, &wish).await,
        AuditCommand::Export(wish) => export::run(&remote, &wish).await,
        AuditCommand::Checkpoint => {
            let client = Client::connect(&remote.connect)?;
            let signed = client.post("/api/audit/checkpoints", &json!({})).await?;
            let chain = client.get("/api/audit/chain").await?;
            if remote.json {
                let all = json!({ "checkpoint": signed, "public_key": chain["public_key"] });
                print_json(&all)?;
                return Ok(0);
            }
            say!("signed up to {}", signed["seq"]);
            for name in ["link", "signature"] {
                say!("{name:<12}{}", signed[name].as_str().unwrap_or_default());
            }
            say!(
                "public key  {}",
                chain["public_key"].as_str().unwrap_or_default()
            );
            say!("keep these elsewhere: with them nobody can change what was before unseen");
            Ok(0)
        }
    }
}

/// Prints an answer as JSON for programs.
fn print_json(value: &Value) -> Result<()> {
    crate::text::print(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}
