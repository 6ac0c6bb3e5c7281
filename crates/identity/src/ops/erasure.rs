//! The end of an account: days of grace, then erasure by every service, part by part until all are done (ID-151…153).

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Context, Timestamp, id};
use portico_contract::audit::Record;
use portico_contract::personal::PersonalData;
use portico_db::sea_orm::ConnectionTrait;
use portico_jobs::{Failure, Handler, Job, JobRun, enqueue};
use portico_objects::Key;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{apple, export, login, need, need_person, need_user, scope, sms, step_up, users};
use crate::domain::contact::email_key;
use crate::domain::personal::{Cause, Erasure, Task, TaskState};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::notices::Notice;
use crate::permissions::{USER_READ, USER_WRITE};
use crate::settings::erasure::GRACE_DAYS;
use crate::store;
use crate::store::personal::Names;
use crate::unit::Unit;

/// Kind of the job that erases one person.
pub(crate) const KIND: &str = "identity.erase_user";

/// Our own part: the first one, because by it nobody is known by name any more.
const OWN: &str = "identity";
/// Longest run.
const LIMIT: Duration = Duration::from_secs(3_600);
/// With waits of up to an hour about three days; after that the periodic job asks again.
const TRIES: u32 = 80;
/// Users of one run of the periodic job's step.
const STEP: u64 = 100;
/// Longest error that is kept.
const ERROR: usize = 300;

/// What the job is about.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    tenant: Uuid,
    user: Uuid,
}

/// An erasure with its parts.
pub(crate) type Report = (Erasure, Vec<Task>);

/// Deletes the caller's own account: out everywhere at once, erased when the days of grace are over. Answers
/// when that is.
pub(crate) async fn delete_own(core: &Arc<Core>, cx: &Context) -> Result<Timestamp> {
    let id = need_user(cx)?;
    step_up::need_all_fresh(core, cx).await?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            if cx.tenant() == id::TENANT_SYSTEM {
                unit.tx.serialise(users::ADMINS).await?;
            }
            let user = store::users::lock(&unit.tx, cx.tenant(), id).await?;
            let user = user
                .filter(|user| user.status == UserStatus::Active)
                .ok_or(reason::USER_NOT_FOUND)?;
            let at = schedule(&unit, user).await?;
            unit.commit().await?;
            Ok(at)
        })
        .await
}

/// Takes the deletion of the caller's own account back, as a login does. Done twice it does the same as once.
pub(crate) async fn restore_own(core: &Arc<Core>, cx: &Context) -> Result<()> {
    let id = need_user(cx)?;
    let unit = Unit::begin(core, cx).await?;
    let user = store::users::lock(&unit.tx, cx.tenant(), id).await?;
    let user = user
        .filter(|user| user.status == UserStatus::Active)
        .ok_or(reason::USER_NOT_FOUND)?;
    login::restore(&unit, &user).await?;
    unit.commit().await
}

/// Begins to erase somebody now, without days of grace; asked again, it takes up what was
/// given up.
pub(crate) async fn erase(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    why: Option<String>,
) -> Result<Report> {
    need(cx, USER_WRITE)?;
    need_person(cx)?;
    let why = required_reason(why)?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            let user = doomed(&unit, id).await?;
            let tenant = user.tenant;
            match store::erasures::get(&unit.tx, tenant, id).await? {
                None => begin(&unit, user, Cause::Admin, Some(why.clone())).await?,
                Some(begun) if begun.finished_at.is_none() => {
                    ask(&unit, tenant, id).await?;
                    unit.audit(again(&begun, &why)).await?;
                }
                Some(_) => {}
            }
            let report = report_in(&unit.tx, tenant, id).await?;
            unit.commit().await?;
            Ok(report)
        })
        .await
}

/// How far the erasure of a person is whom the caller may see.
pub(crate) async fn report(core: &Core, cx: &Context, id: Uuid) -> Result<Report> {
    need(cx, USER_READ)?;
    let conn = core.db.reader();
    let tenant = scope::tenant_of_user(conn, cx, id).await?;
    report_in(conn, tenant, id).await
}

