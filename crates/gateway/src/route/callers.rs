//! Which service may call which, what of it, and with what rights (GW-100).

use foldhash::HashMap;
use http::Method;
use portico_base::Permission;
use uuid::Uuid;

use super::pattern::{Pattern, Tree};
use crate::objects::doc::{CallerDoc, Object};

/// The allow-lists of all callees, compiled.
#[derive(Debug, Default)]
pub struct Callers(HashMap<Box<str>, Vec<Rule>>);

#[derive(Debug)]
struct Rule {
    /// Whose rule it is; absent for the installation's own, which holds in every tenant.
    tenant: Option<Uuid>,
    callers: Box<[String]>,
    /// Absent for every endpoint.
    endpoints: Option<Tree<Option<Method>>>,
    permissions: Box<[Permission]>,
}

impl Callers {
    /// Compiles documents; those that are not well formed were refused when they were written.
    #[must_use]
    pub fn compile(objects: &[Object<CallerDoc>]) -> Self {
        let mut all: HashMap<Box<str>, Vec<Rule>> = HashMap::default();
        for object in objects {
            let doc = &object.doc;
            let rule = Rule {
                tenant: object.tenant,
                callers: doc.callers.clone().into(),
                endpoints: endpoints(doc),
                permissions: doc.permissions.clone().into(),
            };
            all.entry(doc.service.as_str().into())
                .or_default()
                .push(rule);
        }
        Self(all)
    }

    /// The rights that a caller has at an endpoint of a callee; nothing when no rule lets it call.
    #[must_use]
    pub fn grant(&self, call: &Asked<'_>) -> Option<Vec<Permission>> {
        let rules = self.0.get(call.callee)?;
        let mut fitting = rules.iter().filter(|rule| rule.fits(call)).peekable();
        fitting.peek()?;
        let mut granted: Vec<Permission> = Vec::new();
        for permission in fitting.flat_map(|rule| &rule.permissions) {
            if !granted.contains(permission) {
                granted.push(permission.clone());
            }
        }
        Some(granted)
    }
}

/// A call that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub caller: &'a str,
    /// The tenant that the caller acts in.
    pub tenant: Uuid,
    pub callee: &'a str,
    pub method: &'a Method,
    /// Path below the callee, normalised.
    pub below: &'a str,
}

impl Rule {
    fn fits(&self, call: &Asked<'_>) -> bool {
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(head) => call.caller.starts_with(head),
            None => pattern == call.caller,
        };
        self.tenant.is_none_or(|tenant| tenant == call.tenant)
            && self.callers.iter().any(named)
            && self.endpoints.as_ref().is_none_or(|tree| {
                let fits = |method: &Option<Method>| {
                    method.as_ref().is_none_or(|m| {
                        m == call.method || (*call.method == Method::HEAD && *m == Method::GET)
                    })
                };
                tree.find(call.below, fits).is_some()
            })
    }
}

fn endpoints(doc: &CallerDoc) -> Option<Tree<Option<Method>>> {
    if doc.endpoints.is_empty() {
        return None;
    }
    let mut tree = Tree::default();
    for endpoint in &doc.endpoints {
        let method = endpoint
            .method
            .as_ref()
            .map(|m| Method::from_bytes(m.as_bytes()))
            .transpose();
        if let (Ok(pattern), Ok(method)) = (Pattern::parse(&endpoint.path), method) {
            tree.insert(&pattern, method);
        }
    }
    Some(tree)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portico_base::id::{TENANT_DEFAULT, TENANT_SYSTEM};
    use serde_json::json;

    use super::*;

    fn rules(tenant: Option<Uuid>, doc: serde_json::Value) -> Callers {
        Callers::compile(&[Object {
            name: "rule".into(),
            tenant,
            created_at: portico_base::Timestamp::default(),
            doc: Arc::new(serde_json::from_value(doc).unwrap()),
        }])
    }

    fn may(
        rules: &Callers,
        caller: &str,
        tenant: Uuid,
        method: &Method,
        below: &str,
    ) -> Option<usize> {
        let call = Asked {
            caller,
            tenant,
            callee: "music",
            method,
            below,
        };
        rules.grant(&call).map(|granted| granted.len())
    }

    #[test]
    fn nobody_calls_unless_a_rule_names_caller_endpoint_and_tenant() {
        let none = Callers::default();
        assert_eq!(may(&none, "shop", TENANT_DEFAULT, &Method::GET, "/"), None);
        let some = rules(
            Some(TENANT_DEFAULT),
            json!({"service": "music", "callers": ["shop", "demo-*"],
                   "endpoints": [{"method": "GET", "path": "/tracks/*"}], "permissions": ["music:track:read"]}),
        );
        for (caller, tenant, method, below, wanted) in [
            ("shop", TENANT_DEFAULT, Method::GET, "/tracks/1", Some(1)),
            ("shop", TENANT_DEFAULT, Method::HEAD, "/tracks/1", Some(1)),
            ("demo-a", TENANT_DEFAULT, Method::GET, "/tracks/1", Some(1)),
            ("shop", TENANT_SYSTEM, Method::GET, "/tracks/1", None),
            ("shop", TENANT_DEFAULT, Method::POST, "/tracks/1", None),
            ("shop", TENANT_DEFAULT, Method::GET, "/other", None),
            ("shopping", TENANT_DEFAULT, Method::GET, "/tracks/1", None),
        ] {
            assert_eq!(
                may(&some, caller, tenant, &method, below),
                wanted,
                "{caller} {below}"
            );
        }
        let whole = rules(None, json!({"service": "music", "callers": ["shop"]}));
        assert_eq!(
            may(&whole, "shop", TENANT_SYSTEM, &Method::DELETE, "/x"),
            Some(0)
        );
        assert_eq!(
            may(&whole, "other", TENANT_SYSTEM, &Method::GET, "/x"),
            None
        );
    }
}
