//! An API key: acts for its owner, within scopes, and never for more than its owner may do (ID-130).

use std::cmp::Reverse;
use std::net::IpAddr;

use chrono::Duration;
use ipnet::IpNet;
use portico_base::{FieldFault, Permission, Timestamp, name};
use portico_contract::credentials::Bounds;
use uuid::Uuid;

use super::role::Role;

/// Longest life of a key.
pub(crate) const LONGEST: Duration = Duration::days(730);
/// Longest time that a replaced secret stays good.
pub(crate) const LONGEST_OVERLAP: Duration = Duration::days(7);
/// Keys that end so soon are told of (ID-136).
pub(crate) const NOTICE: Duration = Duration::days(7);
/// Keys that a user may have of their own making.
pub(crate) const OWN_KEYS: u64 = 20;

const MOST_SCOPES: usize = 100;
const MOST_SERVICES: usize = 32;
const MOST_NETWORKS: usize = 32;
const FASTEST: f64 = 100_000.0;

/// A key as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiKey {
    pub id: Uuid,
    /// The part of its text that is no secret.
    pub key_id: String,
    pub tenant: Uuid,
    pub owner: Uuid,
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Of the secret before, and until when that is good.
    pub previous: Option<([u8; 32], Timestamp)>,
    pub wish: Wish,
    pub expires_at: Timestamp,
    pub noticed_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub last_used_ip: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// What a key is limited to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wish {
    pub scopes: Vec<Permission>,
    /// Services that it opens; none means all.
    pub services: Vec<String>,
    /// Networks that it is used from; none means all.
    pub networks: Vec<IpNet>,
    /// Requests a second.
    pub per_s: Option<f64>,
}

/// The same as somebody wrote it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub scopes: Vec<String>,
    pub services: Vec<String>,
    pub cidrs: Vec<String>,
    pub per_s: Option<f64>,
}

impl ApiKey {
    /// True while it can be used, whatever its owner may.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }

    /// What whoever takes the key keeps; nothing without limits.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        let bounds = Bounds {
            services: self.wish.services.clone(),
            networks: self.wish.networks.clone(),
            per_s: self.wish.per_s,
        };
        (bounds != Bounds::default()).then_some(bounds)
    }
}

impl Written {
    /// What is written, once all of it is right; else every fault.
    pub(crate) fn read(self) -> Result<Wish, Vec<FieldFault>> {
        let mut faults = Vec::new();
        for (field, have, most) in [
            ("scopes", self.scopes.len(), MOST_SCOPES),
            ("services", self.services.len(), MOST_SERVICES),
            ("cidrs", self.cidrs.len(), MOST_NETWORKS),
        ] {
            if have > most {
                faults.push(FieldFault::new(
                    field,
                    "too_many",
                    format!("at most {most}"),
                ));
            }
        }
        let mut wish = Wish::default();
        for (i, scope) in self.scopes.iter().enumerate().take(MOST_SCOPES) {
            match whole(scope) {
                Ok(scope) => wish.scopes.push(scope),
                Err((code, why)) => {
                    faults.push(FieldFault::new(format!("scopes[{i}]"), code, why));
                }
            }
        }
        for (i, service) in self.services.into_iter().enumerate().take(MOST_SERVICES) {
            if name::is_service_name(&service) {
                wish.services.push(service);
            } else {
                let message = "must be the name of a service";
                faults.push(FieldFault::new(format!("services[{i}]"), "form", message));
            }
        }
        for (i, cidr) in self.cidrs.iter().enumerate().take(MOST_NETWORKS) {
            match network(cidr) {
                Some(network) => wish.networks.push(network),
                None => faults.push(FieldFault::new(
                    format!("cidrs[{i}]"),
                    "form",
                    "must be an address or a network such as 203.0.113.0/24",
                )),
            }
        }
        if self
            .per_s
            .is_some_and(|rate| !(0.01..=FASTEST).contains(&rate))
        {
            faults.push(FieldFault::new(
                "per_s",
                "range",
                "must be from 0.01 to 100000",
            ));
        }
        wish.per_s = self.per_s;
        wish.scopes.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        wish.scopes.dedup();
        if faults.is_empty() {
            Ok(wish)
        } else {
            Err(faults)
        }
    }
}

