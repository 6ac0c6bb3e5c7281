//! "May this user do that, and through which role?" (ID-27)

use portico_base::{Context, Permission};
use portico_contract::tenants::TenantStatus;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{need, roles, scope};
use crate::domain::user::UserStatus;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::permissions::ROLE_READ;
use crate::store;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub user: Uuid,
    pub permission: String,
}

/// What would happen.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RoleAnswer)]
pub(crate) struct Answer {
    /// The user may, and can log in.
    pub allowed: bool,
    /// What would be answered otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<&'static str>,
    /// Every role that allows it, with what of it does.
    pub through: Vec<Grant>,
}

/// A role that allows it.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RoleAnswerGrant)]
pub(crate) struct Grant {
    pub role: String,
    pub permission: String,
}

/// Answers from the tables, as the next login or refresh would see them.
pub(crate) async fn ask(core: &Core, cx: &Context, question: &Question) -> Result<Answer> {
    need(cx, ROLE_READ)?;
    let wanted = Permission::parse(&question.permission)
        .map_err(|message| Error::field("permission", "form", message))?;
    let conn = core.db.reader();
    let user = scope::user(conn, cx, question.user).await?;
    let tenant = store::tenants::get(conn, user.tenant).await?;
    let through: Vec<Grant> = roles::of(conn, &user)
        .await?
        .into_iter()
        .filter_map(|role| {
            let held = role.permissions.iter().find(|p| p.covers(&wanted))?;
            Some(Grant {
                permission: held.to_string(),
                role: role.name,
            })
        })
        .collect();
    let suspended = tenant.is_none_or(|t| t.status != TenantStatus::Active);
    let refused = if suspended {
        Some("identity.tenant_suspended")
    } else if user.status != UserStatus::Active {
        Some("identity.account_disabled")
    } else if through.is_empty() {
        Some("identity.permission_denied")
    } else {
        None
    };
    Ok(Answer {
        allowed: refused.is_none(),
        refused,
        through,
    })
}
