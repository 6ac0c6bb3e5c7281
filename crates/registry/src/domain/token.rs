//! Registration tokens: who may register which names, and how far.

use std::sync::Arc;

use portico_base::{Permission, Principal, PrincipalKind, Timestamp, id};
use uuid::Uuid;

/// Prefix of registration tokens.
pub(crate) const TOKEN_PREFIX: &str = "prt_";
/// Prefix of instance secrets.
pub(crate) const SECRET_PREFIX: &str = "pis_";

/// Scopes that a token may carry beyond what every registration token may do.
pub(crate) const SCOPES: [&str; 6] = [
    "registry:check:foreign",
    "registry:kv:read",
    "registry:kv:write",
    "registry:session:write",
    "registry:event:write",
    "registry:*:*",
];

/// What every registration token may do.
const BASE: [Permission; 4] = [
    Permission::new("registry:instance:register"),
    Permission::new("registry:instance:read"),
    Permission::new("registry:directory:read"),
    Permission::new("registry:service:read"),
];

/// What an instance may do with its secret. Where the instances of other services are is not among it.
const INSTANCE: [Permission; 3] = [
    Permission::new("registry:instance:heartbeat"),
    Permission::new("registry:directory:read"),
    Permission::new("registry:service:read"),
];

/// Names that a token covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamePattern {
    /// One name.
    Exact(String),
    /// Every name that begins so (`shop-*`).
    Prefix(String),
}

impl NamePattern {
    /// Parses `hello` or `hello-*`.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (head, prefix) = match text.strip_suffix('*') {
            Some(head) => (head, true),
            None => (text, false),
        };
        let form = |name: &str| portico_base::name::is_service_name(name);
        if prefix && head.is_empty() {
            return Ok(Self::Prefix(String::new()));
        }
        // One letter is no name, but may begin one.
        if prefix && (form(head) || form(&format!("{head}a"))) {
            return Ok(Self::Prefix(head.to_owned()));
        }
        if !prefix && form(head) {
            return Ok(Self::Exact(head.to_owned()));
        }
        Err("must be a service name, or the beginning of one followed by `*`")
    }

    pub(crate) fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Prefix(head) => name.starts_with(head.as_str()),
        }
    }

    /// An administrator named exactly this service: the grant that RG-9 asks for.
    pub(crate) fn grants(&self, name: &str) -> bool {
        matches!(self, Self::Exact(own) if own == name)
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Prefix(head) => format!("{head}*"),
        }
    }
}

/// A registration token as we keep it: never the token itself.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub id: Uuid,
    pub pattern: NamePattern,
    pub scopes: Vec<String>,
    /// Instances that may live under it at once.
    pub max_instances: u32,
    pub allow_public: bool,
    pub allow_credentials: bool,
    /// Tenant of the services that it registers; absent: global.
    pub tenant: Option<Uuid>,
    pub hash: [u8; 32],
    pub expires_at: Option<Timestamp>,
    pub used_at: Option<Timestamp>,
    pub created_by: String,
    pub created_at: Timestamp,
    /// What it is for, in its maker's words.
    pub note: String,
    /// The principal that it makes.
    pub principal: Arc<Principal>,
}

impl Token {
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The principal of a registration token. One for a single name acts for that service.
pub(crate) fn registrar(
    token: Uuid,
    pattern: &NamePattern,
    tenant: Option<Uuid>,
    scopes: &[String],
) -> Arc<Principal> {
    let service = match pattern {
        NamePattern::Exact(name) => Some(Arc::from(name.as_str())),
        NamePattern::Prefix(_) => None,
    };
    let scoped = scopes.iter().filter_map(|s| Permission::parse(s).ok());
    Arc::new(Principal {
        permissions: BASE.into_iter().chain(scoped).collect(),
        scopes: scopes.to_vec().into(),
        service,
        ..Principal::new(
            PrincipalKind::Registrar,
            token.to_string(),
            tenant.unwrap_or(id::TENANT_DEFAULT),
        )
    })
}

/// The principal of an instance: it acts for its service, with the scopes that the token which registered it
/// was granted (ID-134).
pub(crate) fn instance(
    instance: Uuid,
    service: &Arc<str>,
    tenant: Option<Uuid>,
    scopes: &[String],
) -> Arc<Principal> {
    let scoped = scopes.iter().filter_map(|s| Permission::parse(s).ok());
    Arc::new(Principal {
        permissions: INSTANCE.into_iter().chain(scoped).collect(),
        scopes: scopes.to_vec().into(),
        service: Some(Arc::clone(service)),
        ..Principal::new(
            PrincipalKind::Instance,
            instance.to_string(),
            tenant.unwrap_or(id::TENANT_DEFAULT),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let exact = NamePattern::parse("hello").unwrap();
        assert!(exact.covers("hello") && exact.grants("hello"));
        assert!(!exact.covers("hello-2"));
        let prefix = NamePattern::parse("h*").unwrap();
        assert!(prefix.covers("hello") && !prefix.grants("hello") && !prefix.covers("other"));
        assert!(NamePattern::parse("*").unwrap().covers("anything"));
        assert_eq!(NamePattern::parse("shop-*").unwrap().text(), "shop-*");
        for bad in ["", "h", "Hello", "a*b", "hello**", "-x*", "a b"] {
            assert!(NamePattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instances_act_for_their_service_with_the_scopes_of_its_token() {
        let name: Arc<str> = "hello".into();
        let who = instance(Uuid::nil(), &name, None, &["registry:kv:read".to_owned()]);
        assert_eq!(who.service.as_deref(), Some("hello"));
        assert!(who.may(&Permission::new("registry:instance:heartbeat")));
        assert!(who.may(&Permission::new("registry:kv:read")));
        assert!(!who.may(&Permission::new("registry:kv:write")));
        assert!(!who.may(&Permission::new("registry:instance:write")));
    }

    #[test]
    fn registrars_hold_their_scopes_and_no_more() {
        let scopes = ["registry:kv:read".to_owned()];
        let exact = NamePattern::Exact("hello".to_owned());
        let who = registrar(Uuid::nil(), &exact, None, &scopes);
        assert_eq!(who.service.as_deref(), Some("hello"));
        let several = NamePattern::Prefix("h".to_owned());
        assert_eq!(registrar(Uuid::nil(), &several, None, &[]).service, None);
        assert!(who.may(&Permission::new("registry:instance:register")));
        assert!(who.may(&Permission::new("registry:kv:read")));
        assert!(!who.may(&Permission::new("registry:kv:write")));
        assert!(!who.may(&Permission::new("registry:token:write")));
        assert!(SCOPES.iter().all(|s| Permission::parse(s).is_ok()));
    }
}
