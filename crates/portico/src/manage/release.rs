//! `portico release`: how traffic is divided among the versions of a service.

use anyhow::{Result, bail};
use semver::Version;
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{ReleaseArgs, ReleaseCommand, ReleaseSet};
use crate::client::{Client, encoded, usage};
use crate::table::{Table, author, cell, facts, plain};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: ReleaseArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    let json = args.remote.json;
    let (service, verb, body) = match args.command {
        ReleaseCommand::Show {
            service: Some(service),
        } => {
            let found = client.get(&path(&service)).await?;
            return told(&found, json);
        }
        ReleaseCommand::Show { service: None } => return list(&client, json).await,
        ReleaseCommand::Set(wish) => {
            let saved = set(&client, wish).await?;
            return told(&saved, json);
        }
        ReleaseCommand::Step(order) => (order.service, "step", json!({ "message": order.message })),
        ReleaseCommand::Pause(order) => {
            (order.service, "pause", json!({ "message": order.message }))
        }
        ReleaseCommand::Resume(order) => {
            (order.service, "resume", json!({ "message": order.message }))
        }
        ReleaseCommand::Promote(order) => (
            order.service,
            "promote",
            json!({ "message": order.message }),
        ),
        ReleaseCommand::Abort(order) => {
            (order.service, "abort", json!({ "message": order.message }))
        }
        ReleaseCommand::Rollback { order, to } => (
            order.service,
            "rollback",
            json!({ "message": order.message, "to": to }),
        ),
    };
    let now = client
        .post(&format!("{}/{verb}", path(&service)), &body)
        .await?;
    told(&now, json)
}

fn path(service: &str) -> String {
    format!("/api/gateway/releases/{}", encoded(service))
}

async fn list(client: &Client, as_json: bool) -> Result<u8> {
    let items = client.pages("/api/gateway/releases").await?;
    if as_json {
        print_json(&Value::from(items))?;
        return Ok(0);
    }
    if items.is_empty() {
        say!("no service has a release: everybody gets the highest version that is there");
        return Ok(0);
    }
    let mut table = Table::new(&[
        "SERVICE",
        "STABLE",
        "CANDIDATE",
        "PERCENT",
        "PHASE",
        "CHANGED BY",
        "MESSAGE",
    ]);
    for item in &items {
        let doc = &item["doc"];
        table.row([
            cell(&item["name"]),
            cell(&doc["stable"]),
            cell(&doc["candidate"]["version"]),
            cell(&doc["candidate"]["weight"]),
            cell(&doc["state"]["phase"]),
            author(&item["author"]),
            cell(&item["message"]),
        ]);
    }
    table.print();
    Ok(0)
}

fn told(now: &Value, as_json: bool) -> Result<u8> {
    if as_json {
        print_json(now)?;
        return Ok(0);
    }
    say!("{}", plain(&sentence(now)));
    for line in notes(&now["status"]) {
        say!("  {}", plain(&line));
    }
    let table = versions(&now["status"]);
    if !table.is_empty() {
        say!("");
        table.print();
    }
    Ok(0)
}

/// What goes on now, and what comes next.
fn notes(status: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(phase) = status["phase"].as_str() {
        let step = match status["steps"].as_u64() {
            Some(steps) if steps > 0 => format!(", step {} of {steps}", status["step"]),
            _ => String::new(),
        };
        notes.push(format!("{phase}{step}"));
    }
    if let (Some(weight), Some(at)) = (status["next_weight"].as_f64(), status["next_at"].as_str()) {
        notes.push(format!("{weight} % from {at} on"));
    }
    if let Some(what) = status["waits_for"].as_str() {
        notes.push(format!("waits for {what}"));
    }
    if let Some(version) = status["rollback"]["version"].as_str() {
        let until = match status["rollback"]["until"].as_str() {
            Some(until) => format!(" until {until}"),
            None => String::new(),
        };
        notes.push(format!("`rollback` returns to {version}{until}"));
    }
    for guard in status["guards"].as_array().into_iter().flatten() {
        notes.push(format!(
            "guard: {}",
            facts(guard).join(", ").replace("  ", " ")
        ));
    }
    notes
}

/// The versions beside each other.
fn versions(status: &Value) -> Table {
    let mut table = Table::new(&[
        "VERSION", "ROLE", "PERCENT", "READY", "REQUESTS", "ERRORS", "P95",
    ]);
    for item in status["versions"].as_array().into_iter().flatten() {
        let figures = &item["figures"];
        let p95 = figures["p95_ms"].as_f64().map(|ms| format!("{ms:.1} ms"));
        table.row([
            cell(&item["version"]),
            cell(&item["role"]),
            cell(&item["weight"]),
            cell(&item["ready"]),
            cell(&figures["requests"]),
            cell(&figures["errors"]),
            p95.unwrap_or_default(),
        ]);
    }
    table
}

