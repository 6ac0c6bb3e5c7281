//! Whoever acts: user, API key, service, agent, or one of the fixed principals, and what they may do.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id;

/// A permission or scope `service:resource:action`; `*` may stand for any one part when granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Permission(Cow<'static, str>);

impl Permission {
    /// A permission known at compile time.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Parses `a:b:c` with parts of `[a-z0-9_*-]+`.
    ///
    /// # Errors
    /// Says what is wrong when the text does not have exactly three such parts.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let good = |p: &&str| {
            !p.is_empty()
                && p.len() <= 40
                && p.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'*' | b'-')
                })
        };
        if parts.len() == 3 && parts.iter().all(good) {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(format!(
                "`{text}` is not of the form service:resource:action"
            ))
        }
    }

    /// True when holding `self` allows what `wanted` names.
    #[must_use]
    pub fn covers(&self, wanted: &Self) -> bool {
        let mut mine = self.0.split(':');
        let mut theirs = wanted.0.split(':');
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a == "*" || a == b => {}
                _ => return false,
            }
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of caller a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrincipalKind {
    /// Nobody is known.
    Anonymous,
    /// Unauthenticated on the Consul-compatible loopback listener.
    AnonymousLocal,
    /// Holder of the data directory's operator token.
    Operator,
    /// A person with an access token.
    User,
    /// An API key.
    ApiKey,
    /// Holder of a registration token.
    Registrar,
    /// A registered instance, by its instance secret.
    Instance,
    /// A service of the house calling another.
    Service,
    /// A fleet agent.
    Agent,
    /// Background work of the platform.
    System,
}

impl PrincipalKind {
    /// The kind as logs, metrics and audit records write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::AnonymousLocal => "anonymous-local",
            Self::Operator => "operator",
            Self::User => "user",
            Self::ApiKey => "api-key",
            Self::Registrar => "registrar",
            Self::Instance => "instance",
            Self::Service => "service",
            Self::Agent => "agent",
            Self::System => "system",
        }
    }
}

/// Whoever acts. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The kind of caller.
    pub kind: PrincipalKind,
    /// Its id: of the user, key, token or instance; the text form for foreign issuers' subjects.
    pub subject: Arc<str>,
    /// The same as a UUID, where it is one of ours.
    pub id: Option<Uuid>,
    /// The tenant that it acts in.
    pub tenant: Uuid,
    /// Names of its roles, sorted.
    pub roles: Arc<[String]>,
    /// Scopes of its token, sorted.
    pub scopes: Arc<[String]>,
    /// What it may do.
    pub permissions: Arc<[Permission]>,
    /// The session behind an access token.
    pub session: Option<Arc<str>>,
    /// Authentication assurance level, 0 to 3.
    pub aal: u8,
    /// Unix seconds until which its last authentication counts as fresh (`identity.fresh_s`).
    pub fresh_until_s: i64,
    /// The service that it is or acts for: of an instance, of a key made for a service (GW-100).
    pub service: Option<Arc<str>>,
    /// The user who owns an API key: whose things it reaches.
    pub owner: Option<Uuid>,
}

impl Principal {
    /// A principal with nothing but its identity.
    #[must_use]
    pub fn new(kind: PrincipalKind, subject: impl Into<Arc<str>>, tenant: Uuid) -> Self {
        let subject = subject.into();
        Self {
            kind,
            id: Uuid::parse_str(&subject).ok(),
            subject,
            tenant,
            roles: Arc::from([]),
            scopes: Arc::from([]),
            permissions: Arc::from([]),
            session: None,
            aal: 0,
            fresh_until_s: 0,
            service: None,
            owner: None,
        }
    }

    /// The user whose own things it reaches: itself, or the owner of an API key.
    #[must_use]
    pub const fn user(&self) -> Option<Uuid> {
        match self.kind {
            PrincipalKind::User => self.id,
            _ => self.owner,
        }
    }

    /// Nobody.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new(PrincipalKind::Anonymous, "", id::TENANT_DEFAULT)
    }

    /// The holder of the data directory's operator token: every permission.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            permissions: Arc::from([Permission::new("*:*:*")]),
            aal: 2,
            fresh_until_s: i64::MAX,
            ..Self::new(
                PrincipalKind::Operator,
                id::PRINCIPAL_OPERATOR.to_string(),
                id::TENANT_DEFAULT,
            )
        }
    }

    /// An unauthenticated caller on the Consul-compatible loopback listener (RG-46).
    #[must_use]
    pub fn anonymous_local() -> Self {
        Self {
            permissions: Arc::from([
                Permission::new("registry:*:read"),
                Permission::new("registry:instance:register"),
                Permission::new("registry:kv:write"),
                Permission::new("registry:session:write"),
                Permission::new("registry:event:write"),
            ]),
            ..Self::new(
                PrincipalKind::AnonymousLocal,
                id::PRINCIPAL_ANONYMOUS_LOCAL.to_string(),
                id::TENANT_DEFAULT,
            )
        }
    }

    /// Background work of the platform: every permission, tenant `system`.
    #[must_use]
    pub fn system() -> Self {
        Self {
            permissions: Arc::from([Permission::new("*:*:*")]),
            aal: 2,
            fresh_until_s: i64::MAX,
            ..Self::new(
                PrincipalKind::System,
                id::PRINCIPAL_SYSTEM.to_string(),
                id::TENANT_SYSTEM,
            )
        }
    }

    /// True when one of its permissions covers `wanted`.
    #[must_use]
    pub fn may(&self, wanted: &Permission) -> bool {
        self.permissions.iter().any(|held| held.covers(wanted))
    }

    /// True unless nobody is known.
    #[must_use]
    pub const fn is_authenticated(&self) -> bool {
        !matches!(
            self.kind,
            PrincipalKind::Anonymous | PrincipalKind::AnonymousLocal
        )
    }
}

