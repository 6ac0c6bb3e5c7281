//! `portico services`: what is behind the door, and every change of it.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::print_json;
use crate::cli::ServicesArgs;
use crate::client::{ApiError, Client};
use crate::table::{Table, cell, plain};
use crate::text::{self, say};

/// Seconds of one long poll; below the client's own time-out.
const POLL_S: u32 = 10;
/// Between attempts while the gateway is away.
const AWAY: Duration = Duration::from_secs(1);

/// Prints the table; with `--watch` goes on with one line a change.
pub(crate) async fn run(args: ServicesArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    if !args.watch {
        let catalog = client.get("/api/registry/catalog").await?;
        if args.remote.json {
            print_json(&catalog["items"])?;
        } else {
            show(&catalog);
        }
        return Ok(0);
    }
    tokio::select! {
        result = watch(&client, args.remote.json) => result,
        () = crate::signal::first() => Ok(0),
    }
}

/// The catalogue as a table.
fn show(catalog: &Value) {
    let table = table(catalog);
    if table.is_empty() {
        say!(
            "no service is registered; try: portico run --name hello -- python3 -m http.server '{{port}}'"
        );
    } else {
        table.print();
    }
}

fn table(catalog: &Value) -> Table {
    let mut table = Table::new(&["SERVICE", "HEALTH", "VERSIONS", "INSTANCES", "DESCRIPTION"]);
    for item in catalog["items"].as_array().into_iter().flatten() {
        let words = |list: &Value| {
            let words = list.as_array().into_iter().flatten();
            words.map(cell).collect::<Vec<_>>().join(", ")
        };
        let states = item["instances"].as_object().into_iter().flatten();
        let states: Vec<String> = states.map(|(state, n)| format!("{n} {state}")).collect();
        table.row([
            cell(&item["name"]),
            health(item).to_owned(),
            words(&item["versions"]),
            states.join(", "),
            cell(&item["description"]),
        ]);
    }
    table
}

/// How a service is, in one word.
pub(crate) fn health(item: &Value) -> &str {
    let nobody = item["instances"].as_object().is_none_or(|i| i.is_empty());
    match item["health"].as_str() {
        _ if item["enabled"] == false => "disabled",
        // A built-in service lives where its role runs (OP-1).
        _ if item["builtin"] == true && nobody => "no process",
        Some(word) => word,
        None => "",
    }
}

async fn watch(client: &Client, as_json: bool) -> Result<u8> {
    let mut seq = begin(client, as_json).await?;
    let mut away = false;
    loop {
        let path = format!("/api/registry/watch?since={seq}&wait={POLL_S}");
        match client.get(&path).await {
            Ok(news) => {
                if away {
                    eprintln!("portico: the gateway answers again");
                }
                away = false;
                for event in news["events"].as_array().into_iter().flatten() {
                    tell(event, as_json);
                }
                seq = news["seq"].as_u64().unwrap_or(seq);
            }
            Err(error) => match error.downcast_ref::<ApiError>() {
                // The position is too old: everything is told anew.
                Some(api) if api.status == 410 => seq = begin(client, as_json).await?,
                Some(api) if api.status < 500 => return Err(error),
                _ => {
                    if !away {
                        eprintln!("portico: {error:#}; trying on");
                    }
                    away = true;
                    tokio::time::sleep(AWAY).await;
                }
            },
        }
    }
}

/// Tells how things are, and the position behind which changes follow. The position is taken first: a
/// change in between is told twice rather than never.
async fn begin(client: &Client, as_json: bool) -> Result<u64> {
    let now = client.get("/api/registry/watch?wait=0").await?;
    let catalog = client.get("/api/registry/catalog").await?;
    if as_json {
        text::print(&format!("{}\n", json!({ "services": catalog["items"] })));
    } else {
        show(&catalog);
    }
    Ok(now["seq"].as_u64().unwrap_or(0))
}

fn tell(event: &Value, as_json: bool) {
    if as_json {
        text::print(&format!("{event}\n"));
    } else {
        text::print(&format!("{}\n", plain(&line(event))));
    }
}

/// One change in one line.
fn line(event: &Value) -> String {
    let at = event["at"].as_str().unwrap_or_default();
    // Only the time of day: whoever watches knows the date.
    let time = at.get(11..19).unwrap_or(at);
    let instance = &event["instance"];
    let mut who = cell(&event["service"]);
    if let (Some(host), Some(port)) = (instance["host"].as_str(), instance["port"].as_u64()) {
        who = format!("{who} {} {host}:{port}", cell(&instance["version"]));
    }
    let kind = event["kind"].as_str().unwrap_or_default();
    let what = match (event["from"].as_str(), event["to"].as_str()) {
        (Some(from), Some(to)) => format!("{from} → {to}"),
        _ => kind
            .trim_start_matches("registry.")
            .trim_start_matches("instance.")
            .replace('.', " "),
    };
    let why = match event["reason"].as_str() {
        Some(why) if !why.is_empty() => format!(" ({why})"),
        _ => String::new(),
    };
    format!("{time}  {who}  {what}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_one_line_each() {
        let event = json!({
            "at": "2026-01-02T03:04:05.000006Z", "kind": "registry.instance.state_changed", "service": "hello",
            "instance": { "host": "127.0.0.1", "port": 9, "version": "1.0" }, "from": "ready", "to": "failing", "reason": "refused",
        });
        assert_eq!(
            line(&event),
            "03:04:05  hello 1.0 127.0.0.1:9  ready → failing (refused)"
        );
        let event = json!({ "at": "x", "kind": "registry.service.registered", "service": "hello" });
        assert_eq!(line(&event), "x  hello  service registered");
    }

    #[test]
    fn health_is_one_word() {
        let of = |item: Value| health(&item).to_owned();
        assert_eq!(of(json!({ "enabled": false, "health": "up" })), "disabled");
        assert_eq!(
            of(json!({ "enabled": true, "builtin": true, "instances": {}, "health": "down" })),
            "no process"
        );
        assert_eq!(
            of(json!({ "enabled": true, "builtin": false, "instances": {}, "health": "down" })),
            "down"
        );
    }
}
