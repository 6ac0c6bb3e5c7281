//! Questions of people about requests that nobody sent: whose request, and what a built-in service would say.

use std::sync::Arc;

use http::Method;
use portico_base::id::{TENANT_DEFAULT, TENANT_SYSTEM};
use portico_base::{Access, FieldFault, Permission, Principal, PrincipalKind, authorise};
use portico_web::routes::RouteInfo;
use uuid::Uuid;

use crate::error::Error;
use crate::pipeline::operate::Audience;
use crate::route::explain::Explanation;

/// Longest description of a principal.
const LONGEST: usize = 2_048;
/// Values of one list.
const MOST: usize = 100;

/// The routes of built-in services, for their access.
pub(crate) type BuiltinRoutes = Arc<[(&'static str, Arc<[RouteInfo]>)]>;

/// Reads a description of a caller: `me`, `anonymous`, `operator`, or `user` with parts behind
/// semicolons: `user;sub=alice;tenant=default;roles=editor,admin;scopes=…;permissions=notes:note:write;aal=2`.
///
/// # Errors
/// All faults of the description; also a tenant that the asker must not act for.
pub(crate) fn principal(text: &str, asker: &Principal) -> Result<Principal, Error> {
    let fault = |code: &str, message: String| {
        Error::Invalid(vec![FieldFault::new("principal", code, &message)])
    };
    if text.len() > LONGEST {
        return Err(fault(
            "too_long",
            format!("must be at most {LONGEST} bytes"),
        ));
    }
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    let fixed = match kind {
        "" | "me" => Some(asker.clone()),
        "anonymous" => Some(Principal::anonymous()),
        "operator" if Audience::of(asker) == Audience::All => Some(Principal::operator()),
        "operator" => {
            let message = "only who acts for the whole installation may ask as the operator";
            return Err(fault("foreign", message.to_owned()));
        }
        "user" => None,
        _ => {
            let message = "must be me, anonymous, operator, or user with parts";
            return Err(fault("invalid", message.to_owned()));
        }
    };
    if let Some(fixed) = fixed {
        return match rest.first() {
            None => Ok(fixed),
            Some(part) => Err(fault("invalid", format!("{kind} has no part {part}"))),
        };
    }
    user(&rest, asker).map_err(Error::Invalid)
}

fn user(parts: &[&str], asker: &Principal) -> Result<Principal, Vec<FieldFault>> {
    let mut faults = Vec::new();
    let mut found = Principal {
        aal: 1,
        ..Principal::new(PrincipalKind::User, "somebody", asker.tenant)
    };
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let list = || -> Vec<String> {
            let words = value.split([',', ' ']).filter(|w| !w.is_empty());
            let mut words: Vec<String> = words.map(str::to_owned).take(MOST).collect();
            words.sort();
            words
        };
        let said = match name.trim() {
            "sub" if !value.is_empty() => {
                let tenant = found.tenant;
                let named = Principal::new(PrincipalKind::User, value, tenant);
                (found.subject, found.id) = (named.subject, named.id);
                Ok(())
            }
            "tenant" => tenant(value, asker).map(|id| found.tenant = id),
            "roles" => {
                found.roles = list().into();
                Ok(())
            }
            "scopes" => {
                found.scopes = list().into();
                Ok(())
            }
            "permissions" => {
                let parsed: Result<Vec<Permission>, String> =
                    list().iter().map(|text| Permission::parse(text)).collect();
                parsed.map(|all| found.permissions = all.into())
            }
            "aal" => match value.parse() {
                Ok(aal @ 0..=3) => {
                    found.aal = aal;
                    Ok(())
                }
                _ => Err("aal must be from 0 to 3".to_owned()),
            },
            other => Err(format!("there is no part {other}, or it has no value")),
        };
        if let Err(message) = said {
            faults.push(FieldFault::new("principal", "invalid", &message));
        }
    }
    if faults.is_empty() {
        Ok(found)
    } else {
        Err(faults)
    }
}

fn tenant(text: &str, asker: &Principal) -> Result<Uuid, String> {
    let id = match text {
        "default" => TENANT_DEFAULT,
        "system" => TENANT_SYSTEM,
        _ => Uuid::parse_str(text).map_err(|_| "tenant must be an id, default or system")?,
    };
    if Audience::of(asker) == Audience::All || id == asker.tenant {
        Ok(id)
    } else {
        Err("tenant must be your own".to_owned())
    }
}

/// Adds what a built-in service's own routes say of a request that reaches it.
pub(crate) fn builtin(
    told: &mut Explanation,
    all: &BuiltinRoutes,
    method: &Method,
    principal: &Principal,
    now_s: i64,
) {
    if !told.builtin || told.refused.is_some() {
        return;
    }
    let service = told.service.as_deref().unwrap_or_default();
    let path = told.forwarded.clone().unwrap_or_default();
    let Some((_, routes)) = all.iter().find(|(name, _)| *name == service) else {
        return;
    };
    // Of two that fit, the one that says more wins, as in the router.
    let fits = |route: &&RouteInfo| weigh(&route.path, &path).is_some();
    let fitting: Vec<&RouteInfo> = routes.iter().filter(fits).collect();
    if fitting.is_empty() {
        let why = format!("{service} has nothing at {path}");
        told.stop("endpoint", 404, "system.not_found", why);
        return;
    }
    let asked = if method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    let best = { fitting.iter() }
        .filter(|route| route.method == asked)
        .max_by_key(|route| weigh(&route.path, &path));
    let Some(route) = best else {
        let why = format!("{path} has no {method}");
        told.stop("endpoint", 405, "system.method_not_allowed", why);
        return;
    };
    let name = format!("{} {}", route.method, route.path);
    told.pass("endpoint", format!("{service} declares {name}"));
    told.endpoint = Some(name);
    match authorise(principal, &route.access, now_s) {
        Ok(()) => told.pass("access", describe(&route.access)),
        Err(portico_base::Refusal::Unauthenticated) => {
            let why = format!("nobody is known: {}", describe(&route.access));
            told.stop("access", 401, "identity.token_missing", why);
        }
        Err(portico_base::Refusal::Missing(permission)) => {
            let why = format!("the permission {permission} is missing");
            told.stop("access", 403, "identity.permission_denied", why);
        }
        Err(portico_base::Refusal::StepUp) => {
            let why = format!(
                "a stronger authentication is missing: {}",
                describe(&route.access)
            );
            told.stop("access", 401, "identity.step_up_required", why);
        }
    }
}

fn describe(access: &Access) -> String {
    match access {
        Access::Public => "anybody may call it".to_owned(),
        Access::Authenticated => "anybody with a credential may call it".to_owned(),
        Access::Permission(permission) => format!("it needs the permission {permission}"),
        Access::AnyOf(several) => {
            let names: Vec<&str> = several.iter().map(Permission::as_str).collect();
            format!("it needs one of the permissions {}", names.join(", "))
        }
        Access::Strong { access, fresh } => {
            let recent = if *fresh { ", recently" } else { "" };
            format!("{}, with a second factor{recent}", describe(access))
        }
    }
}

/// Literal segments of a path with `{name}` and `{*rest}` that a request's path has, in their order;
/// nothing when it does not fit.
fn weigh(pattern: &str, path: &str) -> Option<Vec<bool>> {
    let segments = |text: &str| -> Vec<String> {
        text.trim_start_matches('/')
            .split('/')
            .map(str::to_owned)
            .collect()
    };
    let (pattern, path) = (segments(pattern), segments(path));
    let mut literal = Vec::with_capacity(pattern.len());
    for (at, part) in pattern.iter().enumerate() {
        if part.starts_with("{*") {
            return (at < path.len()).then_some(literal);
        }
        let here = path.get(at)?;
        let free = part.starts_with('{') && part.ends_with('}');
        if (!free || here.is_empty()) && part != here {
            return None;
        }
        literal.push(!free);
    }
    (pattern.len() == path.len()).then_some(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(all: bool) -> Principal {
        if all {
            Principal::operator()
        } else {
            Principal::new(PrincipalKind::User, "admin", Uuid::from_u128(7))
        }
    }

    #[test]
    fn descriptions_become_principals() {
        let of = |text: &str| principal(text, &asker(true)).unwrap();
        assert_eq!(of("").kind, PrincipalKind::Operator);
        assert_eq!(of("me").kind, PrincipalKind::Operator);
        assert!(!of("anonymous").is_authenticated());
        let user =
            of("user; sub=alice; roles=b,a; permissions=notes:note:write; tenant=system; aal=2");
        assert_eq!(
            (&*user.subject, user.roles.to_vec(), user.tenant, user.aal),
            (
                "alice",
                vec!["a".to_owned(), "b".to_owned()],
                TENANT_SYSTEM,
                2
            )
        );
        assert!(user.may(&Permission::new("notes:note:write")));
        assert!(of("user").is_authenticated() && of("user").permissions.is_empty());
    }

    #[test]
    fn all_faults_are_told_and_nobody_asks_for_a_foreign_tenant() {
        let faults = |text: &str, all| match principal(text, &asker(all)) {
            Err(Error::Invalid(faults)) => faults.len(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(faults("king", true), 1);
        assert_eq!(faults("anonymous;roles=x", true), 1);
        assert_eq!(
            faults("user;aal=9;permissions=x;colour=red;tenant=?", true),
            4
        );
        assert_eq!(faults("operator", false), 1);
        assert_eq!(faults("user;tenant=default", false), 1);
        assert_eq!(faults(&"x".repeat(LONGEST + 1), true), 1);
        let own = principal("user;roles=x", &asker(false)).unwrap();
        assert_eq!(own.tenant, Uuid::from_u128(7));
    }

    #[test]
    fn built_in_routes_decide_by_their_own_declaration() {
        let route = |method, path: &str, access| RouteInfo {
            method,
            path: path.to_owned(),
            access,
            foreign: false,
        };
        let read = Access::Permission(Permission::new("registry:token:write"));
        let routes: BuiltinRoutes = Arc::from([(
            "registry",
            Arc::from([
                route("GET", "/services", Access::Authenticated),
                route("GET", "/{kind}", Access::Public),
                route("GET", "/services/{id}/history", read),
                route("POST", "/services/{id}/drain", Access::Public),
            ]),
        )]);
        let ask = |method: Method, path: &str, who: &Principal| {
            let mut told = Explanation {
                builtin: true,
                service: Some("registry".to_owned()),
                forwarded: Some(path.to_owned()),
                ..Explanation::default()
            };
            builtin(&mut told, &routes, &method, who, 0);
            told.refused.map_or(200, |refused| refused.status)
        };
        let (nobody, user) = (Principal::anonymous(), asker(false));
        assert_eq!(ask(Method::GET, "/services", &nobody), 401);
        assert_eq!(ask(Method::HEAD, "/services", &user), 200);
        assert_eq!(ask(Method::GET, "/other", &nobody), 200);
        assert_eq!(ask(Method::GET, "/services/1/history", &user), 403);
        assert_eq!(
            ask(Method::GET, "/services/1/history", &Principal::operator()),
            200
        );
        assert_eq!(ask(Method::GET, "/services/1/drain", &user), 405);
        assert_eq!(ask(Method::GET, "/a/b/c/d", &user), 404);
    }
}
