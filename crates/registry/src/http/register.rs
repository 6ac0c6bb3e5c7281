//! `/register`, `/heartbeat`, `/deregister/{id}`: the life of a plug-in.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use portico_base::{FieldFault, Timestamp};
use portico_web::{ApiResult, Cx, Json, PluginProtocol, Problem, Query};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, Identity};
use crate::domain::check::Status;
use crate::domain::endpoint::EndpointView;
use crate::domain::registration;
use crate::error::Error;
use crate::ops::deregister::{Left, deregister as leave};
use crate::ops::heartbeat::{Beat, Word, heartbeat as beat};
use crate::ops::register::{Request, register as enter};

/// Version of the plug-in protocol (PL-1).
const PROTOCOL: &str = "1";
/// Numbers of a heartbeat (RG-3).
const NUMBERS: usize = 32;

/// A registration (PL-2). Only for the documentation: the body is read field by field, so that every
/// fault is told.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body for the API document")]
#[schema(as = InstanceRegistration)]
pub(super) struct Registration {
    /// Name of the service.
    name: String,
    /// Port, 1 to 65535.
    port: u16,
    /// Host name, address, or `auto` (default) for the caller's address.
    host: Option<String>,
    /// Key of the instance within the service; default `host:port`.
    instance_key: Option<String>,
    /// The same as `instance_key`.
    id: Option<String>,
    /// Tenant; default the caller's own.
    tenant: Option<String>,
    /// Name for people.
    display_name: Option<String>,
    /// A sentence for people.
    description: Option<String>,
    /// Version, semver preferred; default `0.0.0`.
    version: Option<String>,
    /// Prefix of its paths; default `/`.
    base_path: Option<String>,
    /// `http/1.1` (default), `h2c`, `https`, `h2`, `unix`.
    protocol: Option<String>,
    /// SHA-256 of the TLS key, in hex.
    tls_pin: Option<String>,
    /// Zone.
    zone: Option<String>,
    /// Machine.
    node: Option<String>,
    /// Share of traffic, 0 to 1000; default 100.
    weight: Option<u16>,
    /// Labels, at most 64.
    tags: Option<Vec<String>>,
    /// Pairs, at most 64 and 8 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Seconds between heartbeats, 1 to 300; default 30.
    heartbeat_s: Option<u32>,
    /// A path of the instance or a URL that answers 2xx while it is well.
    health_check_url: Option<String>,
    /// A check in detail: `kind`, `url`, `interval_s`, `timeout_ms`, `fall`, `rise`, `expect_status`, `body_match`, `headers`.
    #[schema(value_type = Option<Object>)]
    check: Option<Value>,
    /// Further checks.
    #[schema(value_type = Option<Vec<Object>>)]
    checks: Option<Vec<Value>>,
    /// Endpoints of this version, at most 500.
    endpoints: Option<Vec<EndpointView>>,
    /// What holds for other paths: `authenticated` (default) or `public`.
    default_access: Option<String>,
    /// Asks for the callers' `Authorization`.
    forward_credentials: Option<bool>,
    /// Asks for `X-Portico-Identity`, a signed statement about the caller.
    identity_statement: Option<bool>,
    /// Permissions that it declares.
    permissions: Option<Vec<String>>,
    /// Event types that it publishes.
    events: Option<Vec<String>>,
    /// Schema of its settings.
    #[schema(value_type = Option<Object>)]
    settings_schema: Option<Value>,
    /// Its console pages.
    #[schema(value_type = Option<Object>)]
    console: Option<Value>,
    /// Where its OpenAPI document is.
    openapi_url: Option<String>,
}

/// What became of a registration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceRegistered)]
pub(super) struct Registered {
    /// Id of the instance.
    id: Uuid,
    /// Name of the service.
    service: String,
    /// Id of the service.
    service_id: Uuid,
    /// Version of the instance.
    version: String,
    /// Its state.
    state: &'static str,
    /// Seconds between heartbeats; absent when it owes none.
    heartbeat_s: Option<u32>,
    /// Checks the signature of identity headers, and is a credential for heartbeats.
    instance_secret: Option<String>,
    /// Keys of users' tokens.
    identity: Identity,
    /// Where services call each other, with the instance's secret; absent where there is no such listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    internal_url: Option<String>,
    /// Position in the sequence of changes.
    directory_seq: u64,
}

