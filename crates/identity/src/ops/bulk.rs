//! One thing done with many users: ordered at once, done by a job, one unit a user (ID-14).

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Access, Caller, Context, Fault as _, FieldFault, PrincipalKind};
use portico_contract::audit::Record;
use portico_jobs::{Failure, Handler, Job, JobRun, enqueue};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{grants, need, roles, scope, users};
use crate::domain::batch::{Action, Actor, Batch, Filter, MOST_IDS, Wanted};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::permissions::{ROLE_WRITE, SESSION_WRITE, USER_READ, USER_WRITE};
use crate::store;
use crate::store::batches::Row;
use crate::store::user_list::{Key, Search};
use crate::unit::Unit;

/// Kind of the job.
pub(crate) const KIND: &str = "identity.users.bulk";
/// Users of one step.
const STEP: u64 = 100;
/// Users are counted no further for a dry run.
const COUNTED: u64 = 1_000_000;
/// Longest run; the next one goes on where it ended.
const LIMIT: Duration = Duration::from_secs(3_600);

/// An order.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub tenant: Option<String>,
    pub wanted: Wanted,
    pub dry_run: bool,
}

/// What came of an order.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    /// Absent for a dry run.
    pub batch: Option<Uuid>,
    pub count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    tenant: Uuid,
    batch: Uuid,
}

/// Orders something for many users, or only counts them.
pub(crate) async fn order(core: &Arc<Core>, cx: &Context, order: Order) -> Result<Ordered> {
    let wanted = &order.wanted;
    need(cx, right(&wanted.action))?;
    let unit = Unit::begin(core, cx).await?;
    let tenant = scope::tenant(&unit.tx, cx, order.tenant.as_deref())
        .await?
        .id;
    check(&unit, tenant, wanted).await?;
    let count = match &wanted.filter {
        None => wanted.ids.len() as u64,
        Some(filter) => {
            let search = search(core, tenant, filter, cx.now()).await?;
            store::user_list::count(&unit.tx, tenant, &search, COUNTED).await?
        }
    };
    if order.dry_run {
        return Ok(Ordered { batch: None, count });
    }
    let batch = Batch {
        id: cx.new_id(),
        tenant,
        wanted: order.wanted,
        actor: Actor::of(cx.principal()),
        total: count,
        done: 0,
        failed: 0,
        created_at: unit.now(),
        finished_at: None,
    };
    store::batches::insert(&unit.tx, &batch).await?;
    let payload = Payload {
        tenant,
        batch: batch.id,
    };
    enqueue(&unit.tx, cx, Job::new(KIND, &payload)?.tenant(tenant)).await?;
    let unit = unit.in_batch(batch.id);
    let action = serde_json::to_value(&batch.wanted.action).unwrap_or_default();
    let record = Record::done(
        "identity.bulk.ordered",
        "batch",
        batch.id.to_string(),
        tenant,
    )
    .change("order", None, Some(action))
    .change("users", None, Some(count.into()));
    unit.audit(record).await?;
    unit.commit().await?;
    Ok(Ordered {
        batch: Some(batch.id),
        count,
    })
}

/// An order and how its users fared, page by page.
pub(crate) async fn report(
    core: &Core,
    cx: &Context,
    id: Uuid,
    after: Option<Uuid>,
    limit: usize,
) -> Result<(Batch, Vec<Row>)> {
    need(cx, USER_READ)?;
    let conn = core.db.reader();
    let tenant = if scope::acts_for_all(cx.principal()) {
        store::batches::tenant_of(conn, id).await?
    } else {
        Some(cx.tenant())
    };
    let tenant = tenant.ok_or(reason::NOT_FOUND)?;
    let found = store::batches::get(conn, tenant, id).await?;
    let (batch, _) = found.ok_or(reason::NOT_FOUND)?;
    let most = u64::try_from(limit + 1).unwrap_or(u64::MAX);
    let rows = store::batches::rows(conn, &batch, after, most).await?;
    Ok((batch, rows))
}

/// Does the orders.
pub(crate) fn handler(core: &Arc<Core>) -> Handler {
    let core = Arc::clone(core);
    Handler::new(KIND, move |job: JobRun| {
        let core = Arc::clone(&core);
        async move { run(&core, &job).await }
    })
    .limit(LIMIT)
    .at_once(2)
}

