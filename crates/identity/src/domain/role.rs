//! Roles: named sets of permissions, built in or made by a tenant (ID-21, ID-22).

use portico_base::{Permission, Timestamp};
use uuid::Uuid;

pub(crate) const SUPER_ADMIN: &str = "super_admin";
pub(crate) const TENANT_ADMIN: &str = "tenant_admin";
pub(crate) const USER: &str = "user";
pub(crate) const AUDITOR: &str = "auditor";

/// A role as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Role {
    pub id: Uuid,
    /// Absent for a built-in.
    pub tenant: Option<Uuid>,
    pub name: String,
    pub title_zh: String,
    pub title_en: String,
    pub permissions: Vec<Permission>,
    pub built_in: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Id of a built-in role: fixed, so that rows of every installation agree.
pub(crate) fn built_in_id(name: &str) -> Option<Uuid> {
    let last = match name {
        SUPER_ADMIN => 0x21,
        TENANT_ADMIN => 0x22,
        USER => 0x23,
        AUDITOR => 0x24,
        _ => return None,
    };
    Some(Uuid::from_u128(
        0x0000_0000_0000_7000_8000_0000_0000_0000 | last,
    ))
}
