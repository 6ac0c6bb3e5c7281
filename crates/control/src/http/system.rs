//! `/system`: the state of the installation, and log levels for a while.

use axum::extract::State;
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use crate::ops::system;
use crate::permissions::{SYSTEM_READ, SYSTEM_WRITE};
use crate::system::levels::Raised;
use crate::system::{Item, Status};

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(SYSTEM_READ), routes!(show))
        .add(Access::Permission(SYSTEM_WRITE), routes!(log_level))
}

/// The state of the installation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = System)]
struct Shown {
    /// The worst of all items: ok, degraded or failed.
    status: &'static str,
    /// The process that answers.
    replica: String,
    items: Vec<One>,
    log_levels: Levels,
}

/// One thing and how it does.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SystemItem)]
struct One {
    /// version, replicas, database, redis, objects, certificates, disk, clock or jobs.
    name: &'static str,
    /// ok, degraded or failed.
    status: &'static str,
    /// A sentence for people.
    verdict: String,
    /// The same in Chinese.
    verdict_zh: String,
    facts: Value,
}

/// Log levels of the process that answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLevels)]
struct Levels {
    /// Those of the configuration; absent where somebody else has the log.
    configured: Option<String>,
    /// Those for a while.
    raised: Vec<Level>,
}

/// A level for a while.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RaisedLogLevel)]
struct Level {
    /// Empty for all.
    target: String,
    level: String,
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

/// A wish for a level.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LogLevelWish)]
struct Wish {
    /// A module path (`portico_gateway`); absent for all.
    #[serde(default)]
    target: String,
    /// off, error, warn, info, debug or trace.
    level: String,
    /// For how long, at most 3600; 0 ends it.
    for_s: u32,
}

/// Show the system
///
/// Processes, database, Redis, objects, certificates, disk, clock and jobs, with a sentence about each.
#[utoipa::path(get, path = "/system", tag = "system", responses((status = 200, body = Shown)))]
async fn show(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Shown>> {
    let found = system::overview(&core, &cx).await?;
    let worst = found.items.iter().map(|item| item.status).max();
    Ok(Json(Shown {
        status: worst.unwrap_or(Status::Ok).as_str(),
        replica: found.replica.to_string(),
        items: found.items.into_iter().map(One::from).collect(),
        log_levels: Levels {
            configured: found.levels.0,
            raised: found.levels.1.into_iter().map(Level::from).collect(),
        },
    }))
}

/// Change a log level
///
/// Of one target or of all, in every process, for at most an hour; then it falls back by itself.
#[utoipa::path(put, path = "/system/log-level", tag = "system", request_body = Wish,
    responses((status = 200, body = Level)))]
async fn log_level(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Wish>,
) -> ApiResult<Json<Level>> {
    let Wish {
        target,
        level,
        for_s,
    } = wish;
    let until = system::log_level(&core, &cx, &target, &level, for_s).await?;
    Ok(Json(Level {
        target,
        level,
        until,
    }))
}

impl From<Item> for One {
    fn from(item: Item) -> Self {
        Self {
            name: item.name,
            status: item.status.as_str(),
            verdict: item.verdict.0,
            verdict_zh: item.verdict.1,
            facts: item.facts,
        }
    }
}

impl From<Raised> for Level {
    fn from(raised: Raised) -> Self {
        Self {
            target: raised.target,
            level: raised.level,
            until: raised.until,
        }
    }
}
