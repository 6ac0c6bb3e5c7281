//! `portico health`: is the process ready? For containers and scripts.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::cli::HealthArgs;
use crate::client::{checked, http, ready_value, variable};
use crate::table::plain;
use crate::text::say;

/// Asks readiness; exit code 0 when ready, 1 when not.
pub(crate) async fn run(args: HealthArgs) -> Result<u8> {
    let connect = &args.remote.connect;
    let data_dir = connect.data_dir.as_deref();
    // The public listener says it without details; a process without a door says it on its admin listener.
    let url = match connect.url.clone().or_else(|| variable("PORTICO_URL")) {
        Some(url) => checked(&url)? + "/healthz",
        None => match ready_value(data_dir, "http")
            .or_else(|why| ready_value(data_dir, "https").map_err(|_| why))
        {
            Ok(url) => url + "/healthz",
            Err(why) => ready_value(data_dir, "admin").map_err(|_| why)? + "/readyz",
        },
    };
    let answer = http(Duration::from_secs(3))?.get(&url).send().await;
    let (ready, detail) = match answer {
        Ok(response) if response.status().is_success() => (true, "ready".to_owned()),
        Ok(response) => (false, format!("not ready ({})", response.status())),
        Err(error) => (false, format!("no answer ({})", plain(&error.to_string()))),
    };
    if args.remote.json {
        say!(
            "{}",
            json!({ "ready": ready, "detail": detail, "url": url })
        );
    } else {
        say!("{detail}");
    }
    Ok(u8::from(!ready))
}
