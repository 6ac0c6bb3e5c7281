//! `/queues` and `/jobs/bulk`: kinds of jobs as a whole.

use axum::extract::State;
use portico_base::{Access, Timestamp};
use portico_desk::KindState;
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::error::Error;
use crate::ops::jobs::{self, BulkCommand};
use crate::permissions::JOB_ALL;

/// Longest reason, in characters.
const REASON: usize = 300;

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(JOB_ALL), routes!(list))
        .add(Access::Permission(JOB_ALL), routes!(bulk))
}

/// Queues of jobs; a queue is the first word of its kinds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobQueues)]
struct Queues {
    items: Vec<Queue>,
}

/// One queue.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = JobQueue)]
struct Queue {
    queue: String,
    ready: u64,
    retrying: u64,
    running: u64,
    dead: u64,
    /// How long the first waiting job is due, in seconds; 0 when none is.
    oldest_s: u64,
    kinds: Vec<Kind>,
}

/// One kind of jobs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobKind)]
struct Kind {
    kind: String,
    ready: u64,
    retrying: u64,
    running: u64,
    dead: u64,
    oldest_s: u64,
    /// Runs that this process ended well since its start.
    done_here: u64,
    #[schema(value_type = Option<String>, format = DateTime)]
    paused_at: Option<Timestamp>,
    paused_by: Option<String>,
    paused_reason: Option<String>,
}

/// An order for all jobs of a kind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobBulk)]
struct Order {
    /// `service.verb`.
    kind: String,
    /// retry_dead, pause or resume.
    action: String,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit and for whoever sees the pause.
    reason: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobBulkDone)]
struct Done {
    /// Jobs that were changed, or would be; for a pause 1 when something changed.
    count: u64,
    /// Jobs that another order would change.
    left: u64,
}

/// List queues
///
/// With the depth of each kind, the age of its oldest due job, and its pause.
#[utoipa::path(get, path = "/queues", tag = "jobs", responses((status = 200, body = Queues)))]
async fn list(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Queues>> {
    let mut kinds = jobs::kinds(&core, &cx).await?;
    let figures = core.jobs.get().map(|runner| runner.queue().figures());
    let figures = figures.unwrap_or_default();
    for figure in &figures {
        if !kinds.iter().any(|known| known.kind == figure.kind) {
            kinds.push(KindState {
                kind: figure.kind.to_owned(),
                ..KindState::default()
            });
        }
    }
    kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
    let now = cx.now();
    let mut items: Vec<Queue> = Vec::new();
    for state in kinds {
        let done = figures.iter().find(|figure| figure.kind == state.kind);
        let kind = shown(state, done.map_or(0, |figure| figure.done), now);
        let name = kind.kind.split('.').next().unwrap_or_default();
        if items.last().is_none_or(|queue| queue.queue != name) {
            items.push(Queue {
                queue: name.to_owned(),
                ..Queue::default()
            });
        }
        if let Some(queue) = items.last_mut() {
            queue.ready += kind.ready;
            queue.retrying += kind.retrying;
            queue.running += kind.running;
            queue.dead += kind.dead;
            queue.oldest_s = queue.oldest_s.max(kind.oldest_s);
            queue.kinds.push(kind);
        }
    }
    Ok(Json(Queues { items }))
}

/// Order something for a kind
///
/// Retries all its dead jobs (at most 10,000 an order), pauses it, or lets it go on.
#[utoipa::path(post, path = "/jobs/bulk", tag = "jobs", request_body = Order,
    responses((status = 200, body = Done)))]
async fn bulk(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(order): Json<Order>,
) -> ApiResult<Json<Done>> {
    let reason = order.reason;
    if reason.as_ref().is_some_and(|r| r.chars().count() > REASON) {
        let message = format!("is longer than {REASON} characters");
        return Err(Error::field("reason", "too_long", message).into());
    }
    let command = match order.action.as_str() {
        "retry_dead" => BulkCommand::RetryDead,
        "pause" => BulkCommand::Pause(reason),
        "resume" => BulkCommand::Resume,
        _ => {
            let message = "must be one of retry_dead, pause, resume";
            return Err(Error::field("action", "unknown", message).into());
        }
    };
    let done = jobs::bulk(&core, &cx, &order.kind, command, order.dry_run).await?;
    Ok(Json(Done {
        count: done.count,
        left: done.left,
    }))
}

fn shown(state: KindState, done_here: u64, now: Timestamp) -> Kind {
    let age = state.oldest.map_or(0, |at| (now - at).num_seconds().max(0));
    Kind {
        kind: state.kind,
        ready: state.ready,
        retrying: state.retrying,
        running: state.running,
        dead: state.dead,
        oldest_s: u64::try_from(age).unwrap_or(0),
        done_here,
        paused_at: state.paused_at,
        paused_by: state.paused_by,
        paused_reason: state.paused_reason,
    }
}
