//! The registering side of the protocol: register with back-off, heartbeats, register again when forgotten.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Inner, State};
use crate::call::CallError;
use crate::config::ServiceConfig;
use crate::secret::Secret;

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a heartbeat is tried again when the gateway was not reached.
const RETRY_S: f64 = 5.0;

/// Where the gateway's public keys are, and whose they are.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct IdentityKeys {
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) jwks_url: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) issuer: String,
}

/// A gateway without keys may say so by null.
fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Registered {
    id: String,
    heartbeat_s: Option<f64>,
    instance_secret: Option<String>,
    identity: Option<IdentityKeys>,
    #[serde(default)]
    internal_url: Option<String>,
}

#[derive(Deserialize)]
struct Beat {
    next_s: Option<f64>,
    #[serde(default)]
    key_rotation: Value,
}

/// Keeps the instance registered until it is told to stop.
pub(super) async fn run(plugin: Arc<Inner>, port: u16) {
    let config = ServiceConfig {
        port,
        ..plugin.config.clone()
    };
    let mut stopping = plugin.stopping.subscribe();
    let mut delay = FIRST_DELAY;
    while !*stopping.borrow() {
        match register(&plugin, &config).await {
            Ok(first) => {
                delay = FIRST_DELAY;
                let mut wait = Some(first);
                while let Some(seconds) = wait {
                    if !pause(Duration::from_secs_f64(seconds), 0.9, &mut stopping).await {
                        return;
                    }
                    wait = heartbeat(&plugin, seconds).await;
                }
            }
            Err(error) => {
                plugin.status().state = State::Waiting;
                tracing::warn!(service = config.name, port, url = plugin.options.url, %error, ?delay, "cannot register, trying again");
                if !pause(delay, 0.5, &mut stopping).await {
                    return;
                }
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
    }
}

/// Registers and returns the seconds until the first heartbeat.
async fn register(plugin: &Inner, config: &ServiceConfig) -> Result<f64, CallError> {
    plugin.registering.send_replace(true);
    let result = enrol(plugin, config).await;
    plugin.registering.send_replace(false);
    result
}

async fn enrol(plugin: &Inner, config: &ServiceConfig) -> Result<f64, CallError> {
    let mut registered = register_once(plugin, config).await?;
    if plugin.verifier.newest().is_none() {
        // A process before us took the secret with it: only a new registration shows one again.
        let body = json!({ "now": true, "reason": "secret lost" });
        let path = format!("deregister/{}", registered.id);
        plugin
            .client
            .registry::<Value>(&path, plugin.options.token.as_ref(), &body, TIMEOUT)
            .await?;
        registered = register_once(plugin, config).await?;
    }
    tracing::info!(
        service = config.name,
        instance = registered.id,
        url = plugin.options.url,
        "registered"
    );
    Ok(between(
        registered
            .heartbeat_s
            .unwrap_or(f64::from(config.heartbeat_s)),
    ))
}

async fn register_once(plugin: &Inner, config: &ServiceConfig) -> Result<Registered, CallError> {
    let mut registered: Registered = plugin
        .client
        .registry("register", plugin.options.token.as_ref(), config, TIMEOUT)
        .await?;
    if let Some(secret) = registered.instance_secret.take() {
        plugin.verifier.rotate(Secret::from(secret));
    }
    let mut status = plugin.status();
    status.id = Some(registered.id.clone());
    status.identity = registered.identity.clone().unwrap_or_default();
    status.internal_url = registered.internal_url.take();
    status.state = State::Registered;
    Ok(registered)
}

/// Seconds until the next one, or nothing to register again.
async fn heartbeat(plugin: &Inner, before: f64) -> Option<f64> {
    let body = json!({ "service_id": plugin.status().id });
    let credential = plugin.credential();
    let beat: Beat = match plugin
        .client
        .registry("heartbeat", credential.as_ref(), &body, TIMEOUT)
        .await
    {
        Ok(beat) => beat,
        Err(error) => {
            let status = error.status();
            if status == Some(409) {
                plugin.status().state = State::Drained;
            }
            tracing::debug!(%error, "a heartbeat was not taken");
            return match status {
                Some(401 | 404) => None,
                Some(_) => Some(before),
                None => Some(before.min(RETRY_S)),
            };
        }
    };
    plugin.status().state = State::Registered;
    if let Some(secret) = beat
        .key_rotation
        .get("instance_secret")
        .and_then(Value::as_str)
    {
        plugin.verifier.rotate(Secret::from(secret));
    }
    if beat.key_rotation == Value::Bool(true) {
        return None;
    }
    Some(beat.next_s.map_or(before, between))
}

/// A wait that neither floods the registry nor forgets it.
fn between(seconds: f64) -> f64 {
    if seconds.is_finite() {
        seconds.clamp(0.1, 300.0)
    } else {
        30.0
    }
}

/// Waits between `least` and the whole of a time, so that instances do not march in step. False when stopping.
async fn pause(time: Duration, least: f64, stopping: &mut watch::Receiver<bool>) -> bool {
    let mut byte = [0];
    // Without randomness the wait is only less well spread.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let share = least + (1.0 - least) * f64::from(byte[0]) / 255.0;
    tokio::select! {
        () = sleep(time.mul_f64(share)) => true,
        _ = stopping.wait_for(|stopping| *stopping) => false,
    }
}