async fn run(core: &Arc<Core>, job: &JobRun) -> std::result::Result<(), Failure> {
    let payload: Payload = job.payload()?;
    let reader = core.db.reader();
    let found = store::batches::get(reader, payload.tenant, payload.batch).await?;
    let Some((batch, mut position)) = found.filter(|(batch, _)| batch.finished_at.is_none()) else {
        return Ok(());
    };
    let cx = context(core, &batch).await?;
    let search = match &batch.wanted.filter {
        Some(filter) => Some(search(core, batch.tenant, filter, batch.created_at).await?),
        None => None,
    };
    let mut named = batch.wanted.ids.chunks(STEP as usize);
    loop {
        let (ids, next) = match &search {
            Some(search) => page(core, &batch, search, position.as_ref()).await?,
            None => (named.next().unwrap_or_default().to_vec(), None),
        };
        if ids.is_empty() {
            break;
        }
        step(core, &cx, job, &batch, &ids).await?;
        if let Some(next) = next {
            let tx = core.db.begin().await?;
            job.fence(&tx).await?;
            store::batches::advance(&tx, &batch, &next).await?;
            tx.commit().await?;
            position = Some(next);
        }
    }
    let tx = core.db.begin_durable().await?;
    store::batches::finish(&tx, &batch, core.clock.now()).await?;
    job.done(&tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Users of a filter behind a position, and the position behind them.
async fn page(
    core: &Core,
    batch: &Batch,
    search: &Search,
    position: Option<&Key>,
) -> Result<(Vec<Uuid>, Option<Key>)> {
    let reader = core.db.reader();
    let users = store::user_list::page(reader, batch.tenant, search, position, STEP).await?;
    let next = users.last().map(|user| search.key(user));
    Ok((users.into_iter().map(|user| user.id).collect(), next))
}

/// Some users, each in a unit of its own, so that one who cannot be changed keeps nobody back.
async fn step(
    core: &Arc<Core>,
    cx: &Context,
    job: &JobRun,
    batch: &Batch,
    ids: &[Uuid],
) -> std::result::Result<(), Failure> {
    let mut known = store::batches::noted(core.db.reader(), batch, ids).await?;
    for id in ids {
        if job.cancel.is_cancelled() {
            return Err("the process stops".into());
        }
        if known.contains(id) {
            continue;
        }
        // The same id twice is one user.
        known.push(*id);
        let done = core.db.retry(|| one(core, cx, job, batch, *id)).await;
        match done {
            Ok(()) => {}
            // What will be the same the next time is the user's result; the rest is tried again.
            Err(error) if lasting(&error) => {
                let tx = core.db.begin().await?;
                job.fence(&tx).await?;
                let row = Row {
                    user: *id,
                    code: Some(error.code().to_owned()),
                };
                store::batches::note(&tx, batch, &row).await?;
                tx.commit().await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn one(core: &Arc<Core>, cx: &Context, job: &JobRun, batch: &Batch, id: Uuid) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?.in_batch(batch.id);
    job.fence(&unit.tx).await?;
    need(cx, right(&batch.wanted.action))?;
    let user = users::locked(&unit, id).await?;
    if user.tenant != batch.tenant {
        return Err(reason::USER_NOT_FOUND.into());
    }
    apply(&unit, user, &batch.wanted.action).await?;
    let row = Row {
        user: id,
        code: None,
    };
    store::batches::note(&unit.tx, batch, &row).await?;
    unit.commit().await
}

async fn apply(unit: &Unit, user: User, action: &Action) -> Result<()> {
    match action {
        Action::Enable => users::enable_in(unit, user).await.map(drop),
        Action::Disable { reason, until } => {
            let done = users::disable_in(unit, user, reason.clone(), *until);
            done.await.map(drop)
        }
        Action::AddRole { role } => {
            let added = roles::named(&unit.tx, user.tenant, std::slice::from_ref(role)).await?;
            let mut wanted = store::roles::of_user(&unit.tx, user.id).await?;
            for role in added {
                if !wanted.iter().any(|held| held.id == role.id) {
                    wanted.push(role);
                }
            }
            grants::set_in(unit, &user, wanted).await.map(drop)
        }
        Action::RemoveRole { role } => {
            let mut wanted = store::roles::of_user(&unit.tx, user.id).await?;
            wanted.retain(|held| held.name != *role);
            grants::set_in(unit, &user, wanted).await.map(drop)
        }
        Action::LogOut => {
            users::end_access(unit, &user, "logout").await?;
            unit.audit(users::record("identity.user.logged_out", &user))
                .await
        }
    }
}

/// All faults of an order, and whether the caller may give the role.
async fn check(unit: &Unit, tenant: Uuid, wanted: &Wanted) -> Result<()> {
    let mut faults = Vec::new();
    match (&wanted.filter, wanted.ids.len()) {
        (Some(_), 0) | (None, 1..=MOST_IDS) => {}
        (Some(_), _) | (None, 0) => {
            let message = "give either ids or a filter";
            faults.push(FieldFault::new("ids", "required", message));
        }
        (None, _) => {
            let message = format!("must be at most {MOST_IDS}");
            faults.push(FieldFault::new("ids", "too_many", message));
        }
    }
    if let Action::Disable {
        until: Some(until), ..
    } = &wanted.action
        && *until <= unit.now()
    {
        faults.push(FieldFault::new("until", "past", "must be in the future"));
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    match &wanted.action {
        Action::Disable { reason, .. } => users::reason_of(reason.clone()).map(drop),
        Action::AddRole { role } | Action::RemoveRole { role } => {
            let role = roles::named(&unit.tx, tenant, std::slice::from_ref(role)).await?;
            roles::may_grant(&unit.cx, &role)
        }
        Action::Enable | Action::LogOut => Ok(()),
    }
}

fn right(action: &Action) -> portico_base::Permission {
    match action {
        Action::Enable | Action::Disable { .. } => USER_WRITE,
        Action::AddRole { .. } | Action::RemoveRole { .. } => ROLE_WRITE,
        Action::LogOut => SESSION_WRITE,
    }
}

/// Who may order something at all; [`order`] asks for what it needs.
pub(crate) fn access() -> Access {
    Access::AnyOf(vec![USER_WRITE, ROLE_WRITE, SESSION_WRITE])
}

async fn search(
    core: &Core,
    tenant: Uuid,
    filter: &Filter,
    ordered_at: portico_base::Timestamp,
) -> Result<Search> {
    let filter = filter.clone();
    // Who comes later was not meant.
    let to = filter
        .created_to
        .map_or(ordered_at, |to| to.min(ordered_at));
    let wanted = users::Wanted {
        name: filter.name,
        status: filter.status,
        role: filter.role,
        created: (filter.created_from, Some(to)),
        login: (filter.login_from, filter.login_to),
        method: filter.method,
        ..users::Wanted::default()
    };
    users::search(core, tenant, wanted).await
}

/// The context of whoever ordered it, with what they may do now: who lost a right since uses it no more.
async fn context(core: &Arc<Core>, batch: &Batch) -> Result<Context> {
    let actor = &batch.actor;
    let permissions = match (actor.kind, Uuid::parse_str(&actor.subject)) {
        (PrincipalKind::User, Ok(id)) => {
            let reader = core.db.reader();
            let user = store::users::get(reader, actor.tenant, id).await?;
            match user.filter(|user| user.status == UserStatus::Active) {
                Some(user) => {
                    let roles = roles::of(reader, &user).await?;
                    roles
                        .into_iter()
                        .flat_map(|role| role.permissions)
                        .collect()
                }
                None => Vec::new(),
            }
        }
        _ => actor.permissions.clone(),
    };
    let request = format!("batch-{}", batch.id);
    Ok(Context {
        caller: Caller::internal(actor.principal(permissions), &request),
        clock: Arc::clone(&core.clock),
        random: Arc::clone(&core.random),
    })
}

/// True when trying again would come to the same.
const fn lasting(error: &Error) -> bool {
    matches!(
        error,
        Error::Invalid(_) | Error::Refused(_) | Error::With(..) | Error::Access(_)
    )
}
