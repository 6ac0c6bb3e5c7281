//! `portico instances`: running copies, and what an operator does to them.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{InstancesArgs, InstancesCommand};
use crate::client::{Client, encoded, usage};
use crate::table::{Table, cell};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: InstancesArgs) -> Result<u8> {
    let as_json = args.remote.json;
    let client = Client::connect(&args.remote.connect)?;
    let (instance, order, body) = match args.command {
        InstancesCommand::List { service } => return list(&client, service, as_json).await,
        InstancesCommand::History { instance } => {
            return history(&client, &instance, as_json).await;
        }
        InstancesCommand::Drain { instance, reason } => {
            (instance, "drain", json!({ "reason": reason }))
        }
        InstancesCommand::Maintenance { instance, reason } => {
            (instance, "maintenance", json!({ "reason": reason }))
        }
        InstancesCommand::Resume { instance } => (instance, "resume", Value::Null),
        InstancesCommand::Weight { instance, weight } => (
            instance,
            "weight",
            json!({ "weight": parse_weight(&weight)? }),
        ),
    };
    let found = find(&client, &instance).await?;
    let id = cell(&found["id"]);
    let answer = client
        .post(&format!("/api/registry/services/{id}/{order}"), &body)
        .await?;
    let told = json!({ "id": id, "service": found["name"], "address": address(&found), "state": answer["state"] });
    if as_json {
        print_json(&told)?;
    } else {
        say!(
            "{} {}: {}",
            cell(&found["name"]),
            address(&found),
            match order {
                "weight" => format!(
                    "weight {}",
                    body["weight"]
                        .as_u64()
                        .map_or_else(|| "as registered".to_owned(), |w| w.to_string())
                ),
                _ => cell(&answer["state"]),
            }
        );
    }
    Ok(0)
}

fn parse_weight(text: &str) -> Result<Option<u16>> {
    match text.parse::<u16>() {
        _ if text == "registered" => Ok(None),
        Ok(weight @ 0..=1000) => Ok(Some(weight)),
        _ => Err(usage(format!(
            "the weight `{text}` is neither a number from 0 to 1000 nor `registered`"
        ))),
    }
}

async fn list(client: &Client, service: Option<String>, as_json: bool) -> Result<u8> {
    let mut path = "/api/registry/services?state=all".to_owned();
    if let Some(name) = &service {
        path.push_str(&format!("&name={}", encoded(name)));
    }
    let instances = client.pages(&path).await?;
    if as_json {
        print_json(&Value::from(instances))?;
        return Ok(0);
    }
    if instances.is_empty() {
        say!("no instance is registered");
        return Ok(0);
    }
    table(&instances).print();
    Ok(0)
}

/// Instances as a table.
pub(crate) fn table(instances: &[Value]) -> Table {
    let mut table = Table::new(&[
        "SERVICE", "VERSION", "STATE", "ADDRESS", "WEIGHT", "ID", "REASON",
    ]);
    for item in instances {
        table.row([
            cell(&item["name"]),
            cell(&item["version"]),
            cell(&item["state"]),
            address(item),
            cell(&item["weight"]),
            cell(&item["id"]),
            cell(&item["state_reason"]),
        ]);
    }
    table
}

/// Where an instance is.
pub(crate) fn address(item: &Value) -> String {
    match (item["host"].as_str(), item["port"].as_u64()) {
        (Some(host), Some(port)) if port > 0 && host.contains(':') => format!("[{host}]:{port}"),
        (Some(host), Some(port)) if port > 0 => format!("{host}:{port}"),
        (Some(host), _) => host.to_owned(),
        _ => String::new(),
    }
}

/// The one instance that somebody means.
async fn find(client: &Client, wanted: &str) -> Result<Value> {
    let (service, place) = match wanted.split_once('/') {
        Some((service, place)) => (Some(service), place),
        None => (None, wanted),
    };
    let path = match service {
        Some(service) => format!("/api/registry/services?state=all&name={}", encoded(service)),
        None => "/api/registry/services?state=all".to_owned(),
    };
    let all = client.pages(&path).await?;
    let fits = |item: &&Value| match service {
        Some(_) => address(item) == place || item["instance_key"] == place || item["id"] == place,
        None => {
            item["name"] == place || item["id"].as_str().is_some_and(|id| id.starts_with(place))
        }
    };
    let found: Vec<&Value> = all.iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => bail!("there is no instance `{wanted}`; `portico instances list` shows all"),
        several => {
            let names: Vec<String> = several
                .iter()
                .take(20)
                .map(|item| {
                    format!(
                        "  {}/{}  {}",
                        cell(&item["name"]),
                        address(item),
                        cell(&item["id"])
                    )
                })
                .collect();
            bail!(
                "`{wanted}` means {} instances, say which:\n{}",
                several.len(),
                names.join("\n")
            )
        }
    }
}

async fn history(client: &Client, wanted: &str, as_json: bool) -> Result<u8> {
    // What was removed has a history still, and only its id.
    let id = match find(client, wanted).await {
        Ok(found) => cell(&found["id"]),
        Err(_) if wanted.len() == 36 => wanted.to_owned(),
        Err(error) => return Err(error),
    };
    let answer = client
        .get(&format!("/api/registry/services/{}/history", encoded(&id)))
        .await?;
    if as_json {
        print_json(&answer["items"])?;
        return Ok(0);
    }
    let mut table = Table::new(&["AT", "FROM", "TO", "REASON"]);
    for step in answer["items"].as_array().into_iter().flatten() {
        table.row(["at", "from", "to", "reason"].map(|name| cell(&step[name])));
    }
    table.print();
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        assert_eq!(parse_weight("0").unwrap(), Some(0));
        assert_eq!(parse_weight("1000").unwrap(), Some(1000));
        assert_eq!(parse_weight("registered").unwrap(), None);
        for bad in ["1001", "-1", "", "ten"] {
            assert!(parse_weight(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(address(&json!({ "host": "::1", "port": 9 })), "[::1]:9");
        assert_eq!(
            address(&json!({ "host": "10.0.0.1", "port": 9 })),
            "10.0.0.1:9"
        );
        assert_eq!(
            address(&json!({ "host": "/run/a.sock", "port": 0 })),
            "/run/a.sock"
        );
        assert_eq!(address(&json!({})), "");
    }
}
