//! An order to do something with many users (ID-14).

use portico_base::{Permission, Principal, PrincipalKind, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::user::UserStatus;

/// Most users that are named one by one.
pub(crate) const MOST_IDS: usize = 1_000;

/// What is done with each user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "action", deny_unknown_fields)]
#[schema(as = UserBulkAction)]
pub(crate) enum Action {
    /// Lets them log in again.
    Enable,
    /// Ends their access.
    Disable {
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        #[schema(value_type = Option<String>, format = DateTime)]
        until: Option<Timestamp>,
    },
    /// Gives them a role.
    AddRole {
        /// Its name.
        role: String,
    },
    /// Takes a role from them.
    RemoveRole {
        /// Its name.
        role: String,
    },
    /// Ends their tokens and sessions.
    LogOut,
}

/// Which users, when they are not named one by one; all of it must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = UserBulkFilter)]
pub(crate) struct Filter {
    /// Beginning of the name.
    pub name: Option<String>,
    pub status: Option<UserStatus>,
    /// Name of a role.
    pub role: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_from: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_to: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub login_from: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub login_to: Option<Timestamp>,
    /// Method of the last login.
    pub method: Option<String>,
}

/// What was ordered, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub action: Action,
    /// Empty with a filter.
    pub ids: Vec<Uuid>,
    pub filter: Option<Filter>,
}

/// Who ordered it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Actor {
    pub kind: PrincipalKind,
    pub subject: String,
    pub tenant: Uuid,
    pub permissions: Vec<Permission>,
}

impl Actor {
    pub(crate) fn of(principal: &Principal) -> Self {
        Self {
            kind: principal.kind,
            subject: principal.subject.to_string(),
            tenant: principal.tenant,
            permissions: principal.permissions.to_vec(),
        }
    }

    /// The same one again, with what may be done now.
    pub(crate) fn principal(&self, permissions: Vec<Permission>) -> Principal {
        Principal {
            permissions: permissions.into(),
            ..Principal::new(self.kind, self.subject.as_str(), self.tenant)
        }
    }
}

/// An order as stored.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub id: Uuid,
    pub tenant: Uuid,
    pub wanted: Wanted,
    pub actor: Actor,
    /// Users that fitted when it was ordered.
    pub total: u64,
    pub done: u64,
    pub failed: u64,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}
