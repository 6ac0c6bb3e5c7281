//! Jobs: look at them, retry, cancel, hurry, put before others; a kind as a whole.

use std::sync::Arc;

use portico_base::{Context, id, mask};
use portico_contract::audit::Record;
use portico_desk::{
    self as desk, Bulk, Desk, Filter, JobDetail, JobRow, JobState, KindState, Order, Refused,
};
use portico_jobs::{JobId, Priority};
use portico_telemetry::mask as text_mask;
use serde_json::Value;
use uuid::Uuid;

use super::need;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::permissions::{JOB_ALL, JOB_READ, JOB_WRITE};
use crate::unit::Unit;

/// What is done to one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Tried again.
    Retry,
    /// Taken back.
    Cancel,
    /// Run at once.
    Run,
    /// Put before or behind others.
    Prioritise(Priority),
}

/// What is done to all jobs of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BulkCommand {
    /// All that were given up are tried again.
    RetryDead,
    /// They wait until the kind goes on.
    Pause(Option<String>),
    /// They go on.
    Resume,
}

/// Jobs that the caller may see, newest first.
pub(crate) async fn list(
    core: &Core,
    cx: &Context,
    mut filter: Filter,
    order: Order,
) -> Result<Vec<JobRow>> {
    need(cx, JOB_READ)?;
    filter.tenant = scope(cx, filter.tenant)?;
    Ok(Desk::new(core.db.clone()).list(&filter, order).await?)
}

/// One job with its attempts; its payload without secrets.
pub(crate) async fn show(core: &Core, cx: &Context, id: JobId) -> Result<JobDetail> {
    need(cx, JOB_READ)?;
    let found = Desk::new(core.db.clone())
        .detail(id, scope(cx, None)?)
        .await?;
    let mut detail = found.ok_or(reason::JOB_NOT_FOUND)?;
    masked(&mut detail.payload, None);
    Ok(detail)
}

/// Kinds with their depths and pauses.
pub(crate) async fn kinds(core: &Core, cx: &Context) -> Result<Vec<KindState>> {
    need(cx, JOB_ALL)?;
    Ok(Desk::new(core.db.clone()).kinds().await?)
}

/// Does something to one job.
pub(crate) async fn command(
    core: &Arc<Core>,
    cx: &Context,
    id: JobId,
    command: Command,
) -> Result<JobRow> {
    need(cx, JOB_WRITE)?;
    let tenant = scope(cx, None)?;
    let unit = Unit::begin(core, cx).await?;
    let (tx, now) = (&unit.tx, unit.now());
    let (action, done) = match command {
        Command::Retry => (
            "control.job.retried",
            desk::retry(tx, id, tenant, now).await,
        ),
        Command::Cancel => (
            "control.job.cancelled",
            desk::cancel(tx, id, tenant, now).await,
        ),
        Command::Run => (
            "control.job.hurried",
            desk::run_now(tx, id, tenant, now).await,
        ),
        Command::Prioritise(priority) => (
            "control.job.prioritised",
            desk::prioritise(tx, id, tenant, priority, now).await,
        ),
    };
    let before = match done {
        Ok(done) => done.map_err(refused)?,
        // Somebody asked for the same job at this moment.
        Err(error) if error.is_unique_violation() => return Err(reason::JOB_TWIN.into()),
        Err(error) => return Err(error.into()),
    };
    let record = Record::done(
        action,
        "job",
        id.to_string(),
        before.tenant.unwrap_or(id::TENANT_SYSTEM),
    )
    .change("kind", None, Some(before.kind.as_str().into()));
    let record = match command {
        Command::Prioritise(priority) => record.change(
            "priority",
            Some(before.priority.as_str().into()),
            Some(priority.as_str().into()),
        ),
        _ => record.change("state", Some(before.state.as_str().into()), None),
    };
    unit.audit(record).await?;
    unit.commit().await?;
    let after = Desk::new(core.db.clone()).detail(id, tenant).await?;
    Ok(after.map_or(before, |detail| detail.row))
}

