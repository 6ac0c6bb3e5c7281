//! The use-cases: each checks rights, opens the unit of work, writes, audits and commits.

pub(crate) mod cron;
pub(crate) mod jobs;
pub(crate) mod system;

use portico_base::{Access, Context, Permission};

use crate::error::Result;

/// Checks a permission of the caller.
pub(crate) fn need(cx: &Context, permission: Permission) -> Result<()> {
    Ok(cx.authorise(&Access::Permission(permission))?)
}
