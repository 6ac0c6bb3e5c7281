//! `portico status`: health of the process, its services, their instances.

use anyhow::Result;
use portico_config::is_loopback_host;
use serde_json::{Value, json};
use std::time::Duration;

use crate::cli::{Remote, StatusArgs};
use crate::client::{ApiError, Client, http, ready_value};
use crate::manage::{address, health_of};
use crate::table::{Table, cell, plain};
use crate::text;

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// `/health` of the admin listener; nothing when it cannot be asked.
    health: Option<Value>,
    services: Vec<Value>,
    instances: Vec<Value>,
    /// Why services and instances are not known.
    silent: Option<String>,
}

/// Prints the table, or everything as JSON.
pub(crate) async fn run(args: StatusArgs) -> Result<u8> {
    let remote = &args.remote;
    let health = health(remote).await;
    let found = match everything(remote).await {
        Ok((services, instances)) => Found {
            health,
            services,
            instances,
            silent: None,
        },
        // A process without the door or without the registry still says how it is (OP-1).
        Err(error) if health.is_some() && is_partial(&error, health.as_ref()) => Found {
            health,
            silent: Some(format!("{error:#}")),
            ..Found::default()
        },
        Err(error) => return Err(error),
    };
    if remote.json {
        let whole = json!({ "health": found.health, "services": found.services, "instances": found.instances });
        text::print(&(serde_json::to_string_pretty(&whole)? + "\n"));
    } else {
        text::print(&shown(&found));
    }
    Ok(0)
}

/// True when a role that the listing needs does not run in the process that was asked.
fn is_partial(error: &anyhow::Error, health: Option<&Value>) -> bool {
    let absent = health
        .and_then(|health| health["services"].as_array())
        .is_some_and(|services| services.iter().any(|s| s["process"] == false));
    let refused = error
        .downcast_ref::<ApiError>()
        .is_none_or(|api| matches!(api.status, 404 | 503));
    absent && refused
}

/// `/health` of the process of the data directory. Somewhere else nobody knows its address.
async fn health(remote: &Remote) -> Option<Value> {
    if remote.connect.url.is_some() {
        return None;
    }
    let url = ready_value(remote.connect.data_dir.as_deref(), "admin").ok()?;
    let here = reqwest::Url::parse(&url)
        .ok()?
        .host_str()
        .is_some_and(is_loopback_host);
    if !here {
        return None;
    }
    let answer = http(Duration::from_secs(3))
        .ok()?
        .get(format!("{url}/health"))
        .send()
        .await
        .ok()?;
    answer.json().await.ok()
}

async fn everything(remote: &Remote) -> Result<(Vec<Value>, Vec<Value>)> {
    let client = Client::connect(&remote.connect)?;
    let catalog = client.get("/api/registry/catalog").await?;
    let instances = client.pages("/api/registry/services?state=all").await?;
    let services = catalog["items"].as_array().cloned().unwrap_or_default();
    Ok((services, instances))
}

fn shown(found: &Found) -> String {
    let mut out = String::new();
    if let Some(health) = &found.health {
        out.push_str(&headline(health));
    }
    let mut table = Table::new(&["SERVICE", "VERSION", "STATE", "ADDRESS", "WEIGHT", "REASON"]);
    for service in found.services.iter().filter(|s| s["builtin"] == true) {
        let version = service["versions"]
            .as_array()
            .and_then(|v| v.first())
            .map(cell);
        let state = match health_of(service) {
            "up" => "ready",
            other => other,
        };
        let place = if state == "no process" {
            "its role is not in this process"
        } else {
            "in this process"
        };
        table.row([
            cell(&service["name"]),
            version.unwrap_or_default(),
            state.to_owned(),
            place.to_owned(),
            String::new(),
            String::new(),
        ]);
    }
    if found.silent.is_some() {
        for service in found
            .health
            .iter()
            .flat_map(|h| h["services"].as_array())
            .flatten()
        {
            let (state, place) = if service["process"] == true {
                ("ready", "in this process")
            } else {
                ("no process", "its role is not in this process")
            };
            table.row([
                cell(&service["name"]),
                String::new(),
                state.to_owned(),
                place.to_owned(),
                String::new(),
                String::new(),
            ]);
        }
    }
    for item in &found.instances {
        table.row([
            cell(&item["name"]),
            cell(&item["version"]),
            cell(&item["state"]),
            address(item),
            cell(&item["weight"]),
            cell(&item["state_reason"]),
        ]);
    }
    out.push_str(&table.text(crate::table::colours()));
    match &found.silent {
        Some(why) => out.push_str(&format!("instances are not known here: {}\n", plain(why))),
        None if found.instances.is_empty() => out.push_str(
            "no program is registered; try: portico run --name hello --public -- python3 -m http.server '{port}'\n",
        ),
        None => {}
    }
    out
}

/// How the process is, and every check that is not well.
fn headline(health: &Value) -> String {
    let roles: Vec<String> = health["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .map(cell)
        .collect();
    let mut out = format!(
        "Portico {} is {} (replica {}, roles {})\n",
        cell(&health["version"]),
        cell(&health["status"]),
        plain(&cell(&health["replica"])),
        roles.join(", ")
    );
    for check in health["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| c["status"] != "ok")
    {
        out.push_str(&format!(
            "  {} is {} since {}: {}\n",
            cell(&check["name"]),
            cell(&check["status"]),
            cell(&check["since"]),
            plain(&cell(&check["detail"]))
        ));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_services_and_instances_stand_in_one_table() {
        let found = Found {
            health: Some(json!({
                "status": "degraded", "version": "0.1.0", "replica": "a-1", "roles": ["all"],
                "checks": [{ "name": "redis", "status": "degraded", "since": "t", "detail": "gone" }, { "name": "database", "status": "ok" }],
            })),
            services: vec![
                json!({ "name": "registry", "builtin": true, "enabled": true, "versions": ["0.1.0"], "instances": { "ready": 1 }, "health": "up" }),
                json!({ "name": "gateway", "builtin": true, "enabled": true, "versions": ["0.1.0"], "instances": {}, "health": "down" }),
            ],
            instances: vec![
                json!({ "name": "hello", "version": "1.0", "state": "ready", "host": "127.0.0.1", "port": 5, "weight": 100 }),
            ],
            silent: None,
        };
        let text = shown(&found);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "Portico 0.1.0 is degraded (replica a-1, roles all)"
        );
        assert_eq!(lines[1], "  redis is degraded since t: gone");
        assert_eq!(lines[3].find("STATE"), lines[4].find("ready"));
        assert!(lines[5].contains("no process") && lines[5].contains("role is not"));
        assert!(lines[6].contains("127.0.0.1:5"));
    }

    #[test]
    fn without_the_registry_the_roles_are_told() {
        let health = json!({ "status": "ok", "services": [{ "name": "registry", "process": false }, { "name": "gateway", "process": true }] });
        let error = anyhow::anyhow!("no such listener");
        assert!(is_partial(&error, Some(&health)));
        assert!(!is_partial(&error, None));
        let found = Found {
            health: Some(health),
            silent: Some("x".to_owned()),
            ..Found::default()
        };
        let text = shown(&found);
        assert!(
            text.contains("no process") && text.contains("instances are not known here: x"),
            "{text}"
        );
    }
}