/// Begins an erasure within a unit that holds the user's row: nobody is logged in as this user any more, the
/// names are free, and every service has its part to do.
pub(crate) async fn begin(
    unit: &Unit,
    mut user: User,
    cause: Cause,
    why: Option<String>,
) -> Result<()> {
    if user.legal_hold {
        return Err(reason::LEGAL_HOLD.into());
    }
    users::keep_an_admin(unit, &user).await?;
    let erasure = Erasure {
        user: user.id,
        tenant: user.tenant,
        cause,
        reason: why.clone(),
        started_at: unit.now(),
        finished_at: None,
    };
    store::erasures::insert(&unit.tx, &erasure).await?;
    let parts = unit.core.personal.all();
    let services = std::iter::once(OWN).chain(parts.iter().map(|part| part.service()));
    for service in services {
        store::erasures::add_task(&unit.tx, &erasure, service).await?;
    }
    let before = user.status;
    if before != UserStatus::Deleted {
        user.status = UserStatus::Deleted;
        user.deleted_at = Some(unit.now());
        user.delete_at = None;
        user.updated_at = unit.now();
        store::users::put(&unit.tx, &user).await?;
        users::end_access(unit, &user, "deleted").await?;
        users::publish(unit, "identity.user.deleted", &user)?;
    }
    ask(unit, user.tenant, user.id).await?;
    let mut record = users::record("identity.user.erasure_started", &user)
        .change(
            "status",
            Some(before.as_str().into()),
            Some("deleted".into()),
        )
        .change("cause", None, Some(cause.as_str().into()));
    record.reason = why;
    unit.audit(record).await
}

/// Begins the erasures that are due, and asks again for those that were given up (`identity.erase`).
pub(crate) async fn start_due(core: &Arc<Core>) -> Result<()> {
    let cx = core.own_context("identity.erase");
    let now = cx.now();
    let grace = core.settings.system(&GRACE_DAYS);
    let until = now - chrono::Duration::days(i64::from(grace));
    let reader = core.db.reader();
    let due = store::erasures::due(reader, now, STEP).await?;
    let deleted = store::erasures::deleted(reader, until, STEP).await?;
    let asked = due.into_iter().map(|who| (who, Cause::User));
    for ((tenant, user), cause) in asked.chain(deleted.into_iter().map(|who| (who, Cause::Admin))) {
        let begun = core
            .db
            .retry(|| begin_due(core, &cx, tenant, user, cause))
            .await;
        // One who cannot be erased keeps nobody else waiting.
        if let Err(error) = begun {
            tracing::warn!(user_id = %user, err = %error, "an erasure that is due could not begin");
        }
    }
    for (tenant, user) in store::erasures::open(reader, STEP).await? {
        let unit = Unit::begin(core, &cx).await?;
        ask(&unit, tenant, user).await?;
        unit.commit().await?;
    }
    Ok(())
}

/// What erases people.
pub(crate) fn handler(core: &Arc<Core>) -> Handler {
    let core = Arc::clone(core);
    Handler::new(KIND, move |job: JobRun| {
        let core = Arc::clone(&core);
        async move { run(&core, &job).await }
    })
    .limit(LIMIT)
    .at_once(2)
    .backoff(Duration::from_secs(30), Duration::from_secs(3_600))
}

/// A reason that has to be given.
pub(super) fn required_reason(why: Option<String>) -> Result<String> {
    users::reason_of(why)?.ok_or_else(|| Error::field("reason", "required", "must say why"))
}

/// Ends all access now and notes when the erasure begins; without days of grace it begins at once.
pub(super) async fn schedule(unit: &Unit, mut user: User) -> Result<Timestamp> {
    if user.legal_hold {
        return Err(reason::LEGAL_HOLD.into());
    }
    let grace = unit.core.settings.system(&GRACE_DAYS);
    if grace == 0 {
        begin(unit, user, Cause::User, None).await?;
        return Ok(unit.now());
    }
    users::keep_an_admin(unit, &user).await?;
    let at = unit.now() + chrono::Duration::days(i64::from(grace));
    user.delete_at = Some(at);
    user.updated_at = unit.now();
    store::users::put(&unit.tx, &user).await?;
    users::end_access(unit, &user, "deleted").await?;
    let record = users::record("identity.user.deletion_scheduled", &user);
    unit.audit(record.change("delete_at", None, Some(at.to_rfc3339().into())))
        .await?;
    users::publish(unit, "identity.user.updated", &user)?;
    let notices = &unit.core.notices;
    notices
        .send(unit, &user, Notice::DeletionScheduled { at })
        .await?;
    Ok(at)
}

