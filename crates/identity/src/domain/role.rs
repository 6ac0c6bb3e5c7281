//! Roles: named sets of permissions, built in or made by a tenant (ID-21, ID-22).

use portico_base::{Permission, Timestamp};
use portico_contract::permissions::PermissionDeclaration;
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

/// A permission that somebody declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub name: Permission,
    pub service: String,
    pub title_zh: String,
    pub title_en: String,
    /// Its holders are administrators (ID-76).
    pub admin: bool,
    /// It reaches beyond one tenant.
    pub system: bool,
    /// A plug-in declared it at registration.
    pub plugin: bool,
}

impl Known {
    /// From the code of a service.
    pub(crate) fn declared(service: &str, of: &PermissionDeclaration) -> Self {
        Self {
            name: Permission::new(of.name),
            service: service.to_owned(),
            title_zh: of.title_zh.to_owned(),
            title_en: of.title.to_owned(),
            admin: of.admin,
            system: of.system,
            plugin: false,
        }
    }

    /// True when holding `permission` allows this.
    pub(crate) fn is_covered_by(&self, permission: &Permission) -> bool {
        permission.covers(&self.name)
    }

    /// From the registration of a plug-in: for anybody within a tenant, its name is its title. What is
    /// not below the plug-in's own name is not its to declare.
    pub(crate) fn plugin(service: &str, name: &Permission) -> Option<Self> {
        let own = name.as_str().strip_prefix(service)?.starts_with(':');
        (own && !name.as_str().contains('*')).then(|| Self {
            name: name.clone(),
            service: service.to_owned(),
            title_zh: name.to_string(),
            title_en: name.to_string(),
            admin: false,
            system: false,
            plugin: true,
        })
    }
}

/// Everything whose scope is the tenant, in as few permissions as say it: a whole service or resource where
/// none of it reaches further (ID-21).
pub(crate) fn within_tenant(known: &[Known]) -> Vec<Permission> {
    let mut set: Vec<Permission> = known
        .iter()
        .filter(|k| !k.system)
        .filter_map(|k| {
            let (service, rest) = k.name.as_str().split_once(':')?;
            let (resource, _) = rest.split_once(':')?;
            let widest = [
                format!("{service}:*:*"),
                format!("{service}:{resource}:*"),
                k.name.to_string(),
            ];
            let inside = |p: &Permission| known.iter().all(|k| !k.system || !k.is_covered_by(p));
            widest
                .iter()
                .filter_map(|text| Permission::parse(text).ok())
                .find(inside)
        })
        .collect();
    set.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    set.dedup();
    set
}

/// The same permissions without those that have come to reach beyond the tenant: a wildcard that was given
/// before becomes what it means within the tenant.
pub(crate) fn narrowed(held: &[Permission], known: &[Known]) -> Vec<Permission> {
    let mut set: Vec<Permission> = Vec::new();
    for permission in held {
        let covered = || known.iter().filter(|k| k.is_covered_by(permission));
        if covered().any(|k| k.system) {
            let inside = covered().filter(|k| !k.system);
            set.extend(inside.map(|k| k.name.clone()));
        } else {
            set.push(permission.clone());
        }
    }
    set.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    set.dedup();
    set
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

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Known> {
        let one = |name: &'static str, system| Known {
            name: Permission::new(name),
            service: name.split(':').next().unwrap().to_owned(),
            title_zh: String::new(),
            title_en: String::new(),
            admin: false,
            system,
            plugin: false,
        };
        vec![
            one("music:cache:read", false),
            one("music:cache:write", true),
            one("music:playlist:read", false),
            one("music:playlist:write", false),
            one("notes:note:write", false),
        ]
    }

    fn texts(set: &[Permission]) -> Vec<&str> {
        set.iter().map(Permission::as_str).collect()
    }

    #[test]
    fn a_tenants_administrator_holds_what_stays_within() {
        let set = within_tenant(&known());
        assert_eq!(
            texts(&set),
            ["music:cache:read", "music:playlist:*", "notes:*:*"]
        );
        for k in known() {
            let held = set.iter().any(|p| k.is_covered_by(p));
            assert_eq!(held, !k.system, "{}", k.name);
        }
    }

    #[test]
    fn a_wildcard_does_not_grow_beyond_the_tenant() {
        let held = [Permission::new("music:*:*"), Permission::new("notes:*:*")];
        assert_eq!(
            texts(&narrowed(&held, &known())),
            [
                "music:cache:read",
                "music:playlist:read",
                "music:playlist:write",
                "notes:*:*"
            ]
        );
        let gone = [Permission::new("music:cache:write")];
        assert!(narrowed(&gone, &known()).is_empty());
    }

    #[test]
    fn plug_ins_declare_only_what_is_theirs() {
        let of = |name| Known::plugin("notes", &Permission::new(name)).map(|k| k.name);
        assert_eq!(
            of("notes:note:write"),
            Some(Permission::new("notes:note:write"))
        );
        for foreign in ["gateway:route:write", "notes2:note:write", "notes:*:write"] {
            assert_eq!(of(foreign), None, "{foreign}");
        }
    }
}
