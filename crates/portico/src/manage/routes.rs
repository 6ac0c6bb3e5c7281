//! `portico route`: the gateway's objects, their files, their history.

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::changes::{Change, changes};
use super::{apply, explain, print_json};
use crate::cli::{RouteArgs, RouteCommand};
use crate::client::{Client, encoded};
use crate::table::{Table, author, cell, plain};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: RouteArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let json = args.remote.json;
    let kind = args.kind.as_str();
    match args.command {
        RouteCommand::List => list(&client, kind, json).await,
        RouteCommand::Get { name } => {
            let found = client.get(&path(kind, &name)).await?;
            print_json(&found)?;
            Ok(0)
        }
        RouteCommand::Apply {
            file,
            dry_run,
            message,
        } => {
            let how = apply::How {
                kind,
                file: &file,
                dry_run,
                message: &message,
                json,
            };
            apply::run(&client, how).await
        }
        RouteCommand::Diff { name, from, to } => diff(&client, kind, &name, from, to, json).await,
        RouteCommand::History { name } => history(&client, kind, &name, json).await,
        RouteCommand::Rollback { name, to, message } => {
            let body = json!({ "to": to, "message": message });
            let now = client
                .post(&format!("{}/rollback", path(kind, &name)), &body)
                .await?;
            told(kind, &now, json)
        }
        RouteCommand::Delete { name } => {
            client
                .call(Method::DELETE, &path(kind, &name), None::<&Value>)
                .await?;
            if json {
                print_json(&json!({ "kind": kind, "name": name, "deleted": true }))?;
            } else {
                say!("{kind}/{name}: deleted; `portico route rollback {name}` brings it back");
            }
            Ok(0)
        }
        RouteCommand::Explain(wanted) => explain::run(&client, &wanted, json).await,
    }
}

fn path(kind: &str, name: &str) -> String {
    format!("/api/gateway/{kind}/{}", encoded(name))
}

fn told(kind: &str, now: &Value, json: bool) -> Result<u8> {
    if json {
        print_json(now)?;
    } else {
        say!(
            "{kind}/{}: version {} ({})",
            cell(&now["name"]),
            now["version"],
            plain(&cell(&now["message"]))
        );
    }
    Ok(0)
}

async fn list(client: &Client, kind: &str, json: bool) -> Result<u8> {
    let items = client.pages(&format!("/api/gateway/{kind}")).await?;
    if json {
        print_json(&Value::from(items))?;
        return Ok(0);
    }
    if items.is_empty() {
        say!("there are no {kind}; every service is at /api/NAME/ without one");
        return Ok(0);
    }
    let mut table = if kind == "routes" {
        Table::new(&["NAME", "VERSION", "MATCH", "TARGET", "CHANGED", "BY"])
    } else {
        Table::new(&["NAME", "VERSION", "DOCUMENT", "CHANGED", "BY"])
    };
    for item in &items {
        let (name, version) = (cell(&item["name"]), cell(&item["version"]));
        let (changed, by) = (day_and_time(&item["created_at"]), author(&item["author"]));
        if kind == "routes" {
            let doc = &item["doc"];
            table.row([
                name,
                version,
                matching(doc),
                target(&doc["target"]),
                changed,
                by,
            ]);
        } else {
            table.row([
                name,
                version,
                short(&item["doc"].to_string(), 60),
                changed,
                by,
            ]);
        }
    }
    table.print();
    Ok(0)
}

/// Which requests a route takes, in a few words.
fn matching(doc: &Value) -> String {
    let words =
        |list: &Value| -> Vec<String> { list.as_array().into_iter().flatten().map(cell).collect() };
    let mut parts = words(&doc["methods"]);
    let path = ["exact", "prefix", "pattern"].into_iter().find_map(|how| {
        let text = doc["path"][how].as_str()?;
        Some(if how == "prefix" {
            format!("{}*", text)
        } else {
            text.to_owned()
        })
    });
    parts.push(format!(
        "{}{}",
        words(&doc["hosts"]).join("|"),
        path.unwrap_or_default()
    ));
    let conditions = ["headers", "query"]
        .into_iter()
        .map(|k| doc[k].as_array().map_or(0, Vec::len))
        .sum::<usize>();
    if conditions > 0 {
        parts.push(format!("+{conditions} conditions"));
    }
    if doc["enabled"] == false {
        parts.push("(off)".to_owned());
    }
    parts.join(" ")
}

