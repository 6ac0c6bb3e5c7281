//! Schedules: look at them, switch them on and off, run them at once.

use std::sync::Arc;

use portico_base::{Context, id};
use portico_contract::audit::Record;
use portico_jobs::schedules::{self, NotAsked};
use portico_jobs::{CronEntry, Form};
use uuid::Uuid;

use super::need;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::permissions::{JOB_ALL, JOB_READ, JOB_WRITE};
use crate::unit::Unit;

/// Everything that is due again and again, by name.
pub(crate) async fn list(core: &Core, cx: &Context) -> Result<Vec<CronEntry>> {
    need(cx, JOB_READ)?;
    need(cx, JOB_ALL)?;
    Ok(schedules::list(&core.db, None, cx.now()).await?)
}

/// One of them.
pub(crate) async fn show(core: &Core, cx: &Context, name: &str) -> Result<CronEntry> {
    need(cx, JOB_READ)?;
    need(cx, JOB_ALL)?;
    one(core, cx, name).await
}

/// Switches a schedule on or off.
pub(crate) async fn switch(
    core: &Arc<Core>,
    cx: &Context,
    name: &str,
    enabled: bool,
) -> Result<CronEntry> {
    need(cx, JOB_WRITE)?;
    need(cx, JOB_ALL)?;
    if one(core, cx, name).await?.form == Form::Interval {
        return Err(reason::CRON_FIXED.into());
    }
    let unit = Unit::begin(core, cx).await?;
    let before = schedules::switch(&unit.tx, name, enabled, unit.now()).await?;
    let before = before.ok_or(reason::CRON_NOT_FOUND)?;
    if before != enabled {
        let record = Record::done("control.cron.switched", "cron", name, id::TENANT_SYSTEM).change(
            "enabled",
            Some(before.into()),
            Some(enabled.into()),
        );
        unit.audit(record).await?;
        unit.commit().await?;
    }
    one(core, cx, name).await
}

/// Asks for a run at once. Gives the job, where there is one.
pub(crate) async fn run(core: &Arc<Core>, cx: &Context, name: &str) -> Result<Option<Uuid>> {
    need(cx, JOB_WRITE)?;
    need(cx, JOB_ALL)?;
    let unit = Unit::begin(core, cx).await?;
    let asked = schedules::ask(&unit.tx, cx, name).await?;
    let job = asked.map_err(|refused| match refused {
        NotAsked::Running => reason::CRON_RUNNING,
        NotAsked::Unknown => reason::CRON_NOT_FOUND,
    })?;
    let mut record = Record::done("control.cron.run", "cron", name, id::TENANT_SYSTEM);
    if let Some(job) = job {
        record = record.change("job", None, Some(job.to_string().into()));
    }
    unit.audit(record).await?;
    unit.commit().await?;
    Ok(job)
}

async fn one(core: &Core, cx: &Context, name: &str) -> Result<CronEntry> {
    let found = schedules::list(&core.db, Some(name), cx.now()).await?;
    Ok(found.into_iter().next().ok_or(reason::CRON_NOT_FOUND)?)
}
