//! Reading settings: list, get, history, differences, watch.

use anyhow::Result;
use serde_json::Value;

use super::{Session, print_json};
use crate::client::encoded;
use crate::table::{Table, cell, facts, plain};
use crate::text::say;

/// Characters of a value in a table.
const MOST: usize = 60;

pub(super) async fn list(session: &Session, prefix: &str, only_set: bool) -> Result<u8> {
    let path = session.path(&format!("/api/settings?prefix={}", encoded(prefix)));
    let mut found = session.client.pages(&path).await?;
    if only_set {
        found.retain(|setting| setting["source"]["layer"] != "default");
    }
    if session.json {
        print_json(&Value::Array(found))?;
        return Ok(0);
    }
    if found.is_empty() {
        say!("there is no such setting");
        return Ok(0);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM", "VERSION"]);
    for setting in &found {
        table.row([
            cell(&setting["key"]),
            value(setting),
            source(setting),
            cell(&setting["version"]),
        ]);
    }
    table.print();
    Ok(0)
}

/// A value as it is shown, a secret by its fingerprint.
fn value(setting: &Value) -> String {
    let secret = &setting["secret"];
    if secret.is_null() {
        return short(&setting["value"]);
    }
    match secret["fingerprint"].as_str() {
        Some(fingerprint) => format!("(secret {fingerprint})"),
        None => "(secret, not set)".to_owned(),
    }
}

pub(super) fn short(value: &Value) -> String {
    let text = plain(&value.to_string());
    if text.chars().count() <= MOST {
        return text;
    }
    let cut: String = text.chars().take(MOST).collect();
    format!("{cut}…")
}

fn source(setting: &Value) -> String {
    let source = &setting["source"];
    match source["scope"].as_str() {
        None => cell(&source["layer"]),
        Some(scope) => format!("{} ({})", cell(&source["layer"]), plain(scope)),
    }
}

pub(super) async fn get(session: &Session, key: &str) -> Result<u8> {
    let path = session.path(&format!("/api/settings/{}", encoded(key)));
    let setting = session.client.get(&path).await?;
    if session.json {
        print_json(&setting)?;
        return Ok(0);
    }
    say!("{}", facts(&setting).join("\n"));
    Ok(0)
}

pub(super) async fn history(session: &Session, key: &str) -> Result<u8> {
    let path = session.path(&format!("/api/settings/{}/history", encoded(key)));
    let found = session.client.pages(&path).await?;
    if session.json {
        print_json(&Value::Array(found))?;
        return Ok(0);
    }
    let mut table = Table::new(&["VERSION", "VALUE", "WHEN", "WHO", "COMMENT", "CHANGE"]);
    for entry in &found {
        let shown = match (&entry["fingerprint"], entry["set"].as_bool()) {
            (_, Some(false)) => "(reset)".to_owned(),
            (Value::String(fingerprint), _) => format!("(secret {})", plain(fingerprint)),
            _ => short(&entry["value"]),
        };
        table.row([
            cell(&entry["version"]),
            shown,
            cell(&entry["at"]),
            who(&entry["actor"]),
            cell(&entry["comment"]),
            cell(&entry["change"]),
        ]);
    }
    table.print();
    Ok(0)
}

fn who(actor: &Value) -> String {
    match actor["kind"].as_str() {
        Some("operator" | "system") | None => cell(&actor["kind"]),
        Some(kind) => format!("{} {}", plain(kind), cell(&actor["id"])),
    }
}

pub(super) async fn sets(session: &Session) -> Result<u8> {
    let path = session.path("/api/settings/changes");
    let found = session.client.pages(&path).await?;
    if session.json {
        print_json(&Value::Array(found))?;
        return Ok(0);
    }
    let mut table = Table::new(&["CHANGE", "POSITION", "WHEN", "WHO", "COMMENT"]);
    for set in &found {
        table.row([
            cell(&set["id"]),
            cell(&set["seq"]),
            cell(&set["at"]),
            who(&set["actor"]),
            cell(&set["comment"]),
        ]);
    }
    table.print();
    Ok(0)
}

pub(super) async fn diff(session: &Session, key: &str, from: u64, to: u64) -> Result<u8> {
    let path = format!(
        "/api/settings/diff?key={}&from={from}&to={to}",
        encoded(key)
    );
    let answer = session.client.get(&session.path(&path)).await?;
    if session.json {
        print_json(&answer)?;
        return Ok(0);
    }
    for line in answer["diff"]["lines"].as_array().into_iter().flatten() {
        let sign = match line["op"].as_str() {
            Some("added") => '+',
            Some("removed") => '-',
            _ => ' ',
        };
        say!("{sign}{}", cell(&line["text"]));
    }
    for change in answer["diff"]["changes"].as_array().into_iter().flatten() {
        say!("{}", changed(change));
    }
    Ok(0)
}

/// `path: before → after`.
pub(super) fn changed(change: &Value) -> String {
    let name = change.get("path").or_else(|| change.get("key"));
    let name = name.map(cell).filter(|name| !name.is_empty());
    let side = |name: &str| {
        let value = change.get(name).filter(|value| !value.is_null());
        value.map_or_else(|| "(nothing)".to_owned(), short)
    };
    format!(
        "{}: {} → {}",
        name.unwrap_or_else(|| "value".to_owned()),
        side("before"),
        side("after")
    )
}

pub(super) async fn watch(session: &Session, after: Option<u64>) -> Result<u8> {
    let mut position = match after {
        Some(after) => after,
        None => {
            let path = session.path("/api/settings/watch?wait=0s");
            let now = session.client.get(&path).await?;
            now["seq"].as_u64().unwrap_or(0)
        }
    };
    loop {
        // Below the client's own patience.
        let path = format!("/api/settings/watch?after={position}&wait=5s");
        let news = session.client.get(&session.path(&path)).await?;
        for setting in news["changed"].as_array().into_iter().flatten() {
            if session.json {
                crate::text::print(&format!("{setting}\n"));
            } else {
                say!(
                    "{} {} {}",
                    cell(&setting["key"]),
                    value(setting),
                    source(setting)
                );
            }
        }
        position = news["seq"].as_u64().unwrap_or(position);
    }
}
