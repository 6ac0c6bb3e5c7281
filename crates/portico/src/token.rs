//! `portico plugin`: registration tokens.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{PluginArgs, PluginCommand, TokenArgs};
use crate::client::{Client, encoded};
use crate::table::{Table, cell};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: PluginArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    match args.command {
        PluginCommand::Token(wish) => create(&client, wish, args.remote.json).await,
        PluginCommand::Tokens => list(&client, args.remote.json).await,
        PluginCommand::Revoke { id } => revoke(&client, &id, args.remote.json).await,
    }
}

/// Makes a token and prints it, once.
async fn create(client: &Client, wish: TokenArgs, as_json: bool) -> Result<u8> {
    let body = json!({
        "name_pattern": wish.service,
        "allow_public": wish.allow_public,
        "allow_credentials": wish.allow_credentials,
        "max_instances": wish.max_instances,
        "scopes": wish.scopes,
        "ttl_s": wish.days.map(|days| u64::from(days) * 86_400),
    });
    let answer = client.post("/api/registry/tokens", &body).await?;
    if as_json {
        say!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        say!("{}", answer["token"].as_str().unwrap_or_default());
        eprintln!(
            "this token is shown only once; it may register {}",
            wish.service
        );
    }
    Ok(0)
}

/// Lists tokens without their secret part.
async fn list(client: &Client, as_json: bool) -> Result<u8> {
    let tokens = client.pages("/api/registry/tokens").await?;
    if as_json {
        say!("{}", serde_json::to_string_pretty(&tokens)?);
        return Ok(0);
    }
    if tokens.is_empty() {
        say!("there are no registration tokens; make one: portico plugin token --service NAME");
        return Ok(0);
    }
    let mut table = Table::new(&["ID", "MAY REGISTER", "EXPIRES", "USED"]);
    for token in &tokens {
        table.row(["id", "name_pattern", "expires_at", "used_at"].map(|name| cell(&token[name])));
    }
    table.print();
    Ok(0)
}

/// Takes a token back.
async fn revoke(client: &Client, id: &str, as_json: bool) -> Result<u8> {
    let path = format!("/api/registry/tokens/{}", encoded(id));
    client.call(Method::DELETE, &path, None::<&Value>).await?;
    if as_json {
        say!("{}", json!({ "id": id, "revoked": true }));
    } else {
        say!("revoked {id}");
    }
    Ok(0)
}