/// Register an instance
///
/// The same content again changes nothing.
#[utoipa::path(post, path = "/register", tag = "registry", request_body = Registration,
    responses((status = 201, body = Registered, description = "new"), (status = 200, body = Registered, description = "known")))]
pub(super) async fn register(
    State(api): State<Api>,
    Cx(cx): Cx,
    extensions: http::Extensions,
    Json(body): Json<Value>,
) -> Response {
    if let Err(problem) = protocol(extensions.get()) {
        return problem;
    }
    match try_register(&api, &cx, &body).await {
        Ok((status, answer)) => (status, Json(answer)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn try_register(
    api: &Api,
    cx: &portico_base::Context,
    body: &Value,
) -> ApiResult<(StatusCode, Registered)> {
    let begun = std::time::Instant::now();
    let defaults = api.core.tunables.get().defaults;
    let parsed = registration::parse(body, defaults).map_err(|faults| Error::Invalid {
        code: "registry.invalid",
        faults,
    })?;
    let done = enter(&api.core, cx, Request::native(parsed)).await?;
    api.core.metrics.register.observe(begun.elapsed());
    let status = if done.new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let answer = Registered {
        id: done.instance.id,
        service: done.service.name.to_string(),
        service_id: done.service.id,
        version: done.instance.definition.version.to_string(),
        state: done.instance.state.as_str(),
        heartbeat_s: done.instance.definition.heartbeat_s,
        instance_secret: done.secret.map(|s| s.expose().clone()),
        identity: api.identity(),
        internal_url: api.internal_url(cx.caller.address),
        directory_seq: done.seq,
    };
    Ok((status, answer))
}

/// An unknown higher protocol is answered with the range that is spoken here.
fn protocol(asked: Option<&PluginProtocol>) -> Result<(), Response> {
    match asked {
        Some(PluginProtocol(asked)) if asked != PROTOCOL => {
            let shown = asked.to_str().unwrap_or("?").chars().take(16).collect();
            Err(Problem::from(Error::Protocol(shown)).into_response())
        }
        _ => Ok(()),
    }
}

/// A sign of life (RG-3).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InstanceHeartbeat)]
pub(super) struct Heartbeat {
    /// Id of the instance, as the registration answered it.
    service_id: Uuid,
    /// What it says of itself: `ready` (`passing`), `warning`, `failing` (`critical`), `draining`.
    #[serde(default)]
    status: Option<String>,
    /// Load, 0 to 1 and above.
    #[serde(default)]
    load: Option<f64>,
    /// Version, for people.
    #[serde(default)]
    version: Option<String>,
    /// At most 32 figures.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    numbers: Option<serde_json::Map<String, Value>>,
}

/// The answer to a heartbeat.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceHeartbeatAnswer)]
pub(super) struct Beaten {
    /// Seconds until the next one.
    next_s: u32,
    /// It is to finish its requests and leave.
    drain: bool,
    /// Its state.
    state: &'static str,
    /// Position in the sequence of changes.
    directory_seq: u64,
    /// A new secret; both are in use for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_rotation: Option<KeyRotation>,
}

/// A new secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceKeyRotation)]
pub(super) struct KeyRotation {
    /// Accept signatures made with it from now on.
    instance_secret: String,
    /// The one before is accepted until then.
    #[schema(value_type = String, format = DateTime)]
    previous_until: Timestamp,
}

/// Send a heartbeat
#[utoipa::path(post, path = "/heartbeat", tag = "registry", request_body = Heartbeat,
    responses((status = 200, body = Beaten), (status = 404, description = "unknown: register again"), (status = 409, description = "drained")))]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<Heartbeat>,
) -> ApiResult<Json<Beaten>> {
    let id = body.service_id;
    let done = beat(&api.core, &cx, id, word(body)?).await?;
    Ok(Json(Beaten {
        next_s: done.next_s,
        drain: done.drain,
        state: done.state.as_str(),
        directory_seq: done.directory_seq,
        key_rotation: done.rotation.map(|r| KeyRotation {
            instance_secret: r.secret.expose().clone(),
            previous_until: r.previous_until,
        }),
    }))
}

