//! Reading users: masked, unless somebody who may asks for more, which is audited (ID-13, ID-15).

use std::collections::HashMap;
use std::sync::Arc;

use portico_base::{Context, FieldFault, Timestamp};
use portico_contract::audit::Record;
use uuid::Uuid;

use super::record;
use crate::domain::contact::{Country, check_email, check_phone, email_key, username_key};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::ops::{need, need_user, roles, scope};
use crate::permissions::{PII_READ, USER_READ};
use crate::store;
use crate::store::user_list::{Key, Search};
use crate::unit::Unit;

/// Longest text that is looked for.
const LONGEST: usize = 254;

/// What somebody looks for, as they wrote it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub tenant: Option<String>,
    pub id: Option<Uuid>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub status: Option<UserStatus>,
    pub role: Option<String>,
    pub created: (Option<Timestamp>, Option<Timestamp>),
    pub login: (Option<Timestamp>, Option<Timestamp>),
    pub method: Option<String>,
}

/// A user with the names of the roles.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub user: User,
    pub roles: Vec<String>,
}

/// One page of users and, for the next page, the key of each.
pub(crate) async fn list(
    core: &Arc<Core>,
    cx: &Context,
    wanted: Wanted,
    after: Option<Key>,
    limit: usize,
    unmasked: bool,
) -> Result<Vec<(Found, Key)>> {
    need(cx, USER_READ)?;
    let conn = core.db.reader();
    let tenant = scope::tenant(conn, cx, wanted.tenant.as_deref()).await?;
    let search = search(core, tenant.id, wanted).await?;
    if after.as_ref().is_some_and(|key| !search.takes(key)) {
        return Err(Error::field(
            "cursor",
            "invalid",
            "is not a cursor of this list",
        ));
    }
    let most = u64::try_from(limit + 1).unwrap_or(u64::MAX);
    let users = store::user_list::page(conn, tenant.id, &search, after.as_ref(), most).await?;
    if unmasked {
        let shown = users.len().min(limit);
        let record = Record::done(
            "identity.pii.listed",
            "tenant",
            tenant.id.to_string(),
            tenant.id,
        )
        .change("users", None, Some(shown.into()));
        read_unmasked(core, cx, record).await?;
    }
    let ids: Vec<Uuid> = users.iter().map(|u| u.id).collect();
    let mut names: HashMap<Uuid, Vec<String>> = HashMap::new();
    for (user, role) in store::roles::of_users(conn, tenant.id, &ids).await? {
        names.entry(user).or_default().push(role);
    }
    Ok(users
        .into_iter()
        .map(|user| {
            let key = search.key(&user);
            let roles = names.remove(&user.id).unwrap_or_default();
            (Found { user, roles }, key)
        })
        .collect())
}

/// A user that the caller may see.
pub(crate) async fn get(core: &Arc<Core>, cx: &Context, id: Uuid, unmasked: bool) -> Result<Found> {
    need(cx, USER_READ)?;
    let user = scope::user(core.db.reader(), cx, id).await?;
    if unmasked {
        read_unmasked(core, cx, record("identity.pii.read", &user)).await?;
    }
    found(core, user).await
}

/// The user who calls.
pub(crate) async fn own(core: &Core, cx: &Context) -> Result<Found> {
    let id = need_user(cx)?;
    let user = store::users::get(core.db.reader(), cx.tenant(), id).await?;
    found(core, user.ok_or(reason::USER_NOT_FOUND)?).await
}

/// The search that somebody's words mean.
pub(crate) async fn search(core: &Core, tenant: Uuid, wanted: Wanted) -> Result<Search> {
    let mut faults = Vec::new();
    if wanted
        .name
        .as_ref()
        .is_some_and(|n| n.is_empty() || n.len() > LONGEST)
    {
        faults.push(FieldFault::new(
            "name",
            "length",
            "must have 1 to 254 bytes",
        ));
    }
    let email = super::new::kept(wanted.email.as_deref().map(check_email), &mut faults);
    let phone = wanted.phone.as_deref().map(|n| check_phone(n, Country::CN));
    let phone = super::new::kept(phone, &mut faults);
    let role = match &wanted.role {
        Some(name) => {
            let known = store::roles::of_tenant(core.db.reader(), tenant).await?;
            let role = known.into_iter().find(|role| role.name == *name);
            if role.is_none() {
                faults.push(FieldFault::new("role", "unknown", "there is no such role"));
            }
            role.map(|role| role.id)
        }
        None => None,
    };
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    Ok(Search {
        id: wanted.id,
        name: wanted.name.as_deref().map(username_key),
        email: email.as_deref().map(email_key),
        phone: phone.map(|n| n.into_string()),
        status: wanted.status,
        role,
        created: wanted.created,
        login: wanted.login,
        method: wanted.method,
    })
}

/// Who reads personal data must be allowed to, and leaves a record.
async fn read_unmasked(core: &Arc<Core>, cx: &Context, record: Record) -> Result<()> {
    need(cx, PII_READ)?;
    let unit = Unit::begin(core, cx).await?;
    unit.audit(record).await?;
    unit.commit().await
}

/// The user with the roles, as the unit sees them.
pub(super) async fn found_in(unit: &Unit, user: User) -> Result<Found> {
    let roles = store::roles::of_user(&unit.tx, user.id).await?;
    let roles = roles.into_iter().map(|role| role.name).collect();
    Ok(Found { user, roles })
}

async fn found(core: &Core, user: User) -> Result<Found> {
    let roles = roles::of(core.db.reader(), &user).await?;
    let roles = roles.into_iter().map(|role| role.name).collect();
    Ok(Found { user, roles })
}