/// A user whom the caller may erase, deleted or not, locked behind the lock of super administrators.
async fn doomed(unit: &Unit, id: Uuid) -> Result<User> {
    let tenant = scope::tenant_of_user(&unit.tx, &unit.cx, id).await?;
    if tenant == id::TENANT_SYSTEM {
        unit.tx.serialise(users::ADMINS).await?;
    }
    let user = store::users::lock(&unit.tx, tenant, id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    let roles = store::roles::of_user(&unit.tx, user.id).await?;
    if !scope::covers(unit.cx.principal(), &roles) {
        return Err(reason::GRANT_EXCEEDS_OWN.into());
    }
    Ok(user)
}

async fn begin_due(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Uuid,
    id: Uuid,
    cause: Cause,
) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?;
    if tenant == id::TENANT_SYSTEM {
        unit.tx.serialise(users::ADMINS).await?;
    }
    // Whoever logged in meanwhile keeps the account.
    let due = |user: &User| match cause {
        Cause::User => user.delete_at.is_some_and(|at| at <= unit.now()) && !user.legal_hold,
        Cause::Admin | Cause::Provider => user.status == UserStatus::Deleted,
    };
    let user = store::users::lock(&unit.tx, tenant, id).await?;
    let Some(user) = user.filter(due) else {
        return Ok(());
    };
    if store::erasures::get(&unit.tx, tenant, id).await?.is_some() {
        return Ok(());
    }
    begin(&unit, user, cause, None).await?;
    unit.commit().await
}

/// Asks for the job, unless it is on its way.
async fn ask(unit: &Unit, tenant: Uuid, user: Uuid) -> Result<()> {
    let job = Job::new(KIND, &Payload { tenant, user })?
        .tenant(tenant)
        .unique_until_ended(user.to_string())
        .max_tries(TRIES);
    enqueue(&unit.tx, &unit.cx, job).await?;
    Ok(())
}

async fn report_in(conn: &impl ConnectionTrait, tenant: Uuid, user: Uuid) -> Result<Report> {
    let erasure = store::erasures::get(conn, tenant, user).await?;
    let erasure = erasure.ok_or(reason::NOT_FOUND)?;
    let tasks = store::erasures::tasks(conn, tenant, user).await?;
    Ok((erasure, tasks))
}

fn again(erasure: &Erasure, why: &str) -> Record {
    let user = erasure.user.to_string();
    let mut record = Record::done(
        "identity.user.erasure_retried",
        "user",
        user,
        erasure.tenant,
    );
    record.reason = Some(why.to_owned());
    record
}

async fn run(core: &Arc<Core>, job: &JobRun) -> std::result::Result<(), Failure> {
    let Payload { tenant, user } = job.payload()?;
    let found = store::erasures::get(core.db.reader(), tenant, user).await?;
    if found.is_none_or(|erasure| erasure.finished_at.is_some()) {
        return Ok(());
    }
    let tasks = store::erasures::tasks(core.db.reader(), tenant, user).await?;
    let mut todo: Vec<&Task> = tasks
        .iter()
        .filter(|t| t.state != TaskState::Done)
        .collect();
    todo.sort_by_key(|task| task.service != OWN);
    let mut left = 0_usize;
    for task in todo {
        if job.cancel.is_cancelled() {
            return Err("the process stops".into());
        }
        if let Err(error) = part(core, job, tenant, user, &task.service).await {
            left += 1;
            let why = portico_web::problem::chain(&error);
            tracing::warn!(user_id = %user, service = task.service, err = %why, "a part of an erasure failed");
            let kept: String = why.chars().take(ERROR).collect();
            note(core, job, (tenant, user), &task.service, Some(&kept)).await?;
        }
    }
    if left > 0 {
        return Err(format!("{left} parts are not erased yet").into());
    }
    Ok(finish(core, job, tenant, user).await?)
}

