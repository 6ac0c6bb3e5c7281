//! `portico token inspect`: each check of an access token by its name.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use portico_token::{KeySet, jws};
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{AccessTokenArgs, AccessTokenCommand};
use crate::client::{Client, encoded, http, unreachable};
use crate::table::plain;
use crate::text::say;

/// Longest token that is looked at.
const LONGEST: usize = 8 * 1024;

/// One check and how it went.
struct Check {
    name: &'static str,
    passed: bool,
    why: String,
}

/// Inspects and prints; exit code 1 when a check fails.
pub(crate) async fn run(args: AccessTokenArgs) -> Result<u8> {
    let AccessTokenCommand::Inspect { inspected } = args.command;
    let token = if inspected == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(LONGEST as u64 + 1)
            .read_to_string(&mut text)
            .context("standard input cannot be read")?;
        text.trim().to_owned()
    } else {
        inspected
    };
    let client = Client::connect(&args.remote.connect)?;
    let (checks, shown) = inspect(&client, &token).await?;
    let good = checks.iter().all(|check| check.passed);
    if args.remote.json {
        let checks: Vec<Value> = checks
            .iter()
            .map(|c| json!({ "check": c.name, "passed": c.passed, "why": c.why }))
            .collect();
        print_json(&json!({ "good": good, "checks": checks, "token": shown }))?;
    } else {
        for check in &checks {
            let sign = if check.passed { "pass" } else { "FAIL" };
            say!("{sign}  {:12} {}", check.name, plain(&check.why));
        }
        say!();
        say!("{}", crate::table::facts(&shown).join("\n"));
    }
    Ok(u8::from(!good))
}

/// All checks up to the first that nothing can follow, and header and claims as they are.
async fn inspect(client: &Client, token: &str) -> Result<(Vec<Check>, Value)> {
    let mut checks = Vec::new();
    let mut check = |name, passed, why: String| {
        checks.push(Check { name, passed, why });
        passed
    };
    check(
        "length",
        token.len() <= LONGEST,
        format!("{} bytes of at most {LONGEST}", token.len()),
    );
    let parts = match jws::split(token) {
        Ok(parts) => parts,
        Err(why) => {
            check("form", false, why.to_string());
            return Ok((checks, Value::Null));
        }
    };
    check("form", true, "three parts, canonical base64url".to_owned());
    let word = |name: &str| parts.header.get(name).and_then(Value::as_str).unwrap_or("");
    check(
        "kind",
        word("typ") == "at+jwt",
        format!("typ is {}", word("typ")),
    );
    let keys = keys(client).await?;
    let kid = word("kid");
    let known = keys.find(Some(kid));
    check("key", known.is_some(), format!("kid is {kid}"));
    if let Some(key) = known {
        check(
            "algorithm",
            word("alg") == key.alg,
            format!("alg is {}, the key is for {}", word("alg"), key.alg),
        );
        let verified = key.verify(parts.signed, &parts.signature);
        let why = verified
            .err()
            .map_or_else(|| "good".to_owned(), |w| w.to_string());
        check("signature", verified.is_ok(), why);
    }
    let claims = jws::object(&parts.payload).map(Value::Object);
    let claims = claims.unwrap_or(Value::Null);
    let now = chrono::Utc::now().timestamp();
    let expires = claims["exp"].as_i64().unwrap_or(0);
    let left = expires - now;
    check("time", left > 0, format!("{left} seconds left"));
    // Issuer, audience, versions and the session are compared where they are known.
    let asked = client
        .request(reqwest::Method::POST, "/api/identity/token/introspect")
        .header(
            reqwest::header::CONTENT_TYPE,
            "application/x-www-form-urlencoded",
        )
        .body(format!("token={}", encoded(token)));
    let told = client.send(asked).await?;
    let why = "issuer, audience, versions and session, as the running Portico sees them";
    check("active", told["active"] == true, why.to_owned());
    Ok((checks, json!({ "header": parts.header, "claims": claims })))
}

/// The installation's public keys.
async fn keys(client: &Client) -> Result<KeySet> {
    let url = format!("{}/.well-known/jwks.json", client.url);
    let answer = http(std::time::Duration::from_secs(10))?
        .get(&url)
        .send()
        .await
        .map_err(|error| unreachable(&client.url, &error))?
        .error_for_status()
        .context("the keys cannot be fetched")?;
    let bytes = answer.bytes().await.context("the answer broke off")?;
    KeySet::parse(&bytes).context("the installation's keys")
}
