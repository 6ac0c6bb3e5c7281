//! The use-cases: each checks rights, opens the unit of work, writes, audits and commits.

pub(crate) mod api_keys;
pub(crate) mod apple;
pub(crate) mod arrival;
pub(crate) mod bulk;
pub(crate) mod devices;
pub(crate) mod emails;
pub(crate) mod erasure;
pub(crate) mod export;
pub(crate) mod factors;
pub(crate) mod fingerprint;
pub(crate) mod grants;
pub(crate) mod guard;
pub(crate) mod introspect;
pub(crate) mod invitations;
pub(crate) mod keys;
pub(crate) mod login;
pub(crate) mod mails;
pub(crate) mod methods;
pub(crate) mod mismatches;
pub(crate) mod one_time;
pub(crate) mod passwords;
pub(crate) mod plugins;
pub(crate) mod recovery;
pub(crate) mod refresh;
pub(crate) mod register;
pub(crate) mod roles;
pub(crate) mod scope;
pub(crate) mod security;
pub(crate) mod seed;
pub(crate) mod sessions;
pub(crate) mod setup;
pub(crate) mod simulate;
pub(crate) mod sms;
pub(crate) mod step_up;
pub(crate) mod stranger;
pub(crate) mod sweep;
pub(crate) mod tenants;
pub(crate) mod tickets;
pub(crate) mod tokens;
pub(crate) mod totp;
pub(crate) mod users;

use portico_base::{Access, Context, Permission, PrincipalKind, Refusal};
use uuid::Uuid;

use crate::error::{Result, reason};

/// Checks a permission of the caller.
pub(crate) fn need(cx: &Context, permission: Permission) -> Result<()> {
    Ok(cx.authorise(&Access::Permission(permission))?)
}

/// Refuses API keys and programs: keys, credentials and second factors are for people (ID-133).
pub(crate) fn need_person(cx: &Context) -> Result<()> {
    match cx.principal().kind {
        PrincipalKind::User | PrincipalKind::Operator | PrincipalKind::System => Ok(()),
        _ if cx.principal().is_authenticated() => Err(reason::NOT_FOR_KEYS.into()),
        _ => Err(Refusal::Unauthenticated.into()),
    }
}

/// The user who calls, in their own matters.
pub(crate) fn need_user(cx: &Context) -> Result<Uuid> {
    let principal = cx.principal();
    match (principal.kind, principal.id) {
        (PrincipalKind::User, Some(id)) => Ok(id),
        _ if principal.is_authenticated() => Err(reason::NOT_FOR_KEYS.into()),
        _ => Err(Refusal::Unauthenticated.into()),
    }
}
