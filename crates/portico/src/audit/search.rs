//! `portico audit search`: records, newest first.

use anyhow::{Result, bail};
use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{Remote, SearchArgs};
use crate::client::{Client, encoded};
use crate::table::{Table, cell, plain};
use crate::text::say;

/// Records that are shown unless all are asked for.
const SHOWN: usize = 50;
/// Pages that are looked through for them: a page may find nothing and still have a next one.
const PAGES: usize = 100;

pub(super) async fn run(remote: &Remote, wish: &SearchArgs) -> Result<u8> {
    let client = Client::connect(&remote.connect)?;
    let query = query(wish, Utc::now())?;
    let path = format!("/api/audit/records?{query}");
    let records = if wish.all {
        client.pages(&path).await?
    } else {
        first(&client, &path).await?
    };
    if remote.json {
        print_json(&json!({ "items": records }))?;
        return Ok(0);
    }
    let mut table = Table::new(&["WHEN", "WHO", "ACTION", "TARGET", "OUTCOME", "FROM"]);
    for record in &records {
        let outcome = match record["error_code"].as_str() {
            Some(code) => format!("{} {}", cell(&record["outcome"]), plain(code)),
            None => cell(&record["outcome"]),
        };
        table.row([
            cell(&record["at"]),
            who(&record["actor"]),
            cell(&record["action"]),
            format!(
                "{}/{}",
                cell(&record["target"]["type"]),
                cell(&record["target"]["id"])
            ),
            outcome,
            cell(&record["ip"]),
        ]);
    }
    if table.is_empty() {
        say!("no records");
    } else {
        table.print();
    }
    Ok(0)
}

async fn first(client: &Client, path: &str) -> Result<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let left = SHOWN - found.len();
        let page = client.get(&format!("{path}&limit={left}{cursor}")).await?;
        found.extend(page["items"].as_array().into_iter().flatten().cloned());
        match page["next_cursor"].as_str() {
            Some(next) if found.len() < SHOWN => cursor = format!("&cursor={}", encoded(next)),
            _ => break,
        }
    }
    Ok(found)
}

fn who(actor: &Value) -> String {
    let (kind, id) = (cell(&actor["kind"]), cell(&actor["id"]));
    match kind.as_str() {
        "user" => id,
        "operator" | "system" | "anonymous" => kind,
        _ => format!("{kind} {id}"),
    }
}

fn query(wish: &SearchArgs, now: DateTime<Utc>) -> Result<String> {
    let moment = |text: &Option<String>| text.as_deref().map(|t| moment(t, now)).transpose();
    let (target_type, target_id) = match wish.target.as_deref().map(|t| t.split_once('/')) {
        None => (None, None),
        Some(Some((kind, id))) => (Some(kind.to_owned()), Some(id.to_owned())),
        Some(None) => bail!("--target: give the kind and the id, as in user/0190…"),
    };
    let pairs = [
        ("actor", wish.actor.clone()),
        ("action", wish.action.clone()),
        ("target_type", target_type),
        ("target_id", target_id),
        ("tenant", wish.tenant.clone()),
        ("outcome", wish.outcome.clone()),
        ("ip", wish.ip.clone()),
        ("request_id", wish.request.clone()),
        ("path", wish.path.clone()),
        ("from", moment(&wish.since)?),
        ("to", moment(&wish.until)?),
    ];
    let given = pairs
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
    Ok(given.collect::<Vec<_>>().join("&"))
}

/// A time as it is, or so long before now.
fn moment(text: &str, now: DateTime<Utc>) -> Result<String> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let ago = units.into_iter().find_map(|(unit, seconds)| {
        let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
        Duration::try_seconds(count.checked_mul(seconds)?)
    });
    let at = match ago {
        Some(ago) => now.checked_sub_signed(ago),
        None => text.parse().ok(),
    };
    match at {
        Some(at) => Ok(at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        None => bail!("{text} is neither a time like 2026-01-31T12:00:00Z nor one like 24h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_so_long_ago() {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let of = |text: &str| moment(text, now).unwrap();
        assert_eq!(of("90m"), "2026-01-31T10:30:00Z");
        assert_eq!(of("7d"), "2026-01-24T12:00:00Z");
        assert_eq!(of("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
        for bad in ["", "yesterday", "5w", "99999999999999999999d"] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }
}
