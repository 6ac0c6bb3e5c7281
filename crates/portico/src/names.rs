//! `portico registry`: names of services.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{RegistryArgs, RegistryCommand};
use crate::client::{Client, encoded};
use crate::text::say;

/// Reserves or releases a name.
pub(crate) async fn run(args: RegistryArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let (name, word) = match args.command {
        RegistryCommand::Reserve { name } => {
            client
                .post("/api/registry/reservations", &json!({ "name": name }))
                .await?;
            (name, "reserved")
        }
        RegistryCommand::Release { name } => {
            let path = format!("/api/registry/reservations/{}", encoded(&name));
            client.call(Method::DELETE, &path, None::<&Value>).await?;
            (name, "released")
        }
    };
    if args.remote.json {
        say!("{}", json!({ "name": name, word: true }));
    } else {
        say!("{word} {name}");
    }
    Ok(0)
}