/// What a key may do: what its scopes and its owner's roles both allow (ID-130).
pub(crate) fn effective(scopes: &[Permission], roles: &[Role]) -> Vec<Permission> {
    let held = || roles.iter().flat_map(|r| &r.permissions);
    let mut both: Vec<Permission> = scopes
        .iter()
        .flat_map(|scope| held().filter_map(|own| meet(scope, own)))
        .collect();
    // The wider ones first, so that what they cover falls away.
    both.sort_by_key(|p| (Reverse(wildcards(p)), p.as_str().to_owned()));
    let mut kept: Vec<Permission> = Vec::with_capacity(both.len());
    for one in both {
        if !kept.iter().any(|wide| wide.covers(&one)) {
            kept.push(one);
        }
    }
    kept
}

/// The roles of its owner that a key stands for: those of which it may do everything. Programs ask for
/// roles as well, and a key with less than a role must not pass for it.
pub(crate) fn effective_roles(permissions: &[Permission], roles: &[Role]) -> Vec<String> {
    let mut names: Vec<String> = roles
        .iter()
        .filter(|role| {
            role.permissions
                .iter()
                .all(|wanted| permissions.iter().any(|own| own.covers(wanted)))
        })
        .map(|role| role.name.clone())
        .collect();
    names.sort();
    names
}

/// A scope as people write it: `music:*` is short for `music:*:*`, and a wildcard stands for a whole service
/// or resource, as in roles (ID-22).
fn whole(text: &str) -> Result<Permission, (&'static str, &'static str)> {
    let long = match text.strip_suffix(":*") {
        Some(service) if !service.contains(':') => format!("{service}:*:*"),
        _ => text.to_owned(),
    };
    let scope = Permission::parse(&long)
        .map_err(|_| ("form", "must be of the form service:resource:action"))?;
    let mut parts = long
        .split(':')
        .map(|part| (part == "*", part.contains('*')));
    let whole = match (parts.next(), parts.next(), parts.next()) {
        (Some((_, false)), Some((_, false)), Some((all, star))) => all || !star,
        (Some((_, false)), Some((true, _)), Some((true, _))) => true,
        _ => false,
    };
    if whole {
        Ok(scope)
    } else {
        Err((
            "wildcard",
            "a wildcard stands for a whole service or resource",
        ))
    }
}

/// What both of two permissions allow.
fn meet(a: &Permission, b: &Permission) -> Option<Permission> {
    let parts: Option<Vec<&str>> = a
        .as_str()
        .split(':')
        .zip(b.as_str().split(':'))
        .map(|pair| match pair {
            ("*", part) | (part, "*") => Some(part),
            (one, other) => (one == other).then_some(one),
        })
        .collect();
    Permission::parse(&parts?.join(":")).ok()
}

fn wildcards(permission: &Permission) -> usize {
    permission.as_str().matches('*').count()
}