fn word(body: Heartbeat) -> Result<Beat, Error> {
    let mut faults = Vec::new();
    let status = match body.status.as_deref() {
        None => None,
        Some("ready" | "passing" | "ok") => Some(Word::Healthy(Status::Passing)),
        Some("warning") => Some(Word::Healthy(Status::Warning)),
        Some("failing" | "critical") => Some(Word::Healthy(Status::Critical)),
        Some("draining") => Some(Word::Draining),
        Some(_) => {
            faults.push(FieldFault::new(
                "status",
                "choice",
                "must be ready, warning, failing or draining",
            ));
            None
        }
    };
    if body.load.is_some_and(|load| !(0.0..=1e6).contains(&load)) {
        faults.push(FieldFault::new(
            "load",
            "range",
            "must be from 0 to 1000000",
        ));
    }
    if body.version.as_ref().is_some_and(|v| v.len() > 64) {
        faults.push(FieldFault::new(
            "version",
            "too_long",
            "must be at most 64 bytes",
        ));
    }
    let map = body.numbers.unwrap_or_default();
    if map.len() > NUMBERS {
        faults.push(FieldFault::new(
            "numbers",
            "too_many",
            format!("must be at most {NUMBERS}"),
        ));
    }
    let mut numbers = Vec::new();
    for (name, value) in map.into_iter().take(NUMBERS) {
        match value.as_f64() {
            Some(number) if name.len() <= 64 => numbers.push((name, number)),
            _ => {
                let shown: String = name.chars().take(64).collect();
                faults.push(FieldFault::new(
                    format!("numbers.{shown}"),
                    "type",
                    "must be a number with a name of at most 64 bytes",
                ));
            }
        }
    }
    if faults.is_empty() {
        Ok(Beat {
            status,
            load: body.load,
            numbers,
        })
    } else {
        Err(Error::Invalid {
            code: "registry.invalid",
            faults,
        })
    }
}

/// How to leave.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InstanceLeave)]
pub(super) struct Leave {
    /// At once, without draining.
    #[serde(default)]
    now: bool,
    /// Why, for the history.
    #[serde(default)]
    reason: Option<String>,
}

/// How to leave, as parameters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LeaveQuery {
    /// At once, without draining.
    #[serde(default)]
    now: Option<bool>,
    /// Why, for the history.
    #[serde(default)]
    reason: Option<String>,
}

/// What became of an instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceGone)]
pub(super) struct Gone {
    /// `draining` or `removed`.
    state: &'static str,
}

/// Deregister an instance
///
/// It drains, then it is removed.
#[utoipa::path(post, path = "/deregister/{id}", tag = "registry", request_body(content = Option<Leave>),
    params(("id" = Uuid, Path, description = "id of the instance"), LeaveQuery),
    responses((status = 200, body = Gone), (status = 404, description = "unknown")))]
pub(super) async fn deregister(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Query(query): Query<LeaveQuery>,
    body: axum::body::Bytes,
) -> ApiResult<Json<Gone>> {
    // A body is optional: `curl -X POST` sends none.
    let body: Leave = if body.iter().all(u8::is_ascii_whitespace) {
        Leave::default()
    } else {
        portico_web::extract::parse(&body)?
    };
    let now = query.now.unwrap_or(body.now);
    gone(&api, &cx, &id, now, body.reason.or(query.reason)).await
}

/// Deregister the instance in the path
///
/// The same as `POST /deregister/{id}`.
#[utoipa::path(delete, path = "/services/{id}", tag = "registry",
    params(("id" = Uuid, Path, description = "id of the instance"), LeaveQuery),
    responses((status = 200, body = Gone), (status = 404, description = "unknown")))]
pub(super) async fn delete(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Query(query): Query<LeaveQuery>,
) -> ApiResult<Json<Gone>> {
    gone(&api, &cx, &id, query.now.unwrap_or(false), query.reason).await
}

async fn gone(
    api: &Api,
    cx: &portico_base::Context,
    id: &str,
    now: bool,
    reason: Option<String>,
) -> ApiResult<Json<Gone>> {
    let id = Uuid::parse_str(id).map_err(|_| Error::UnknownInstance)?;
    let reason = super::manage::reason(reason)?;
    let left = leave(&api.core, cx, id, now, &reason).await?;
    Ok(Json(Gone {
        state: if left == Left::Draining {
            "draining"
        } else {
            "removed"
        },
    }))
}
