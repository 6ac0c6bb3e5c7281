//! The first administrator: a one-time link for whoever can read the terminal, and what it leads to.

use std::sync::Arc;

use chrono::Duration;
use portico_base::{Context, PrincipalKind, Secret, Timestamp, id};
use portico_db::sea_orm::ConnectionTrait;

use super::one_time::{self, Holder};
use super::users::{self, NewUser};
use super::{login, passwords};
use crate::domain::login::{DeviceWish, LoginResult, Proof, Transport};
use crate::domain::role::{SUPER_ADMIN, built_in_id};
use crate::domain::user::{User, UserStatus};
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::permissions::USER_WRITE;
use crate::store;
use crate::store::secrets::Secrets;
use crate::unit::Unit;

const LINK: one_time::Kind = one_time::Kind("setup");
/// Life of the link.
const LIFE: Duration = Duration::minutes(30);

/// Who the first administrator is to be.
#[derive(Debug)]
pub(crate) struct Wish {
    pub token: Secret<String>,
    pub username: String,
    pub password: Secret<String>,
    pub display_name: String,
    pub email: Option<String>,
    pub locale: Option<String>,
    pub device: DeviceWish,
    pub transport: Transport,
}

/// A link to the set-up page, for the operator, while nobody can administer the installation.
pub(crate) async fn link(core: &Arc<Core>, cx: &Context) -> Result<(String, Timestamp)> {
    super::need(cx, USER_WRITE)?;
    if cx.principal().kind != PrincipalKind::Operator {
        return Err(reason::OPERATOR_ONLY.into());
    }
    let unit = Unit::begin_durable(core, cx).await?;
    refuse_second(&unit.tx).await?;
    let holder = Holder::default();
    let (token, expires_at) = one_time::issue(core, &unit.tx, LINK, holder, &(), LIFE).await?;
    let record = portico_contract::audit::Record::done(
        "identity.setup.link_made",
        "installation",
        "setup",
        id::TENANT_SYSTEM,
    );
    unit.audit(record).await?;
    unit.commit().await?;
    Ok((
        core.links.with_token(crate::pages::SETUP, &token),
        expires_at,
    ))
}

/// Makes the first administrator and logs in. The link is used up only when all of it succeeds, so that a
/// password that is too weak can be typed again.
pub(crate) async fn complete(core: &Arc<Core>, cx: &Context, wish: Wish) -> Result<LoginResult> {
    login::refuse_faults(&wish.device)?;
    let refused = reason::TOKEN_USED;
    one_time::peek::<()>(core, core.db.reader(), LINK, &wish.token, refused).await?;
    let new = NewUser {
        username: Some(wish.username.clone()),
        email: wish.email.clone(),
        display_name: wish.display_name.clone(),
        locale: wish.locale.clone(),
        roles: vec![built_in_id(SUPER_ADMIN).expect("super_admin is built in")],
        ..NewUser::of(id::TENANT_SYSTEM)
    };
    let phc = {
        // Not a user yet, but what is known about one: the password must not be near to it.
        let mut user = User::new(id::TENANT_SYSTEM, id::TENANT_SYSTEM, cx.now());
        user.username = Some(wish.username.clone());
        user.email = wish.email.clone();
        user.display_name.clone_from(&wish.display_name);
        passwords::judged_hash(core, &user, true, "password", &wish.password).await?
    };
    let unit = Unit::begin_durable(core, cx).await?;
    unit.tx.serialise(users::ADMINS).await?;
    refuse_second(&unit.tx).await?;
    let user = users::create(&unit, new).await?;
    let secrets = Secrets {
        password: Some(phc),
        password_changed_at: Some(unit.now()),
        ..Secrets::none(user.id)
    };
    store::secrets::put(&unit.tx, &secrets).await?;
    one_time::take::<()>(core, &unit.tx, LINK, &wish.token, refused).await?;
    unit.audit(users::record("identity.setup.completed", &user))
        .await?;
    unit.commit().await?;
    let proof = Proof {
        user,
        method: "setup",
        amr: vec!["pwd".to_owned()],
        aal: 1,
        device: wish.device,
        transport: wish.transport,
    };
    Box::pin(login::finish(core, cx, proof)).await
}

/// Refuses when somebody can administer the installation already.
async fn refuse_second(conn: &impl ConnectionTrait) -> Result<()> {
    let role = built_in_id(SUPER_ADMIN).expect("super_admin is built in");
    let active = UserStatus::Active.as_str();
    if store::roles::count_holders(conn, id::TENANT_SYSTEM, role, active).await? > 0 {
        return Err(reason::ALREADY_SET_UP.into());
    }
    Ok(())
}
