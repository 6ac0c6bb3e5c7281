//! `portico doctor`: everything that can be wrong with an installation, a line each.

use anyhow::Result;
use serde_json::{Value, json};

use super::print_json;
use crate::cli::DoctorArgs;
use crate::client::Client;
use crate::table::{cell, plain};
use crate::text::say;

/// Looks, and says how many faults there are: 1 with any that failed, or, when asked so, with any at all.
pub(crate) async fn run(args: DoctorArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let system = client.get("/api/control/system").await?;
    let mut items: Vec<Value> = system["items"].as_array().cloned().unwrap_or_default();
    if let Some(chain) = client.find("/api/audit/chain").await? {
        items.push(of_chain(&chain));
    }
    let has = |status: &str| items.iter().any(|item| item["status"] == status);
    let fault = has("failed") || (args.strict && has("degraded"));
    if args.remote.json {
        print_json(&json!({ "ok": !fault, "items": items }))?;
    } else {
        for item in &items {
            let mark = match item["status"].as_str() {
                Some("ok") => "ok  ",
                Some("failed") => "FAIL",
                _ => "look",
            };
            say!(
                "{mark}  {:12}  {}",
                cell(&item["name"]),
                plain(&cell(&item["verdict"]))
            );
        }
    }
    Ok(u8::from(fault))
}

/// The audit chain by its last verification.
fn of_chain(chain: &Value) -> Value {
    let (status, verdict) = match chain["verified"]["ok"].as_bool() {
        Some(true) => (
            "ok",
            format!(
                "whole up to {} when last verified",
                cell(&chain["verified"]["to_seq"])
            ),
        ),
        Some(false) => (
            "failed",
            "the last verification found a fault: portico audit verify".to_owned(),
        ),
        None => ("ok", "not verified yet: portico audit verify".to_owned()),
    };
    json!({ "name": "audit", "status": status, "verdict": verdict, "facts": {
        "seq": chain["seq"], "pending": chain["pending"], "verified_at": chain["verified_at"],
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_chain_is_a_fault() {
        let of = |verified: Value| of_chain(&json!({ "seq": 9, "verified": verified }));
        assert_eq!(of(json!({ "ok": false }))["status"], "failed");
        assert_eq!(of(Value::Null)["status"], "ok");
        let good = of(json!({ "ok": true, "to_seq": 9 }));
        assert_eq!(good["verdict"], "whole up to 9 when last verified");
    }
}