/// Does something to all jobs of a kind, or only counts them.
pub(crate) async fn bulk(
    core: &Arc<Core>,
    cx: &Context,
    kind: &str,
    command: BulkCommand,
    dry_run: bool,
) -> Result<Bulk> {
    need(cx, JOB_WRITE)?;
    need(cx, JOB_ALL)?;
    let jobs = Desk::new(core.db.clone());
    if !is_known(core, &jobs, kind).await? {
        return Err(reason::KIND_NOT_FOUND.into());
    }
    if dry_run {
        let state = match command {
            BulkCommand::RetryDead => JobState::Dead,
            BulkCommand::Pause(_) | BulkCommand::Resume => JobState::Ready,
        };
        let count = jobs.count(kind, state).await?;
        return Ok(Bulk { count, left: 0 });
    }
    let unit = Unit::begin(core, cx).await?;
    let (tx, now) = (&unit.tx, unit.now());
    let (action, done) = match &command {
        BulkCommand::RetryDead => (
            "control.job_kind.retried",
            desk::retry_dead(tx, kind, now).await?,
        ),
        BulkCommand::Pause(reason) => {
            let by = &*cx.principal().subject;
            let changed = desk::pause(tx, kind, by, reason.as_deref(), now).await?;
            ("control.job_kind.paused", one(changed))
        }
        BulkCommand::Resume => {
            let changed = desk::resume(tx, kind).await?;
            ("control.job_kind.resumed", one(changed))
        }
    };
    if done.count > 0 {
        let mut record = Record::done(action, "job_kind", kind, id::TENANT_SYSTEM);
        match command {
            BulkCommand::RetryDead => {
                record = record.change("jobs", None, Some(done.count.into()));
            }
            BulkCommand::Pause(reason) => record.reason = reason,
            BulkCommand::Resume => {}
        }
        unit.audit(record).await?;
        unit.commit().await?;
    }
    Ok(done)
}

/// The tenant whose jobs the caller reaches; nothing for those of all.
fn scope(cx: &Context, wanted: Option<Uuid>) -> Result<Option<Uuid>> {
    if cx.principal().may(&JOB_ALL) {
        return Ok(wanted);
    }
    match wanted {
        Some(other) if other != cx.tenant() => Err(reason::ALL_TENANTS.into()),
        _ => Ok(Some(cx.tenant())),
    }
}

/// Somebody does jobs of the kind, or there are some.
async fn is_known(core: &Core, jobs: &Desk, kind: &str) -> Result<bool> {
    let here = core
        .jobs
        .get()
        .is_some_and(|runner| runner.queue().kinds().any(|known| known == kind));
    if here {
        return Ok(true);
    }
    let kinds = jobs.kinds().await?;
    Ok(kinds.iter().any(|known| known.kind == kind))
}

const fn one(changed: bool) -> Bulk {
    Bulk {
        count: changed as u64,
        left: 0,
    }
}

fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Unknown => reason::JOB_NOT_FOUND,
        Refused::State(_) => reason::JOB_STATE,
        Refused::Twin => reason::JOB_TWIN,
    }
    .into()
}

/// Takes out of a payload what is nobody's business: values of secret names, envelopes, and what looks like
/// a credential, an address or a number.
fn masked(value: &mut Value, name: Option<&str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                masked(value, Some(name));
            }
        }
        Value::Array(items) => {
            for item in items {
                masked(item, name);
            }
        }
        Value::String(text) => {
            let secret = name.is_some_and(|n| mask::is_secret_name(n) || n == "sealed");
            *text = if secret {
                mask::MASKED.to_owned()
            } else {
                let known = name.map(|n| text_mask::field(n, text).into_owned());
                text_mask::text(known.as_deref().unwrap_or(text)).into_owned()
            };
        }
        Value::Number(_) if name.is_some_and(mask::is_secret_name) => {
            *value = mask::MASKED.into();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_tells_no_secrets() {
        let mut payload = json!({
            "row": "01890a5d-ac96-774b-bcce-b302099a8057",
            "sealed": "v1.abcdef",
            "to": { "phone": "13812345678", "code": 123456, "n": 7 },
            "links": ["https://x.example/?token=ptk_0123456789abcdef"],
            "password": ["hunter2"],
        });
        masked(&mut payload, None);
        let shown = payload.to_string();
        for secret in ["abcdef", "13812345678", "123456\"", "hunter2", "ptk_0123"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        assert_eq!(payload["to"]["n"], 7);
        assert_eq!(payload["row"], "01890a5d-ac96-774b-bcce-b302099a8057");
    }
}
