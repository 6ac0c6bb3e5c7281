//! What a principal may do when it registers, and who owns a name (RG-9, PL-3, RG-46).

use portico_base::{Permission, Principal, PrincipalKind};
use uuid::Uuid;

use super::service::Owner;
use super::token::{NamePattern, Token};

/// Permission to register anything anywhere.
pub(crate) const ANY_INSTANCE: Permission = Permission::new("registry:instance:write");
/// Permission to register global services and services of other tenants.
pub(crate) const ANY_TENANT: Permission = Permission::new("registry:tenant:write");
/// Permission to ask for `default_access: public`.
pub(crate) const PUBLIC: Permission = Permission::new("registry:public:write");
/// Permission to ask for the callers' credentials.
pub(crate) const CREDENTIALS: Permission = Permission::new("registry:credentials:write");
/// Permission to check other hosts than the instance's own.
pub(crate) const FOREIGN: Permission = Permission::new("registry:check:foreign");
/// Permission to see instances' addresses.
pub(crate) const READ_INSTANCES: Permission = Permission::new("registry:instance:read");
/// Permission to drain, resume, weigh instances.
pub(crate) const WRITE_INSTANCES: Permission = ANY_INSTANCE;

/// Which tenants a registration may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tenants {
    /// Exactly this one (absent: global).
    Fixed(Option<Uuid>),
    /// Any; without a wish, this one.
    Any(Option<Uuid>),
}

/// What a principal may do when it registers.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    /// Names that it is bound to; absent: all.
    pub names: Option<NamePattern>,
    pub tenants: Tenants,
    pub public: bool,
    pub credentials: bool,
    pub foreign_checks: bool,
    /// It is an administrator: names of others are open to it.
    pub admin: bool,
    pub max_instances: Option<u32>,
}

impl Rights {
    /// Rights of a registration token.
    pub(crate) fn of_token(token: &Token) -> Self {
        Self {
            names: Some(token.pattern.clone()),
            tenants: Tenants::Fixed(token.tenant),
            public: token.allow_public,
            credentials: token.allow_credentials,
            foreign_checks: token.principal.may(&FOREIGN),
            admin: false,
            max_instances: Some(token.max_instances),
        }
    }

    /// Rights of anybody else that may register at all. The operator and the platform itself act for the
    /// whole installation, so that what they register without naming a tenant is global.
    pub(crate) fn of_principal(principal: &Principal) -> Self {
        if principal.kind == PrincipalKind::AnonymousLocal {
            return Self {
                names: None,
                tenants: Tenants::Fixed(Some(principal.tenant)),
                public: true,
                credentials: false,
                foreign_checks: false,
                admin: false,
                max_instances: None,
            };
        }
        let whole = matches!(
            principal.kind,
            PrincipalKind::Operator | PrincipalKind::System
        );
        let home = (!whole).then_some(principal.tenant);
        Self {
            names: None,
            tenants: if principal.may(&ANY_TENANT) {
                Tenants::Any(home)
            } else {
                Tenants::Fixed(home)
            },
            public: principal.may(&PUBLIC),
            credentials: principal.may(&CREDENTIALS),
            foreign_checks: principal.may(&FOREIGN),
            admin: principal.may(&ANY_INSTANCE),
            max_instances: None,
        }
    }

    /// May it use the name that `owner` has (absent: nobody), with or without a reservation?
    pub(crate) fn may_use(
        &self,
        principal: &Principal,
        name: &str,
        owner: Option<&Owner>,
        reserved: bool,
    ) -> bool {
        let granted = self.admin || self.names.as_ref().is_some_and(|p| p.grants(name));
        granted || (!reserved && owner.is_none_or(|o| o.is(principal)))
    }
}

#[cfg(test)]
mod tests {
    use portico_base::id;

    use super::*;

    #[test]
    fn names_belong_to_the_first_unless_granted() {
        let alice = Principal::new(PrincipalKind::ApiKey, "alice", id::TENANT_DEFAULT);
        let bob = Principal::new(PrincipalKind::ApiKey, "bob", id::TENANT_DEFAULT);
        let owner = Owner::of(&alice);
        let plain = Rights::of_principal(&bob);
        assert!(Rights::of_principal(&alice).may_use(&alice, "hello", Some(&owner), false));
        assert!(!plain.may_use(&bob, "hello", Some(&owner), false));
        assert!(plain.may_use(&bob, "hello", None, false));
        assert!(!plain.may_use(&bob, "hello", None, true), "reserved");
        let exact = Rights {
            names: Some(NamePattern::Exact("hello".to_owned())),
            ..plain.clone()
        };
        assert!(exact.may_use(&bob, "hello", Some(&owner), true));
        let prefix = Rights {
            names: Some(NamePattern::Prefix("he".to_owned())),
            ..plain
        };
        assert!(!prefix.may_use(&bob, "hello", Some(&owner), false));
        let operator = Principal::operator();
        let all = Rights::of_principal(&operator);
        assert!(all.admin && all.may_use(&operator, "hello", Some(&owner), true));
        assert_eq!(all.tenants, Tenants::Any(None));
        let local = Rights::of_principal(&Principal::anonymous_local());
        assert!(local.public && !local.credentials && !local.foreign_checks && !local.admin);
        assert_eq!(local.tenants, Tenants::Fixed(Some(id::TENANT_DEFAULT)));
    }
}
