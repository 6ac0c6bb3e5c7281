//! Copies of a person's data: asked for, made by a job, fetched for a day by whoever asked, swept (ID-150, ID-153).

mod archive;
mod make;
mod readme;

pub(crate) use make::handler;

use std::sync::Arc;

use chrono::Duration;
use portico_base::Context;
use portico_contract::audit::Record;
use portico_jobs::{Job, enqueue};
use portico_objects::{Key, Object, ObjectError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{need, need_person, need_user, scope, step_up};
use crate::domain::personal::{Export, ExportState, requester};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::permissions::{PII_READ, USER_WRITE};
use crate::store;
use crate::unit::Unit;

/// Kind of the job that makes one.
pub(crate) const KIND: &str = "identity.export";

/// A finished copy can be fetched for so long (ID-150).
const LIFE: Duration = Duration::hours(24);
/// What was not made in this time will not be.
const PATIENCE: Duration = Duration::hours(48);
/// Copies of one person a day, for one who asks.
const A_DAY: usize = 5;
/// Most that are shown.
const SHOWN: u64 = 50;
/// Copies of one run of the sweep's step.
const STEP: u64 = 100;

/// What the job is about.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    tenant: Uuid,
    export: Uuid,
}

/// Asks for a copy of the caller's own data.
pub(crate) async fn own(core: &Arc<Core>, cx: &Context) -> Result<Export> {
    let id = need_user(cx)?;
    step_up::need_fresh(core, cx).await?;
    core.db
        .retry(async || {
            let unit = Unit::begin(core, cx).await?;
            let user = store::users::lock(&unit.tx, cx.tenant(), id).await?;
            let user = user
                .filter(|user| user.status == UserStatus::Active)
                .ok_or(reason::USER_NOT_FOUND)?;
            let export = ask(&unit, &user, None).await?;
            unit.commit().await?;
            Ok(export)
        })
        .await
}

/// Asks for a copy of somebody's data, which is not masked in it.
pub(crate) async fn of_user(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    why: Option<String>,
) -> Result<Export> {
    need(cx, USER_WRITE)?;
    need(cx, PII_READ)?;
    need_person(cx)?;
    let why = super::erasure::required_reason(why)?;
    core.db
        .retry(async || {
            let unit = Unit::begin(core, cx).await?;
            let user = scope::user_to_change(&unit.tx, cx, id).await?;
            let export = ask(&unit, &user, Some(why.clone())).await?;
            unit.commit().await?;
            Ok(export)
        })
        .await
}

/// Copies that the caller asked for and that are not over, newest first.
pub(crate) async fn asked(core: &Core, cx: &Context) -> Result<Vec<Export>> {
    let requester = requester(cx.principal());
    let conn = core.db.reader();
    Ok(store::exports::newest(conn, &requester, cx.now(), SHOWN).await?)
}

/// One that the caller asked for; nobody else's is there.
pub(crate) async fn get(core: &Core, cx: &Context, id: Uuid) -> Result<Export> {
    let requester = requester(cx.principal());
    let found = store::exports::of_requester(core.db.reader(), &requester, id).await?;
    found.ok_or_else(|| reason::NOT_FOUND.into())
}

/// Opens a finished copy for whoever asked for it.
pub(crate) async fn fetch(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<(Export, Object)> {
    let export = get(core, cx, id).await?;
    if export.expires_at <= cx.now() {
        return Err(reason::GONE.into());
    }
    if export.state != ExportState::Ready {
        return Err(reason::EXPORT_NOT_READY.into());
    }
    let object = core.objects.get(&object(&export)?).await;
    let object = object.map_err(|error| match error {
        ObjectError::NotFound => reason::GONE.into(),
        other => unavailable(&other),
    })?;
    let unit = Unit::begin(core, cx).await?;
    unit.audit(record("identity.export.fetched", &export))
        .await?;
    unit.commit().await?;
    Ok((export, object))
}

/// Removes copies whose time is over: the object first, so that none is left without a row.
pub(crate) async fn sweep(core: &Arc<Core>) -> Result<()> {
    loop {
        let now = core.clock.now();
        let over = store::exports::expired(core.db.reader(), now, STEP).await?;
        for export in &over {
            remove(core, export).await?;
        }
        if (over.len() as u64) < STEP {
            return Ok(());
        }
    }
}

/// Removes all copies of a person's data.
pub(super) async fn remove_all(core: &Core, tenant: Uuid, user: Uuid) -> Result<()> {
    loop {
        let since = portico_base::Timestamp::default();
        let reader = core.db.reader();
        let some = store::exports::of_user(reader, tenant, user, since, STEP).await?;
        if some.is_empty() {
            return Ok(());
        }
        for export in &some {
            remove(core, export).await?;
        }
    }
}

async fn remove(core: &Core, export: &Export) -> Result<()> {
    let deleted = core.objects.delete(&object(export)?).await;
    deleted.map_err(|error| unavailable(&error))?;
    let tx = core.db.begin().await?;
    store::exports::delete(&tx, export).await?;
    tx.commit().await?;
    Ok(())
}

/// Asks within a unit that holds the user's row. One that is being made for the same caller is the same one.
async fn ask(unit: &Unit, user: &User, why: Option<String>) -> Result<Export> {
    let cx = &unit.cx;
    let requester = requester(cx.principal());
    let since = unit.now() - Duration::hours(24);
    let recent = store::exports::of_user(&unit.tx, user.tenant, user.id, since, STEP).await?;
    let mine: Vec<&Export> = recent.iter().filter(|e| e.requester == requester).collect();
    if let Some(waiting) = mine.iter().find(|e| e.state == ExportState::Waiting) {
        return Ok((*waiting).clone());
    }
    if mine.len() >= A_DAY {
        let oldest = mine.last().map_or(unit.now(), |e| e.created_at);
        let wait = (oldest + Duration::hours(24) - unit.now()).num_seconds();
        let wait = u32::try_from(wait.max(1)).unwrap_or(1);
        return Err(Error::Later(reason::RATE_LIMITED, wait));
    }
    let id = cx.new_id();
    let export = Export {
        id,
        tenant: user.tenant,
        user: user.id,
        requester,
        reason: why,
        state: ExportState::Waiting,
        object: format!("identity/exports/{}/{id}.zip", user.tenant),
        bytes: None,
        sha256: None,
        parts: Vec::new(),
        created_at: unit.now(),
        ready_at: None,
        expires_at: unit.now() + PATIENCE,
    };
    store::exports::insert(&unit.tx, &export).await?;
    let payload = Payload {
        tenant: user.tenant,
        export: id,
    };
    let job = Job::new(KIND, &payload)?.tenant(user.tenant).max_tries(10);
    enqueue(&unit.tx, cx, job).await?;
    let mut record = record("identity.export.ordered", &export);
    record.reason.clone_from(&export.reason);
    unit.audit(record).await?;
    Ok(export)
}

/// A record about a copy: whose data it holds.
fn record(action: &'static str, export: &Export) -> Record {
    let id = export.id.to_string();
    Record::done(action, "user", export.user.to_string(), export.tenant).change(
        "export",
        None,
        Some(id.into()),
    )
}

fn object(export: &Export) -> Result<Key> {
    Key::new(export.object.as_str()).map_err(|error| Error::Internal(error.to_string()))
}

/// The store's fault, told once in the log.
fn unavailable(error: &ObjectError) -> Error {
    tracing::warn!(err = %portico_web::problem::chain(error), "the object store cannot be used");
    Error::Later(reason::OBJECTS_UNAVAILABLE, 30)
}
