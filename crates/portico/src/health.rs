//! `portico health`: is the process ready? For containers and scripts.

use anyhow::Result;

use crate::cli::HealthArgs;
use crate::client::ready_value;

/// Asks `/healthz`; exit code 0 when ready, 1 when not.
pub(crate) async fn run(args: HealthArgs) -> Result<u8> {
    let url = match args.connect.url {
        Some(url) => url,
        None => ready_value(&args.connect.data_dir, "http")?,
    };
    let client = reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(3))
        .no_proxy()
        .build()?;
    let answer = client
        .get(format!("{}/healthz", url.trim_end_matches('/')))
        .send()
        .await;
    match answer {
        Ok(response) if response.status().is_success() => {
            println!("ready");
            Ok(0)
        }
        Ok(response) => {
            println!("not ready ({})", response.status());
            Ok(1)
        }
        Err(error) => {
            println!("no answer ({error})");
            Ok(1)
        }
    }
}