/// Who may call something. Every route declares one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Any known principal.
    Authenticated,
    /// Whoever holds the permission.
    Permission(Permission),
    /// Whoever holds one of the permissions.
    AnyOf(Vec<Permission>),
    /// Whoever may by `access` and has shown a second factor (ID-77).
    Strong {
        /// What is needed besides.
        access: Box<Self>,
        /// The authentication must be recent, too.
        fresh: bool,
    },
}

impl Access {
    /// The same, for whoever has shown a second factor.
    #[must_use]
    pub fn aal2(self) -> Self {
        Self::Strong {
            access: Box::new(self),
            fresh: false,
        }
    }

    /// The same, for whoever has shown a second factor and authenticated recently.
    #[must_use]
    pub fn aal2_fresh(self) -> Self {
        Self::Strong {
            access: Box::new(self),
            fresh: true,
        }
    }
}

/// Why [`authorise`] said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody is known: ask for a credential (401).
    Unauthenticated,
    /// The permission that is missing (403).
    Missing(Permission),
    /// The session must show a second factor, or authenticate again (401 `identity.step_up_required`).
    StepUp,
}

/// Decides whether a principal may do what `access` asks for at `now_s` (Unix seconds).
///
/// # Errors
/// Says whether a credential, a permission or a stronger authentication is missing.
pub fn authorise(principal: &Principal, access: &Access, now_s: i64) -> Result<(), Refusal> {
    let wanted: &[Permission] = match access {
        Access::Public => return Ok(()),
        Access::Authenticated => {
            return if principal.is_authenticated() {
                Ok(())
            } else {
                Err(Refusal::Unauthenticated)
            };
        }
        Access::Permission(one) => std::slice::from_ref(one),
        Access::AnyOf(several) => several,
        Access::Strong { access, fresh } => {
            authorise(principal, access, now_s)?;
            let strong = principal.aal >= 2 && (!fresh || now_s < principal.fresh_until_s);
            return if strong { Ok(()) } else { Err(Refusal::StepUp) };
        }
    };
    if wanted.iter().any(|p| principal.may(p)) {
        return Ok(());
    }
    match wanted.first() {
        Some(first) if principal.is_authenticated() => Err(Refusal::Missing(first.clone())),
        _ => Err(Refusal::Unauthenticated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_cover_by_part() {
        let wanted = Permission::new("registry:kv:write");
        assert!(Permission::new("registry:*:write").covers(&wanted));
        assert!(Permission::new("*:*:*").covers(&wanted));
        assert!(!Permission::new("registry:kv:read").covers(&wanted));
        assert!(!Permission::new("registry:kv").covers(&wanted));
        assert!(Permission::parse("a:b:c").is_ok());
        assert!(Permission::parse("a:b").is_err());
        assert!(Permission::parse("a:b:C d").is_err());
    }

    #[test]
    fn access_is_denied_by_default() {
        let wanted = Access::Permission(Permission::new("registry:token:write"));
        assert_eq!(
            authorise(&Principal::anonymous(), &wanted, 0),
            Err(Refusal::Unauthenticated)
        );
        assert_eq!(
            authorise(&Principal::anonymous_local(), &wanted, 0),
            Err(Refusal::Unauthenticated)
        );
        assert_eq!(authorise(&Principal::operator(), &wanted, 0), Ok(()));
        let user = Principal::new(PrincipalKind::User, "u1", id::TENANT_DEFAULT);
        assert!(matches!(
            authorise(&user, &wanted, 0),
            Err(Refusal::Missing(_))
        ));
        assert_eq!(authorise(&user, &Access::Authenticated, 0), Ok(()));
        assert!(authorise(&Principal::anonymous(), &Access::Authenticated, 0).is_err());
        assert!(authorise(&user, &Access::AnyOf(Vec::new()), 0).is_err());
    }

    #[test]
    fn strong_access_needs_a_second_factor_and_a_fresh_one() {
        let wanted = Access::Authenticated;
        let user = |aal, fresh_until_s| Principal {
            aal,
            fresh_until_s,
            ..Principal::new(PrincipalKind::User, "u1", id::TENANT_DEFAULT)
        };
        let at = |who: &Principal, access: &Access| authorise(who, access, 1_000);
        assert_eq!(
            at(&user(1, 2_000), &wanted.clone().aal2()),
            Err(Refusal::StepUp)
        );
        assert_eq!(at(&user(2, 0), &wanted.clone().aal2()), Ok(()));
        assert_eq!(
            at(&user(2, 1_000), &wanted.clone().aal2_fresh()),
            Err(Refusal::StepUp)
        );
        assert_eq!(at(&user(2, 1_001), &wanted.clone().aal2_fresh()), Ok(()));
        assert_eq!(
            at(&Principal::anonymous(), &wanted.clone().aal2()),
            Err(Refusal::Unauthenticated)
        );
        assert_eq!(at(&Principal::operator(), &wanted.aal2_fresh()), Ok(()));
    }
}
