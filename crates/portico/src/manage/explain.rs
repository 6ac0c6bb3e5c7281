//! `portico route explain`: what a request would meet, without sending it.

use anyhow::Result;
use serde_json::Value;

use super::print_json;
use crate::cli::ExplainArgs;
use crate::client::{Client, encoded};
use crate::table::{Table, cell, plain};
use crate::text::{self, say};

/// Asks and prints.
pub(super) async fn run(client: &Client, wanted: &ExplainArgs, as_json: bool) -> Result<u8> {
    let method = wanted.method.to_ascii_uppercase();
    let mut path = format!(
        "/api/gateway/explain?method={}&url={}",
        encoded(&method),
        encoded(&wanted.target)
    );
    if let Some(principal) = &wanted.principal {
        path.push_str(&format!("&principal={}", encoded(principal)));
    }
    if let Some(address) = &wanted.from {
        path.push_str(&format!("&address={}", encoded(address)));
    }
    let found = client.get(&path).await?;
    if as_json {
        print_json(&found)?;
        return Ok(0);
    }
    say!("{} {}", plain(&method), plain(&wanted.target));
    text::print(&steps(&found));
    say!("{}", plain(&verdict(&found)));
    let instances = instances(&found);
    if !instances.is_empty() {
        say!("");
        instances.print();
    }
    Ok(0)
}

/// What was decided on the way, one decision a line.
fn steps(found: &Value) -> String {
    let steps = || found["steps"].as_array().into_iter().flatten();
    let width = steps()
        .filter_map(|s| s["step"].as_str())
        .map(str::len)
        .max();
    let width = width.unwrap_or(0);
    steps()
        .map(|step| {
            let mark = if step["passes"] == true { "+" } else { "x" };
            let line = format!(
                "  {mark} {:width$}  {}",
                cell(&step["step"]),
                cell(&step["why"])
            );
            plain(&line) + "\n"
        })
        .collect()
}

/// Who could answer, the one that would be chosen first marked.
fn instances(found: &Value) -> Table {
    let mut table = Table::new(&[
        "INSTANCE",
        "ADDRESS",
        "WEIGHT",
        "IN FLIGHT",
        "LATENCY",
        "BREAKER",
        "",
    ]);
    for item in found["instances"].as_array().into_iter().flatten() {
        let latency = item["latency_us"]
            .as_f64()
            .map(|us| format!("{:.1} ms", us / 1000.0));
        let mark = match item["ejected"] == true {
            true => "ejected",
            false if item["id"] == found["instance"] => "likely",
            false => "",
        };
        table.row([
            cell(&item["id"]),
            cell(&item["address"]),
            cell(&item["weight"]),
            cell(&item["in_flight"]),
            latency.unwrap_or_default(),
            cell(&item["breaker"]),
            mark.to_owned(),
        ]);
    }
    table
}

/// What would happen, in one sentence.
fn verdict(found: &Value) -> String {
    let refused = &found["refused"];
    if refused.is_object() {
        return format!(
            "is answered {} {} at the door",
            cell(&refused["status"]),
            cell(&refused["code"])
        );
    }
    match (found["service"].as_str(), found["version"].as_str()) {
        (Some(service), Some(version)) => format!("goes to {service} {version}"),
        (Some(service), None) => format!("goes to {service}"),
        (None, _) => format!("is answered by {}", cell(&found["route"])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decisions_stand_below_each_other() {
        let found = json!({
            "steps": [{ "step": "path", "passes": true, "why": "ok" }, { "step": "access", "passes": false, "why": "no\u{1b}" }],
            "instance": "b", "instances": [{ "id": "a", "ejected": true }, { "id": "b", "latency_us": 1500, "ejected": false }],
        });
        assert_eq!(steps(&found), "  + path    ok\n  x access  no·\n");
        let text = instances(&found).text(false);
        assert!(
            text.contains("1.5 ms") && text.contains("likely") && text.contains("ejected"),
            "{text}"
        );
    }

    #[test]
    fn verdicts() {
        for (found, sentence) in [
            (
                json!({ "refused": { "status": 404, "code": "gateway.not_found" } }),
                "is answered 404 gateway.not_found at the door",
            ),
            (
                json!({ "service": "hello", "version": "2.0.0" }),
                "goes to hello 2.0.0",
            ),
            (json!({ "service": "registry" }), "goes to registry"),
            (json!({ "route": "/docs" }), "is answered by /docs"),
        ] {
            assert_eq!(verdict(&found), sentence);
        }
    }
}
