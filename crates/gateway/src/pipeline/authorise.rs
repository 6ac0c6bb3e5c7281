//! May this caller use this endpoint: what the endpoint declares, what the service says of the rest, what the route adds (GW-16).

use std::net::IpAddr;

use http::StatusCode;
use portico_base::Principal;
use portico_contract::directory::DefaultAccess;

use super::refusal::Refusal;
use crate::objects::doc::AccessDoc;
use crate::route::endpoints::AccessRule;

/// Decides about addresses: before anything is known of the caller.
///
/// # Errors
/// 403 for clients that the route does not serve.
pub(crate) fn network(access: Option<&AccessDoc>, address: IpAddr) -> Result<(), Refusal> {
    let Some(access) = access else { return Ok(()) };
    let denied = access.deny.iter().any(|network| network.contains(&address));
    let allowed = access.allow.is_empty()
        || access
            .allow
            .iter()
            .any(|network| network.contains(&address));
    if denied || !allowed {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "gateway.address_denied",
            "this is not served to your network",
        ));
    }
    Ok(())
}

/// True when anybody may call.
#[must_use]
pub(crate) fn is_public(
    route: Option<&AccessDoc>,
    endpoint: Option<&AccessRule>,
    default: DefaultAccess,
) -> bool {
    if let Some(route) = route {
        if route.public {
            return true;
        }
        if !route.roles.is_empty() || !route.permissions.is_empty() {
            return false;
        }
    }
    match endpoint {
        Some(rule) => rule.public && rule.roles.is_empty() && rule.permissions.is_empty(),
        None => default == DefaultAccess::Public,
    }
}

/// Decides about a principal. The route's rule comes on top of the endpoint's, unless it says "public".
///
/// # Errors
/// 401 when nobody is known, 403 when a role or permission is missing.
pub(crate) fn principal(
    principal: &Principal,
    route: Option<&AccessDoc>,
    endpoint: Option<&AccessRule>,
    default: DefaultAccess,
) -> Result<(), Refusal> {
    if is_public(route, endpoint, default) {
        return Ok(());
    }
    if !principal.is_authenticated() {
        return Err(Refusal::nobody());
    }
    let replaced = route.is_some_and(|r| r.public);
    if let Some(rule) = endpoint.filter(|_| !replaced) {
        roles(principal, &rule.roles)?;
        permissions(principal, &rule.permissions)?;
    }
    if let Some(route) = route {
        roles(principal, &route.roles)?;
        permissions(principal, &route.permissions)?;
    }
    Ok(())
}

fn roles(principal: &Principal, wanted: &[String]) -> Result<(), Refusal> {
    // Whoever holds every permission needs no role: the operator has none.
    let all = || principal.may(&portico_base::Permission::new("*:*:*"));
    if wanted.is_empty() || wanted.iter().any(|role| principal.roles.contains(role)) || all() {
        return Ok(());
    }
    let detail = format!("one of the roles {} is needed", wanted.join(", "));
    Err(denied(detail))
}

fn permissions(principal: &Principal, wanted: &[portico_base::Permission]) -> Result<(), Refusal> {
    match wanted.iter().find(|permission| !principal.may(permission)) {
        None => Ok(()),
        Some(missing) => {
            let detail = format!("the permission {missing} is needed");
            Err(denied(detail))
        }
    }
}

fn denied(detail: String) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "identity.permission_denied", "").with_detail(detail)
}

#[cfg(test)]
mod tests {
    use portico_base::id::TENANT_DEFAULT;
    use portico_base::{Permission, PrincipalKind};

    use super::*;

    fn user(roles: &[&str], permissions: &[&'static str]) -> Principal {
        Principal {
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            permissions: permissions.iter().map(|p| Permission::new(p)).collect(),
            ..Principal::new(PrincipalKind::User, "u", TENANT_DEFAULT)
        }
    }

    fn rule(public: bool, roles: &[&str], permissions: &[&'static str]) -> AccessRule {
        AccessRule {
            public,
            roles: roles
                .iter()
                .map(|r| (*r).to_owned())
                .collect::<Vec<_>>()
                .into(),
            permissions: permissions
                .iter()
                .map(|p| Permission::new(p))
                .collect::<Vec<_>>()
                .into(),
        }
    }

    fn status(
        who: &Principal,
        route: Option<&AccessDoc>,
        endpoint: Option<&AccessRule>,
        default: DefaultAccess,
    ) -> u16 {
        principal(who, route, endpoint, default).map_or_else(|r| r.status.as_u16(), |()| 200)
    }

    #[test]
    fn table() {
        let (nobody, plain) = (Principal::anonymous(), user(&[], &[]));
        let editor = user(&["editor"], &["notes:note:write"]);
        let (public, role, permission) = (
            rule(true, &[], &[]),
            rule(false, &["editor", "chief"], &[]),
            rule(false, &[], &["notes:note:write"]),
        );
        // A declaration that is public and names a role is not public.
        let odd = rule(true, &["editor"], &[]);
        let (closed, open) = (DefaultAccess::Authenticated, DefaultAccess::Public);
        for (who, endpoint, default, wanted) in [
            (&nobody, None, closed, 401),
            (&nobody, None, open, 200),
            (&plain, None, closed, 200),
            (&nobody, Some(&public), closed, 200),
            (&nobody, Some(&role), open, 401),
            (&plain, Some(&role), open, 403),
            (&editor, Some(&role), closed, 200),
            (&plain, Some(&permission), closed, 403),
            (&editor, Some(&permission), closed, 200),
            (&nobody, Some(&odd), open, 401),
            (&plain, Some(&odd), open, 403),
        ] {
            assert_eq!(
                status(who, None, endpoint, default),
                wanted,
                "{:?} {endpoint:?} {default:?}",
                who.kind
            );
        }
        assert_eq!(
            status(&Principal::operator(), None, Some(&role), closed),
            200
        );
        let narrowed = AccessDoc {
            roles: vec!["chief".into()],
            ..AccessDoc::default()
        };
        assert_eq!(
            status(&editor, Some(&narrowed), Some(&role), closed),
            403,
            "both rules hold"
        );
        assert_eq!(status(&nobody, Some(&narrowed), Some(&public), open), 401);
        let opened = AccessDoc {
            public: true,
            ..AccessDoc::default()
        };
        assert_eq!(status(&nobody, Some(&opened), Some(&role), closed), 200);
    }

    #[test]
    fn networks_are_denied_before_they_are_allowed() {
        let access = AccessDoc {
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            deny: vec!["10.9.0.0/16".parse().unwrap()],
            ..AccessDoc::default()
        };
        let ok = |a: [u8; 4]| network(Some(&access), a.into()).is_ok();
        assert!(ok([10, 1, 1, 1]) && !ok([10, 9, 1, 1]) && !ok([11, 1, 1, 1]));
        assert!(network(None, [1, 1, 1, 1].into()).is_ok());
    }
}
