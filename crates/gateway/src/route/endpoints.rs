//! What a service declares about its paths, compiled so that the most specific declaration is found (GW-16).

use std::sync::Arc;

use http::Method;
use portico_base::Permission;
use portico_contract::directory::Endpoint;

use super::pattern::{Pattern, Tree};
use crate::cache::{Mode, RulePolicy, Scope};
use crate::limit::Limited;
use crate::objects::doc::Dimension;

/// Who may call an endpoint.
#[derive(Debug, Clone, Default)]
pub struct AccessRule {
    pub public: bool,
    /// One of these, when not empty.
    pub roles: Arc<[String]>,
    /// All of these.
    pub permissions: Arc<[Permission]>,
}

/// A compiled declaration.
#[derive(Debug)]
pub struct EndpointRule {
    /// Method and path as declared, for limits and people.
    pub name: Arc<str>,
    pub version: Option<Arc<str>>,
    pub method: Option<Method>,
    pub access: AccessRule,
    /// Per known caller, and per address of unknown ones.
    pub limits: Option<Box<[Limited; 2]>>,
    pub timeout_ms: Option<u32>,
    pub cache: Option<Arc<RulePolicy>>,
    pub idempotency_key: bool,
}

/// The declarations of one service.
#[derive(Debug, Default)]
pub struct Endpoints(Tree<Arc<EndpointRule>>);

impl Endpoints {
    /// Compiles declarations; those that are not well formed were refused at registration and are left out.
    #[must_use]
    pub fn compile(service: &str, declared: &[Endpoint]) -> Self {
        let mut rules: Vec<(Pattern, EndpointRule)> =
            declared.iter().filter_map(|e| rule(service, e)).collect();
        // Of one path the declaration that says more is tried first.
        rules.sort_by_key(|(_, r)| (r.method.is_none(), r.version.is_none()));
        let mut tree = Tree::default();
        for (pattern, rule) in rules {
            tree.insert(&pattern, Arc::new(rule));
        }
        Self(tree)
    }

    /// The declaration for a path below the service.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str, version: &str) -> Option<&Arc<EndpointRule>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.find(path, |rule| {
            let method_fits = rule
                .method
                .as_ref()
                .is_none_or(|m| m == method || (method == Method::HEAD && m == Method::GET));
            method_fits && rule.version.as_deref().is_none_or(|v| v == version)
        })
    }
}

fn rule(service: &str, declared: &Endpoint) -> Option<(Pattern, EndpointRule)> {
    let pattern = Pattern::parse(&declared.path).ok()?;
    let method = match declared.method.as_deref() {
        None | Some("*" | "ANY") => None,
        Some(text) => Some(Method::from_bytes(text.as_bytes()).ok()?),
    };
    let cache = declared.cache.map(|hint| {
        Arc::new(RulePolicy {
            mode: Mode::On,
            scope: if hint.per_user {
                Scope::User
            } else {
                Scope::Auto
            },
            ttl_s: Some(u64::from(hint.ttl_s)),
            stale_while_revalidate_s: u64::from(hint.stale_while_revalidate_s),
            ..RulePolicy::default()
        })
    });
    let name = format!(
        "{} {}",
        declared.method.as_deref().unwrap_or("*"),
        declared.path
    );
    let limits = declared.rate_limit.and_then(|rate| {
        let label = format!("{service} {name}").replace(['"', '\\'], "");
        let limited = |by| Limited::per_second(&label, by, rate.per_s, rate.burst, false);
        Some(Box::new([
            limited(Dimension::User)?,
            limited(Dimension::Address)?,
        ]))
    });
    let rule = EndpointRule {
        name: name.into(),
        version: declared.version.clone(),
        method,
        access: AccessRule {
            public: declared.is_public,
            roles: Arc::clone(&declared.required_roles),
            permissions: Arc::clone(&declared.required_permissions),
        },
        limits,
        timeout_ms: declared.timeout_ms,
        cache,
        idempotency_key: declared.idempotency_key,
    };
    Some((pattern, rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::service::fixture::endpoint;

    #[test]
    fn the_most_specific_declaration_wins() {
        let endpoints = Endpoints::compile(
            "s",
            &[
                endpoint(None, "/notes/*"),
                endpoint(Some("GET"), "/notes/{id}"),
                endpoint(Some("GET"), "/notes/mine"),
                endpoint(None, "/notes/mine"),
                Endpoint {
                    version: Some("2".into()),
                    ..endpoint(Some("GET"), "/notes/mine")
                },
            ],
        );
        let name = |method: &str, path, version| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            endpoints
                .find(&method, path, version)
                .map(|r| (r.name.to_string(), r.version.is_some()))
        };
        assert_eq!(
            name("GET", "/notes/mine", "1"),
            Some(("GET /notes/mine".into(), false))
        );
        assert_eq!(
            name("GET", "/notes/mine", "2"),
            Some(("GET /notes/mine".into(), true))
        );
        assert_eq!(
            name("POST", "/notes/mine", "2"),
            Some(("* /notes/mine".into(), false))
        );
        assert_eq!(
            name("HEAD", "/notes/7", "1"),
            Some(("GET /notes/{id}".into(), false))
        );
        assert_eq!(
            name("DELETE", "/notes/7", "1"),
            Some(("* /notes/*".into(), false))
        );
        assert_eq!(name("GET", "/other", "1"), None);
    }
}