/// A network, or a single address as one.
fn network(text: &str) -> Option<IpNet> {
    let network = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(network.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permissions(of: &[&str]) -> Vec<Permission> {
        of.iter().map(|p| Permission::parse(p).unwrap()).collect()
    }

    fn role(name: &str, of: &[&str]) -> Role {
        Role {
            id: Uuid::nil(),
            tenant: None,
            name: name.to_owned(),
            title_zh: String::new(),
            title_en: String::new(),
            permissions: permissions(of),
            built_in: false,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    #[test]
    fn a_key_does_what_scopes_and_owner_both_allow() {
        for (scopes, owner, both) in [
            (
                &["music:*:read"][..],
                &["music:playlist:*"][..],
                &["music:playlist:read"][..],
            ),
            (
                &["music:*:*"],
                &["music:playlist:read", "video:clip:read"],
                &["music:playlist:read"],
            ),
            (
                &["music:playlist:read"],
                &["*:*:*"],
                &["music:playlist:read"],
            ),
            (&["music:playlist:write"], &["music:playlist:read"], &[]),
            (&[], &["*:*:*"], &[]),
            (
                &["music:*:*", "music:playlist:read"],
                &["*:*:*"],
                &["music:*:*"],
            ),
        ] {
            let found = effective(&permissions(scopes), &[role("r", owner)]);
            assert_eq!(found, permissions(both), "{scopes:?} of {owner:?}");
        }
    }

    #[test]
    fn a_key_stands_for_a_role_when_it_may_do_all_of_it() {
        let roles = [
            role("user", &[]),
            role("dj", &["music:playlist:write"]),
            role("boss", &["music:*:*", "video:*:*"]),
        ];
        let names =
            |scopes: &[&str]| effective_roles(&effective(&permissions(scopes), &roles), &roles);
        assert_eq!(names(&[]), ["user"]);
        assert_eq!(names(&["music:playlist:*"]), ["dj", "user"]);
        assert_eq!(names(&["music:*:*", "video:*:*"]), ["boss", "dj", "user"]);
    }

    #[test]
    fn every_fault_of_a_wish_is_told() {
        let wish = Written {
            scopes: vec!["music:playlist:read".to_owned(), "music".to_owned()],
            services: vec!["music".to_owned(), "No Service".to_owned()],
            cidrs: vec!["203.0.113.9/24".to_owned(), "203.0.113.300".to_owned()],
            per_s: Some(f64::NAN),
        };
        let faults: Vec<String> = wish
            .read()
            .unwrap_err()
            .into_iter()
            .map(|f| f.field)
            .collect();
        assert_eq!(faults, ["scopes[1]", "services[1]", "cidrs[1]", "per_s"]);
        let wish = Written {
            cidrs: vec!["203.0.113.9/24".to_owned(), "2001:db8::1".to_owned()],
            ..Written::default()
        };
        let networks: Vec<String> = wish
            .read()
            .unwrap()
            .networks
            .iter()
            .map(IpNet::to_string)
            .collect();
        assert_eq!(networks, ["203.0.113.0/24", "2001:db8::1/128"]);
        let many = Written {
            scopes: vec!["a:b:c".to_owned(); MOST_SCOPES + 1],
            ..Written::default()
        };
        assert_eq!(many.read().unwrap_err()[0].code, "too_many");
    }

    #[test]
    fn a_wildcard_of_a_scope_stands_for_a_whole() {
        for (text, scope) in [
            ("music:*", Some("music:*:*")),
            ("music:*:*", Some("music:*:*")),
            ("music:playlist:*", Some("music:playlist:*")),
            ("music:playlist:read", Some("music:playlist:read")),
            ("music:*:read", None),
            ("*:*:*", None),
            ("*:*", None),
            ("mu*:playlist:read", None),
            ("music:playlist:re*", None),
        ] {
            let found = whole(text).ok();
            assert_eq!(found.as_ref().map(Permission::as_str), scope, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_won_by_wildcards(
            scopes in proptest::collection::vec("[ab*]:[ab*]:[ab*]", 0..5),
            owner in proptest::collection::vec("[ab*]:[ab*]:[ab*]", 0..5),
            wanted in "[ab]:[ab]:[ab]",
        ) {
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            let owner: Vec<&str> = owner.iter().map(String::as_str).collect();
            let wanted = Permission::parse(&wanted).unwrap();
            let may = |held: &[Permission]| held.iter().any(|p| p.covers(&wanted));
            let both = effective(&permissions(&scopes), &[role("r", &owner)]);
            prop_assert_eq!(may(&both), may(&permissions(&scopes)) && may(&permissions(&owner)));
        }
    }
}
