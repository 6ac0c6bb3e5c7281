//! `portico plugin`: registration tokens.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{ConnectArgs, StatusArgs, TokenArgs};
use crate::client::Client;

/// Makes a token and prints it, once.
pub(crate) async fn create(args: TokenArgs) -> Result<u8> {
    let client = Client::connect(&args.connect)?;
    let body = json!({
        "name_pattern": args.service,
        "allow_public": args.allow_public,
        "allow_credentials": args.allow_credentials,
        "max_instances": args.max_instances,
        "scopes": args.scopes,
        "ttl_s": args.days.map(|days| u64::from(days) * 86_400),
    });
    let answer = client.post("/api/registry/tokens", &body).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        println!("{}", answer["token"].as_str().unwrap_or_default());
        eprintln!(
            "this token is shown only once; it may register {}",
            args.service
        );
    }
    Ok(0)
}

/// Lists tokens without their secret part.
pub(crate) async fn list(args: StatusArgs) -> Result<u8> {
    let client = Client::connect(&args.connect)?;
    let answer = client.get("/api/registry/tokens?limit=200").await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&answer["items"])?);
        return Ok(0);
    }
    for token in answer["items"].as_array().into_iter().flatten() {
        let text = |name: &str| match &token[name] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        println!(
            "{}  {}  expires {}  used {}",
            text("id"),
            text("name_pattern"),
            text("expires_at"),
            text("used_at")
        );
    }
    Ok(0)
}

/// Takes a token back.
pub(crate) async fn revoke(connect: ConnectArgs, id: String) -> Result<u8> {
    let client = Client::connect(&connect)?;
    client
        .call(
            Method::DELETE,
            &format!("/api/registry/tokens/{id}"),
            None::<&Value>,
        )
        .await?;
    println!("revoked {id}");
    Ok(0)
}
