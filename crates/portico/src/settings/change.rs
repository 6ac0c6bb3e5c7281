//! Changing settings: set and roll back, with the difference shown before.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::read::changed;
use super::{Session, ask, print_json};
use crate::cli::ChangeArgs;
use crate::client::encoded;
use crate::text::say;

/// Bytes of a value that are read from standard input.
const MOST: u64 = 1024 * 1024;

pub(super) async fn set(
    session: &Session,
    key: &str,
    value: Option<String>,
    change: &ChangeArgs,
) -> Result<u8> {
    let present = session
        .client
        .get(&session.path(&format!("/api/settings/{}", encoded(key))))
        .await?;
    let mut one = json!({ "key": key, "version": present["version"] });
    match value {
        None => one["reset"] = true.into(),
        Some(text) => one["value"] = typed(session, key, text).await?,
    }
    let body = json!({ "changes": [one] });
    apply(session, "/api/settings/changes", body, change).await
}

/// Text becomes what the setting takes: plain words need no quotes where text is taken.
async fn typed(session: &Session, key: &str, text: String) -> Result<Value> {
    let text = if text == "-" {
        let mut input = String::new();
        std::io::stdin()
            .take(MOST)
            .read_to_string(&mut input)
            .context("standard input cannot be read")?;
        input.trim_end_matches('\n').to_owned()
    } else {
        text
    };
    let path = format!("/api/settings/schema?prefix={}", encoded(key));
    let page = session.client.get(&session.path(&path)).await?;
    let kind = page["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|d| d["key"] == key)
        .map(|d| (d["type"].clone(), d["schema"]["type"].clone()));
    let takes_text = kind.is_some_and(|(kind, schema)| {
        kind == "string" || kind == "enum" || (kind == "object" && schema == "string")
    });
    if takes_text {
        return Ok(Value::String(text));
    }
    serde_json::from_str(&text).with_context(|| format!("`{text}` is not JSON"))
}

pub(super) async fn rollback(
    session: &Session,
    what: &str,
    version: Option<u64>,
    change: &ChangeArgs,
) -> Result<u8> {
    let (path, body) = match (uuid::Uuid::parse_str(what), version) {
        (Ok(id), None) => (format!("/api/settings/changes/{id}/rollback"), json!({})),
        (Err(_), Some(version)) => (
            format!("/api/settings/{}/rollback", encoded(what)),
            json!({ "version": version }),
        ),
        (Ok(_), Some(_)) => bail!("a change set has no version to name"),
        (Err(_), None) => bail!("say which version of {what} comes back"),
    };
    apply(session, &path, body, change).await
}

/// Shows what would happen, asks, and does it.
pub(super) async fn apply(
    session: &Session,
    path: &str,
    body: Value,
    change: &ChangeArgs,
) -> Result<u8> {
    let with = |dry_run: bool| {
        let mut body: Map<String, Value> = body.as_object().cloned().unwrap_or_default();
        body.insert("dry_run".to_owned(), dry_run.into());
        body.insert("confirm".to_owned(), true.into());
        if let Some(comment) = &change.comment {
            body.insert("comment".to_owned(), comment.as_str().into());
        }
        if let Some(scope) = &session.scope {
            body.insert("scope".to_owned(), scope.as_str().into());
        }
        Value::Object(body)
    };
    let shown = session.client.post(path, &with(true)).await?;
    let differences = shown["changed"].as_array().map_or(0, Vec::len);
    if !session.json {
        for one in shown["changed"].as_array().into_iter().flatten() {
            say!("{}", changed(one));
        }
    }
    if change.dry_run || differences == 0 {
        if session.json {
            print_json(&shown)?;
        } else if differences == 0 {
            say!("nothing is to be changed");
        }
        return Ok(0);
    }
    ask("change this?", change.yes)?;
    let done = session.client.post(path, &with(false)).await?;
    if session.json {
        print_json(&done)?;
    } else {
        say!("done, change {}", crate::table::cell(&done["id"]));
    }
    Ok(0)
}