/// One service's part. It is noted as done after it was done: a process that dies in between does it again.
async fn part(
    core: &Arc<Core>,
    job: &JobRun,
    tenant: Uuid,
    user: Uuid,
    service: &str,
) -> Result<()> {
    if service == OWN {
        return own_part(core, job, tenant, user).await;
    }
    let parts = core.personal.all();
    let part: Option<&Arc<dyn PersonalData>> = parts.iter().find(|p| p.service() == service);
    let Some(part) = part else {
        return Err(Error::Internal("the service is not here".to_owned()));
    };
    let erased = part.erase(&job.context, tenant, user).await;
    erased.map_err(|error| Error::Internal(portico_web::problem::chain(&error)))?;
    note(core, job, (tenant, user), service, None).await
}

async fn note(
    core: &Arc<Core>,
    job: &JobRun,
    who: (Uuid, Uuid),
    service: &str,
    error: Option<&str>,
) -> Result<()> {
    let tx = core.db.begin_durable().await?;
    job.fence(&tx).await?;
    store::erasures::note(&tx, who, service, error, core.clock.now()).await?;
    tx.commit().await?;
    Ok(())
}

/// Identity's own part: objects, then all rows in one transaction; what is left is a tombstone with an id.
async fn own_part(core: &Arc<Core>, job: &JobRun, tenant: Uuid, id: Uuid) -> Result<()> {
    export::remove_all(core, tenant, id).await?;
    let unit = Unit::begin_durable(core, &job.context).await?;
    job.fence(&unit.tx).await?;
    if let Some(user) = store::users::lock(&unit.tx, tenant, id).await? {
        if let Some(avatar) = user.avatar_object.as_deref().and_then(|a| Key::new(a).ok()) {
            let deleted = core.objects.delete(&avatar).await;
            deleted.map_err(|error| Error::Internal(portico_web::problem::chain(&error)))?;
        }
        // Apple is told by jobs of its own, which keep what they need.
        apple::revoke_all(&unit, &user).await?;
        core.notices.send(&unit, &user, Notice::Erased).await?;
        let email = user.email.as_deref().map(email_key);
        let names = Names {
            email_key: email.as_deref(),
            phone_hash: user.phone.as_deref().map(|p| sms::number_hash(core, p)),
        };
        store::personal::erase(&unit.tx, tenant, id, &names).await?;
        store::users::put(&unit.tx, &tombstone(&user, unit.now())).await?;
    }
    store::erasures::note(&unit.tx, (tenant, id), OWN, None, unit.now()).await?;
    unit.commit().await
}

/// What is left of a user: that there was one.
fn tombstone(user: &User, now: Timestamp) -> User {
    User {
        status: UserStatus::Deleted,
        deleted_at: user.deleted_at,
        created_at: user.created_at,
        tv: user.tv,
        locale: "en".to_owned(),
        time_zone: "UTC".to_owned(),
        ..User::new(user.id, user.tenant, now)
    }
}

/// Everything is done: the report ends, and others are told.
async fn finish(core: &Arc<Core>, job: &JobRun, tenant: Uuid, id: Uuid) -> Result<()> {
    let unit = Unit::begin_durable(core, &job.context).await?;
    if store::erasures::finish(&unit.tx, tenant, id, unit.now()).await? {
        let (_, tasks) = report_in(&unit.tx, tenant, id).await?;
        let user = store::users::get(&unit.tx, tenant, id).await?;
        let user = user.ok_or(reason::USER_NOT_FOUND)?;
        let record = users::record("identity.user.erased", &user);
        let record = tasks.iter().fold(record, |record, task| {
            let state = task.state.as_str();
            record.change(&task.service, None, Some(state.into()))
        });
        unit.audit(record).await?;
        users::publish(&unit, "identity.user.erased", &user)?;
    }
    job.done(&unit.tx).await?;
    unit.commit().await
}