/// Where a route leads, in a few words.
fn target(target: &Value) -> String {
    let service = |s: &Value| match s["version"].as_str() {
        Some(version) => format!("{}@{version}", cell(&s["name"])),
        None => cell(&s["name"]),
    };
    if target["service"].is_object() {
        return service(&target["service"]);
    }
    if let Some(services) = target["services"].as_array() {
        let parts = services
            .iter()
            .map(|s| format!("{} {}", service(s), cell(&s["weight"])));
        return parts.collect::<Vec<_>>().join(", ");
    }
    if let Some(directory) = target["directory"]["path"].as_str() {
        return format!("files in {directory}");
    }
    if let Some(to) = target["redirect"]["to"].as_str() {
        return format!("redirect to {to}");
    }
    format!("answers {}", cell(&target["fixed"]["status"]))
}

async fn history(client: &Client, kind: &str, name: &str, json: bool) -> Result<u8> {
    let items = client
        .pages(&format!("{}/versions", path(kind, name)))
        .await?;
    if json {
        print_json(&Value::from(items))?;
        return Ok(0);
    }
    let mut table = Table::new(&["VERSION", "AT", "BY", "WHAT", "MESSAGE"]);
    for item in &items {
        let what = if item["doc"].is_null() {
            "deleted"
        } else {
            "saved"
        };
        table.row([
            cell(&item["version"]),
            day_and_time(&item["created_at"]),
            author(&item["author"]),
            what.to_owned(),
            cell(&item["message"]),
        ]);
    }
    table.print();
    Ok(0)
}

async fn diff(
    client: &Client,
    kind: &str,
    name: &str,
    from: Option<i64>,
    to: Option<i64>,
    json: bool,
) -> Result<u8> {
    let items = client
        .pages(&format!("{}/versions", path(kind, name)))
        .await?;
    let newest = items
        .first()
        .and_then(|v| v["version"].as_i64())
        .unwrap_or(0);
    let to = to.unwrap_or(newest);
    let from = from.unwrap_or(to - 1);
    let doc = |version: i64| {
        // Before the first version there was nothing.
        if version == 0 {
            return Ok(None);
        }
        match items.iter().find(|v| v["version"] == version) {
            Some(found) => Ok(Some(&found["doc"]).filter(|doc| !doc.is_null())),
            None => bail!(
                "{kind}/{name} has no version {version}; `portico route history {name}` shows all"
            ),
        }
    };
    let found = changes(doc(from)?, doc(to)?);
    if json {
        let list: Vec<Value> = found
            .iter()
            .map(|c| json!({ "path": c.path, "before": c.before, "after": c.after }))
            .collect();
        print_json(
            &json!({ "kind": kind, "name": name, "from": from, "to": to, "changes": list }),
        )?;
        return Ok(0);
    }
    say!("{kind}/{name}: version {from} → {to}");
    if found.is_empty() {
        say!("  no difference");
    }
    for line in found.iter().map(Change::line) {
        say!("  {}", plain(&line));
    }
    Ok(0)
}

fn day_and_time(at: &Value) -> String {
    let text = at.as_str().unwrap_or_default();
    text.get(..16).unwrap_or(text).replace('T', " ")
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_in_a_few_words() {
        let doc = json!({
            "hosts": ["a.example"], "path": { "prefix": "/x" }, "methods": ["GET"], "headers": [{}], "enabled": false,
            "target": { "services": [{ "name": "a", "version": "2", "weight": 10 }, { "name": "b", "weight": 90 }] },
        });
        assert_eq!(matching(&doc), "GET a.example/x* +1 conditions (off)");
        assert_eq!(target(&doc["target"]), "a@2 10, b 90");
        assert_eq!(
            target(&json!({ "fixed": { "status": 204 } })),
            "answers 204"
        );
        assert_eq!(
            target(&json!({ "redirect": { "to": "/y" } })),
            "redirect to /y"
        );
    }

    #[test]
    fn long_documents_are_cut_between_characters() {
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äö…");
        assert_eq!(
            day_and_time(&json!("2026-01-02T03:04:05Z")),
            "2026-01-02 03:04"
        );
    }
}
