//! The plug-in protocol from the registering side: register, heartbeat, deregister.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::client::{ApiError, Client};

/// Body of a registration (PL-2), as far as `portico run` knows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) base_path: String,
    pub(crate) instance_key: String,
    pub(crate) instance_secret: String,
    pub(crate) weight: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) default_access: &'static str,
    pub(crate) endpoints: Vec<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health_check_url: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A declared endpoint.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) path: String,
    pub(crate) description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    pub(crate) is_public: bool,
    pub(crate) required_roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<Value>,
}

impl Endpoint {
    /// An endpoint for some roles only.
    pub(crate) fn with_roles(path: &str, roles: Vec<String>) -> Self {
        Self {
            path: path.to_owned(),
            description: String::new(),
            method: None,
            is_public: false,
            required_roles: roles,
            cache: None,
        }
    }

    /// A public endpoint for GET.
    pub(crate) fn public_get(path: &str, description: &str, cache: Option<Value>) -> Self {
        Self {
            path: path.to_owned(),
            description: description.to_owned(),
            method: Some("GET".to_owned()),
            is_public: true,
            required_roles: Vec::new(),
            cache,
        }
    }
}

/// What the registry answered.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// Id of the instance.
    pub(crate) id: String,
    /// Seconds between heartbeats.
    pub(crate) heartbeat_s: u64,
}

/// Registers once.
pub(crate) async fn register(client: &Client, registration: &Registration) -> Result<Registered> {
    let answer = client.post("/api/registry/register", registration).await?;
    Ok(Registered {
        id: answer["id"].as_str().unwrap_or_default().to_owned(),
        heartbeat_s: answer["heartbeat_s"].as_u64().unwrap_or(30).clamp(1, 300),
    })
}

/// Sends heartbeats until cancelled; registers again when the registry forgot the instance.
pub(crate) async fn keep_alive(
    client: &Client,
    registration: &Registration,
    registered: Registered,
    note: impl Fn(&str),
    stop: CancellationToken,
) {
    let mut registered = registered;
    let mut wait = registered.heartbeat_s;
    let mut lost = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(wait)) => {}
        }
        let beat = json!({ "service_id": registered.id });
        match client.post("/api/registry/heartbeat", &beat).await {
            Ok(answer) => {
                if lost {
                    note("the registry answers again");
                }
                lost = false;
                wait = answer["next_s"]
                    .as_u64()
                    .unwrap_or(registered.heartbeat_s)
                    .clamp(1, 300);
            }
            Err(error) if is_unknown(&error) => match register(client, registration).await {
                Ok(again) => {
                    note("registered again");
                    registered = again;
                    wait = registered.heartbeat_s;
                    lost = false;
                }
                Err(_) => wait = 2,
            },
            Err(error) => {
                if !lost {
                    note(&format!(
                        "the registry does not answer ({error}), trying on"
                    ));
                }
                lost = true;
                wait = 2;
            }
        }
    }
}

/// Takes an instance out: at once, or after what runs has finished.
pub(crate) async fn deregister(client: &Client, id: &str, now: bool, reason: &str) -> Result<()> {
    let body = json!({ "now": now, "reason": reason });
    client
        .post(&format!("/api/registry/deregister/{id}"), &body)
        .await
        .map(|_| ())
}

/// True for answers that trying again does not change.
pub(crate) fn is_final(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ApiError>()
        .is_some_and(|e| (400..500).contains(&e.status) && e.status != 429)
}

fn is_unknown(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ApiError>()
        .is_some_and(|e| e.status == 404)
}