/// A release in one sentence.
fn sentence(now: &Value) -> String {
    let doc = &now["doc"];
    let stable = doc["stable"].as_str().unwrap_or("the highest version");
    let candidate = match doc["candidate"]["version"].as_str() {
        Some(version) => {
            let weight = doc["candidate"]["weight"].as_f64().unwrap_or(0.0);
            format!(", {version} gets {weight} %")
        }
        None => String::new(),
    };
    let message = match now["message"].as_str() {
        Some(message) if !message.is_empty() => format!(" ({message})"),
        _ => String::new(),
    };
    format!(
        "{} is at version {} of its release: stable is {stable}{candidate}{message}",
        cell(&now["name"]),
        now["version"]
    )
}

/// Puts a version on trial, keeping everything else that the release says.
async fn set(client: &Client, wish: ReleaseSet) -> Result<Value> {
    let (wanted, percent) = share(&wish.share, wish.plan.is_some())?;
    let service = client
        .find(&format!(
            "/api/registry/services/{}",
            encoded(&wish.service)
        ))
        .await?;
    let Some(service) = service else {
        bail!(
            "there is no service `{}`; `portico services` shows all",
            wish.service
        );
    };
    let versions: Vec<&str> = service["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v["version"].as_str())
        .collect();
    let candidate = choose(&versions, &wanted)?;
    let found = client.find(&path(&wish.service)).await?;
    let seen = found.as_ref().and_then(|found| found["version"].as_i64());
    let mut doc = match found {
        Some(found) => found["doc"].clone(),
        None => json!({}),
    };
    let stable = match &wish.stable {
        Some(stable) => Some(choose(&versions, stable)?),
        None => doc["stable"]
            .as_str()
            .or_else(|| best(&versions, candidate)),
    };
    let Some(stable) = stable.map(str::to_owned) else {
        bail!(
            "there is no version beside {candidate} that could get the rest; start one, or give --stable"
        );
    };
    if stable == candidate {
        bail!("{candidate} is the stable version already; give another one to `set`, or --stable");
    }
    doc["stable"] = Value::from(stable);
    // Who fits a matcher of the same candidate goes on getting it.
    let same = doc["candidate"]["version"] == candidate;
    let matchers = if same {
        doc["candidate"]["matchers"].clone()
    } else {
        Value::Null
    };
    doc["candidate"] = json!({ "version": candidate, "weight": percent });
    if matchers.is_array() {
        doc["candidate"]["matchers"] = matchers;
    }
    if let Some(steps) = &wish.plan {
        doc["plan"] = plan(steps, wish.hold)?;
    }
    if let Some(map) = doc.as_object_mut() {
        map.remove("state");
    }
    let body = json!({ "doc": doc, "message": wish.message });
    client.put(&path(&wish.service), &body, seen).await
}

/// `2=10` → version and percent; with a plan, which decides the percent, `2` alone is enough.
fn share(text: &str, planned: bool) -> Result<(String, f64)> {
    let wrong = |why: &str| {
        usage(format!(
            "`{text}` {why}; expected VERSION=PERCENT such as v2=10"
        ))
    };
    let (version, percent) = match text.rsplit_once('=') {
        Some((version, percent)) => (version, percent.trim_end_matches('%')),
        None if planned => (text, "0"),
        None => return Err(wrong("says no percent")),
    };
    if version.is_empty() {
        return Err(wrong("names no version"));
    }
    match percent.parse::<f64>() {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok((version.to_owned(), number)),
        _ => Err(wrong("has no percent from 0 to 100")),
    }
}

/// The version that somebody means: as it is registered, without the `v`, or the highest one below it.
fn choose<'a>(versions: &[&'a str], wanted: &str) -> Result<&'a str> {
    let short = wanted.strip_prefix('v').unwrap_or(wanted);
    let exact = versions
        .iter()
        .find(|v| **v == wanted)
        .or_else(|| versions.iter().find(|v| **v == short));
    if let Some(exact) = exact {
        return Ok(exact);
    }
    let below = format!("{short}.");
    let highest = versions
        .iter()
        .filter(|v| v.starts_with(&below))
        .max_by_key(|v| Version::parse(v).ok());
    match highest {
        Some(highest) => Ok(highest),
        None if versions.is_empty() => bail!("no version of it is registered"),
        None => bail!(
            "there is no version `{}`; there are {}",
            plain(wanted),
            versions.join(", ")
        ),
    }
}

