//! New users: uniqueness decided by the database, quota, the role that everybody has.

use std::sync::Arc;

use portico_base::{Context, FieldFault, Timestamp};
use portico_db::DbError;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{email_shown, phone_shown, publish, record};
use crate::domain::contact::{Country, check_email, check_phone, check_username};
use crate::domain::profile;
use crate::domain::role::{Role, SUPER_ADMIN, USER, built_in_id};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Reason, Result, reason};
use crate::hub::Core;
use crate::ops::{need, roles, scope, tenants};
use crate::permissions::{ROLE_WRITE, USER_WRITE};
use crate::store;
use crate::unit::Unit;

/// A user to be made. Names are checked and brought into their stored form by [`create`].
#[derive(Debug, Clone)]
pub(crate) struct NewUser {
    pub tenant: Uuid,
    pub username: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub display_name: String,
    /// Absent for the default.
    pub locale: Option<String>,
    /// Absent for the default.
    pub time_zone: Option<String>,
    pub status: UserStatus,
    pub email_verified_at: Option<Timestamp>,
    pub phone_verified_at: Option<Timestamp>,
    pub must_change_password: bool,
    /// Roles besides `user`; whoever calls has checked that they may be granted.
    pub roles: Vec<Uuid>,
    /// An identity of another provider is linked in the same unit, so that no name is needed.
    pub linked: bool,
}

impl NewUser {
    /// An active user without a name.
    pub(crate) const fn of(tenant: Uuid) -> Self {
        Self {
            tenant,
            username: None,
            email: None,
            phone: None,
            display_name: String::new(),
            locale: None,
            time_zone: None,
            status: UserStatus::Active,
            email_verified_at: None,
            phone_verified_at: None,
            must_change_password: false,
            roles: Vec::new(),
            linked: false,
        }
    }
}

/// Makes a user within the unit. The database decides who was first: the loser gets `*_taken`, and the
/// unit cannot be used any more then.
pub(crate) async fn create(unit: &Unit, new: NewUser) -> Result<User> {
    let user = checked(unit, &new)?;
    tenants::room_for_user(unit, new.tenant).await?;
    store::users::insert(&unit.tx, &user).await.map_err(taken)?;
    let mut granted = vec![built_in_id(USER).expect("the role of everybody is built in")];
    granted.extend(&new.roles);
    granted.sort_unstable();
    granted.dedup();
    let by = unit.cx.principal().subject.to_string();
    for role in granted {
        store::roles::grant(&unit.tx, user.tenant, user.id, role, &by, unit.now()).await?;
    }
    let text = |text: &Option<String>| text.clone().map(Value::from);
    unit.audit(
        record("identity.user.created", &user)
            .change("username", None, text(&user.username))
            .change("email", None, email_shown(&user))
            .change("phone", None, phone_shown(&user))
            .change("status", None, Some(user.status.as_str().into())),
    )
    .await?;
    publish(unit, "identity.user.created", &user)?;
    Ok(user)
}

/// Writes a changed user; a name that somebody else has is `*_taken`.
pub(crate) async fn save(unit: &Unit, user: &User) -> Result<()> {
    store::users::put(&unit.tx, user).await.map_err(taken)
}

/// Makes a user for an administrator, with roles that the administrator may grant.
pub(crate) async fn create_by_admin(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Option<&str>,
    mut new: NewUser,
    role_names: &[String],
) -> Result<(User, Vec<Role>)> {
    need(cx, USER_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let home = scope::tenant(&unit.tx, cx, tenant).await?;
    new.tenant = home.id;
    let wanted = roles::named(&unit.tx, home.id, role_names).await?;
    // The role that everybody has needs no right to grant.
    if wanted.iter().any(|role| role.name != USER) {
        need(cx, ROLE_WRITE)?;
        roles::may_grant(cx, &wanted)?;
    }
    new.roles = wanted.iter().map(|role| role.id).collect();
    if wanted.iter().any(|role| role.name == SUPER_ADMIN) {
        unit.tx.serialise(super::life::ADMINS).await?;
    }
    let user = create(&unit, new).await?;
    let roles = store::roles::of_user(&unit.tx, user.id).await?;
    unit.commit().await?;
    Ok((user, roles))
}

fn checked(unit: &Unit, new: &NewUser) -> Result<User> {
    let mut faults = Vec::new();
    let mut user = User::new(unit.cx.new_id(), new.tenant, unit.now());
    user.username = kept(new.username.as_deref().map(check_username), &mut faults);
    user.email = kept(new.email.as_deref().map(check_email), &mut faults);
    let phone = new.phone.as_deref().map(|n| check_phone(n, Country::CN));
    user.phone = kept(phone, &mut faults).map(|n| n.into_string());
    let nothing = new.username.is_none() && new.email.is_none() && new.phone.is_none();
    if nothing && !new.linked {
        let message = "a user name, an e-mail address or a phone number is needed";
        faults.push(FieldFault::new("username", "required", message));
    }
    user.display_name = new.display_name.trim().to_owned();
    faults.extend(profile::display_name_fault(&user.display_name));
    if let Some(locale) = &new.locale {
        faults.extend(profile::locale_fault(locale));
        user.locale.clone_from(locale);
    }
    if let Some(zone) = &new.time_zone {
        faults.extend(profile::time_zone_fault(zone));
        user.time_zone.clone_from(zone);
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    user.status = new.status;
    user.email_verified_at = new.email_verified_at.filter(|_| user.email.is_some());
    user.phone_verified_at = new.phone_verified_at.filter(|_| user.phone.is_some());
    user.must_change_password = new.must_change_password;
    Ok(user)
}

/// The value, or nothing and a fault.
pub(super) fn kept<T>(
    result: Option<std::result::Result<T, FieldFault>>,
    faults: &mut Vec<FieldFault>,
) -> Option<T> {
    result.and_then(|r| r.map_err(|fault| faults.push(fault)).ok())
}

/// A unique violation as the reason with the field at fault.
fn taken(error: DbError) -> Error {
    let DbError::Unique { constraint } = &error else {
        return error.into();
    };
    let of = |field: &str, reason: Reason| {
        let members = Map::from_iter([("field".to_owned(), Value::from(field))]);
        Error::With(reason, members)
    };
    // The name of the index on PostgreSQL, its columns on SQLite.
    if constraint.contains("username") {
        of("username", reason::USERNAME_TAKEN)
    } else if constraint.contains("email") {
        of("email", reason::EMAIL_TAKEN)
    } else if constraint.contains("phone") {
        of("phone", reason::PHONE_TAKEN)
    } else {
        error.into()
    }
}
