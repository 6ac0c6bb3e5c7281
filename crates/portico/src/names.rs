//! `portico registry`: names of services.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::ConnectArgs;
use crate::client::Client;

/// Reserves a name.
pub(crate) async fn reserve(connect: ConnectArgs, name: String) -> Result<u8> {
    let client = Client::connect(&connect)?;
    client
        .post("/api/registry/reservations", &json!({ "name": name }))
        .await?;
    println!("reserved {name}");
    Ok(0)
}

/// Releases a name.
pub(crate) async fn release(connect: ConnectArgs, name: String) -> Result<u8> {
    let client = Client::connect(&connect)?;
    client
        .call(
            Method::DELETE,
            &format!("/api/registry/reservations/{name}"),
            None::<&Value>,
        )
        .await?;
    println!("released {name}");
    Ok(0)
}
