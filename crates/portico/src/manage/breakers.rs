//! `portico breaker`: circuit breakers, and forcing one open or closed for a time.

use anyhow::Result;
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{BreakerArgs, BreakerCommand, BreakerOrder};
use crate::client::{Client, encoded};
use crate::table::{Table, cell, plain};
use crate::text::say;

/// Failures that a line shows.
const SHOWN: usize = 3;

/// Carries out one command.
pub(crate) async fn run(args: BreakerArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let as_json = args.remote.json;
    match args.command {
        BreakerCommand::List => list(&client, as_json).await,
        BreakerCommand::Open(order) => decide(&client, order, "open", as_json).await,
        BreakerCommand::Close(order) => decide(&client, order, "close", as_json).await,
        BreakerCommand::Auto { id } => {
            let path = format!("/api/gateway/breakers/{}/auto", encoded(&id));
            told(&client.post(&path, &json!({})).await?, as_json)
        }
    }
}

async fn decide(client: &Client, order: BreakerOrder, verb: &str, as_json: bool) -> Result<u8> {
    let mut body = json!({ "for_s": order.seconds });
    if let Some(reason) = order.reason {
        body["reason"] = Value::from(reason);
    }
    let path = format!("/api/gateway/breakers/{}/{verb}", encoded(&order.id));
    told(&client.post(&path, &body).await?, as_json)
}

fn told(now: &Value, as_json: bool) -> Result<u8> {
    if as_json {
        print_json(now)?;
        return Ok(0);
    }
    let breaker = &now["breaker"];
    let how = match now["until"].as_str() {
        Some(until) => format!(
            "forced {}, on all replicas, until {until}",
            cell(&breaker["forced"])
        ),
        None => format!("{}, decides by itself", cell(&breaker["state"])),
    };
    say!(
        "{} {}: {}",
        cell(&breaker["service"]),
        cell(&breaker["id"]),
        plain(&how)
    );
    Ok(0)
}

async fn list(client: &Client, as_json: bool) -> Result<u8> {
    let answer = client.get("/api/gateway/breakers").await?;
    if as_json {
        print_json(&answer)?;
        return Ok(0);
    }
    let mut table = Table::new(&["SERVICE", "WHAT", "STATE", "NOTE", "LAST FAILURES", "ID"]);
    for item in answer["items"].as_array().into_iter().flatten() {
        table.row([
            cell(&item["service"]),
            cell(&item["kind"]),
            cell(&item["state"]),
            note(item),
            failures(item),
            cell(&item["id"]),
        ]);
    }
    if table.is_empty() {
        say!("there are no breakers: no program is registered");
    } else {
        table.print();
    }
    Ok(0)
}

/// Why the state is what it is.
fn note(item: &Value) -> String {
    if let Some(ms) = item["forced_for_ms"].as_u64() {
        return format!("forced for {} s more", ms.div_ceil(1000));
    }
    match item["tries_again_ms"].as_u64() {
        Some(ms) => format!("tries again in {} s", ms.div_ceil(1000)),
        None => String::new(),
    }
}

/// The newest failures, newest first.
fn failures(item: &Value) -> String {
    let reasons = item["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .rev()
        .take(SHOWN);
    let words = reasons.map(|r| {
        let ago = r["ago_ms"].as_u64().unwrap_or(0) / 1000;
        format!("{} {ago} s ago", cell(&r["why"]))
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_says_why() {
        let item = json!({ "forced": "open", "forced_for_ms": 1500, "tries_again_ms": 10, "reasons": [{ "why": "connect", "ago_ms": 9000 }, { "why": "503", "ago_ms": 100 }] });
        assert_eq!(note(&item), "forced for 2 s more");
        assert_eq!(failures(&item), "503 0 s ago, connect 9 s ago");
        assert_eq!(
            note(&json!({ "tries_again_ms": 999 })),
            "tries again in 1 s"
        );
        assert_eq!(note(&json!({})), "");
    }
}