/// The highest version beside the candidate, those under test last.
fn best<'a>(versions: &[&'a str], candidate: &str) -> Option<&'a str> {
    versions
        .iter()
        .filter(|v| **v != candidate)
        .max_by_key(|v| Version::parse(v).ok().map(|v| (v.pre.is_empty(), v)))
        .copied()
}

/// Steps as a person writes them: `1,10,50,100`; empty for the usual ones.
fn plan(steps: &str, hold: Option<u32>) -> Result<Value> {
    let mut plan = json!({});
    if !steps.is_empty() {
        let numbers: Result<Vec<f64>, _> = steps
            .split(',')
            .map(|step| step.trim().parse::<f64>())
            .collect();
        let Ok(numbers) = numbers else {
            return Err(usage(format!(
                "--plan `{steps}` is no list of percents such as 1,10,50,100"
            )));
        };
        plan["steps"] = json!(numbers);
    }
    if let Some(hold) = hold {
        plan["hold_s"] = Value::from(hold);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(share("v2=10", false).unwrap(), ("v2".to_owned(), 10.0));
        assert_eq!(
            share("1.4.0=0.5%", false).unwrap(),
            ("1.4.0".to_owned(), 0.5)
        );
        assert_eq!(share("v2", true).unwrap(), ("v2".to_owned(), 0.0));
        for bad in [
            "v2", "=10", "v2=", "v2=101", "v2=-1", "v2=ten", "v2=NaN", "",
        ] {
            assert!(share(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_by_their_beginning() {
        let versions = ["1.0.0", "2.0.0", "2.10.0", "2.9.0", "v3", "nightly"];
        for (wanted, found) in [
            ("v2", "2.10.0"),
            ("2", "2.10.0"),
            ("2.9", "2.9.0"),
            ("v1.0.0", "1.0.0"),
            ("v3", "v3"),
            ("nightly", "nightly"),
        ] {
            assert_eq!(choose(&versions, wanted).unwrap(), found, "{wanted}");
        }
        let error = choose(&versions, "4").unwrap_err().to_string();
        assert!(error.contains("1.0.0, 2.0.0"), "{error}");
        assert!(choose(&[], "1").is_err());
    }

    #[test]
    fn the_rest_goes_to_the_highest_other_version() {
        assert_eq!(best(&["1.0.0", "2.0.0", "1.9.0"], "2.0.0"), Some("1.9.0"));
        assert_eq!(
            best(&["1.0.0", "3.0.0-rc.1", "2.0.0"], "2.0.0"),
            Some("1.0.0")
        );
        assert_eq!(best(&["nightly", "2.0.0"], "2.0.0"), Some("nightly"));
        assert_eq!(best(&["2.0.0"], "2.0.0"), None);
    }

    #[test]
    fn plans() {
        assert_eq!(plan("", None).unwrap(), json!({}));
        assert_eq!(
            plan("1, 50,100", Some(60)).unwrap(),
            json!({ "steps": [1.0, 50.0, 100.0], "hold_s": 60 })
        );
        assert!(plan("1,x", None).is_err());
    }

    #[test]
    fn what_goes_on_is_told_in_notes_and_a_table() {
        let status = json!({
            "phase": "progressing", "step": 1, "steps": 3, "next_weight": 50.0, "next_at": "t", "waits_for": null,
            "rollback": { "version": "1.0.0", "until": null }, "guards": [],
            "versions": [{ "version": "2.0.0", "role": "candidate", "weight": 10.0, "ready": 1, "figures": { "requests": 5, "errors": 0, "p95_ms": 7.168 } }],
        });
        assert_eq!(
            notes(&status),
            [
                "progressing, step 1 of 3",
                "50 % from t on",
                "`rollback` returns to 1.0.0"
            ]
        );
        assert!(versions(&status).text(false).contains("7.2 ms"));
    }

    #[test]
    fn a_release_is_a_sentence() {
        let now = json!({ "name": "hello", "version": 3, "message": "try", "doc": { "stable": "1.0.0", "candidate": { "version": "2.0.0", "weight": 2.5 } } });
        assert_eq!(
            sentence(&now),
            "hello is at version 3 of its release: stable is 1.0.0, 2.0.0 gets 2.5 % (try)"
        );
    }
}
