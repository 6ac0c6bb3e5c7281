//! `portico cache`: purge, figures, explain.

use anyhow::Result;
use serde_json::json;

use super::print_json;
use crate::cli::{CacheArgs, CacheCommand, PurgeArgs, PurgeWhat};
use crate::client::{Client, encoded};
use crate::table::{facts, plain};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: CacheArgs) -> Result<u8> {
    let client = Client::connect(&args.remote.connect)?;
    match args.command {
        CacheCommand::Purge(what) => purge(&client, what, args.remote.json).await,
        CacheCommand::Stats => stats(&client, args.remote.json).await,
        CacheCommand::Explain { target } => explain(&client, &target, args.remote.json).await,
    }
}

async fn purge(client: &Client, what: PurgeArgs, as_json: bool) -> Result<u8> {
    let hard = what.hard;
    let (by, value) = selected(what.what);
    let body = json!({ "by": by, "value": value, "soft": !hard });
    let answer = client.post("/api/gateway/cache/purge", &body).await?;
    if as_json {
        print_json(&json!({ "by": by, "value": value, "soft": !hard, "at_ms": answer["at_ms"] }))?;
    } else {
        let how = if hard { "gone" } else { "stale" };
        say!("{by} {}: what was stored until now is {how}", plain(&value));
    }
    Ok(0)
}

/// What the flags select; the command line makes sure that it is exactly one.
fn selected(what: PurgeWhat) -> (&'static str, String) {
    [
        ("prefix", what.prefix),
        ("tag", what.tag),
        ("service", what.service),
        ("tenant", what.tenant),
    ]
    .into_iter()
    .find_map(|(by, value)| Some((by, value?)))
    .unwrap_or_else(|| ("url", what.address.unwrap_or_default()))
}

async fn stats(client: &Client, as_json: bool) -> Result<u8> {
    let found = client.get("/api/gateway/cache/stats").await?;
    if as_json {
        print_json(&found)?;
        return Ok(0);
    }
    let n = |name: &str| found[name].as_u64().unwrap_or(0);
    say!(
        "in memory   {} answers, {}",
        n("l1_entries"),
        bytes(n("l1_bytes"))
    );
    if n("l2_entries") > 0 {
        say!(
            "shared      {} answers, {}",
            n("l2_entries"),
            bytes(n("l2_bytes"))
        );
    }
    say!(
        "for errors  {} answers, {}",
        n("l3_entries"),
        bytes(n("l3_bytes"))
    );
    say!(
        "fetching    {} now, {} requests wait for them",
        n("fetches"),
        n("waiters")
    );
    if let Some(ratio) = found["hit_ratio"].as_f64() {
        say!("hit ratio   {:.1} % since the start", ratio * 100.0);
    }
    for line in facts(&found["requests"]) {
        say!("  {line}");
    }
    Ok(0)
}

async fn explain(client: &Client, target: &str, as_json: bool) -> Result<u8> {
    let found = client
        .get(&format!(
            "/api/gateway/cache/explain?url={}",
            encoded(target)
        ))
        .await?;
    if as_json {
        print_json(&found)?;
        return Ok(0);
    }
    for line in facts(&found) {
        say!("{line}");
    }
    Ok(0)
}

fn bytes(n: u64) -> String {
    match n {
        0..1_024 => format!("{n} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", n as f64 / 1_024.0),
        _ => format!("{:.1} MiB", n as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(bytes(1_023), "1023 bytes");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(3 * 1_048_576), "3.0 MiB");
    }
}
