//! Tenants and roles in memory: small tables that are read whole when one of their rows changes.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use portico_base::{Permission, id};
use portico_contract::tenants::Tenant as View;
use uuid::Uuid;

use crate::domain::role::{Role, SUPER_ADMIN};
use crate::domain::tenant::Tenant;

/// A tenant with the part that other services see.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub tenant: Arc<Tenant>,
    pub view: Arc<View>,
}

/// All tenants by what they are asked for.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    by_id: HashMap<Uuid, Entry>,
    by_slug: HashMap<Box<str>, Uuid>,
    by_host: HashMap<Box<str>, Uuid>,
}

impl Tenants {
    pub(super) fn new(rows: Vec<Tenant>, hosts: Vec<(String, Uuid)>) -> Self {
        let mut tenants = Self::default();
        for row in rows {
            let view = View {
                id: row.id,
                slug: row.slug.as_str().into(),
                display_name: row.display_name.as_str().into(),
                status: row.status,
            };
            tenants.by_slug.insert(row.slug.as_str().into(), row.id);
            let entry = Entry {
                tenant: Arc::new(row),
                view: Arc::new(view),
            };
            tenants.by_id.insert(entry.tenant.id, entry);
        }
        tenants.by_host = hosts
            .into_iter()
            .map(|(host, tenant)| (host.to_ascii_lowercase().into(), tenant))
            .collect();
        tenants
    }

    pub(super) fn by_id(&self, id: Uuid) -> Option<&Entry> {
        self.by_id.get(&id)
    }

    pub(super) fn by_slug(&self, slug: &str) -> Option<&Entry> {
        self.by_id(*self.by_slug.get(slug)?)
    }

    /// The tenant of a host name, in any case of letters.
    pub(super) fn by_host(&self, host: &str) -> Option<&Entry> {
        let id = match self.by_host.get(host) {
            Some(id) => id,
            None => self.by_host.get(&*host.to_ascii_lowercase())?,
        };
        self.by_id(*id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values()
    }
}

/// What roles allow, by tenant and name; built-in ones belong to no tenant.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Roles(HashMap<Uuid, HashMap<Box<str>, Arc<[Permission]>>>);

impl Roles {
    pub(super) fn new(rows: Vec<Role>) -> Self {
        let mut roles: HashMap<Uuid, HashMap<Box<str>, Arc<[Permission]>>> = HashMap::new();
        for row in rows {
            roles
                .entry(row.tenant.unwrap_or(Uuid::nil()))
                .or_default()
                .insert(row.name.into(), row.permissions.into());
        }
        Self(roles)
    }

    /// What the roles allow together in a tenant. Names that are not known allow nothing, and the super
    /// administrator is one in the system's tenant only (ID-21).
    pub(super) fn permissions(&self, tenant: Uuid, names: &[String]) -> Arc<[Permission]> {
        let of = |name: &String| {
            let built_in = self.0.get(&Uuid::nil()).and_then(|all| all.get(&**name));
            built_in
                .or_else(|| self.0.get(&tenant).and_then(|own| own.get(&**name)))
                .filter(|_| name != SUPER_ADMIN || tenant == id::TENANT_SYSTEM)
        };
        let mut found = names.iter().filter_map(of);
        let Some(first) = found.next() else {
            return Arc::from([]);
        };
        let Some(second) = found.next() else {
            return Arc::clone(first);
        };
        let mut all: Vec<Permission> = first.iter().chain(second.iter()).cloned().collect();
        all.extend(found.flat_map(|more| more.iter().cloned()));
        all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        all.dedup();
        all.into()
    }
}

#[cfg(test)]
mod tests {
    use portico_base::clock::from_unix_ms;

    use super::*;
    use crate::domain::role::USER;

    fn role(tenant: Option<Uuid>, name: &str, permissions: &[&'static str]) -> Role {
        Role {
            id: Uuid::from_u128(1),
            tenant,
            name: name.to_owned(),
            title_zh: String::new(),
            title_en: String::new(),
            permissions: permissions.iter().map(|p| Permission::new(p)).collect(),
            built_in: tenant.is_none(),
            created_at: from_unix_ms(0),
            updated_at: from_unix_ms(0),
        }
    }

    #[test]
    fn roles_allow_in_their_own_tenant_only() {
        let (one, other) = (id::TENANT_DEFAULT, Uuid::from_u128(9));
        let roles = Roles::new(vec![
            role(None, SUPER_ADMIN, &["*:*:*"]),
            role(None, USER, &["music:track:read"]),
            role(Some(one), "dj", &["music:track:write", "music:track:read"]),
            role(Some(other), "dj", &["video:film:write"]),
        ]);
        let of = |tenant, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let all = roles.permissions(tenant, &names);
            all.iter()
                .map(|p| p.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(one, &["user", "dj"]),
            ["music:track:read", "music:track:write"]
        );
        assert_eq!(of(other, &["dj"]), ["video:film:write"]);
        assert_eq!(of(one, &["gone", "super_admin"]), [""; 0]);
        assert_eq!(of(id::TENANT_SYSTEM, &["super_admin"]), ["*:*:*"]);
    }
}
