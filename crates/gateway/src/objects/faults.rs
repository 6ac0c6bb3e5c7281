//! What can be wrong with a document, listed by the path of each field.

mod caller;
mod release;
mod route;

use http::{HeaderName, HeaderValue, Method};
use portico_base::FieldFault;
use portico_base::name::is_service_name;

use super::doc::{
    BlockDoc, CacheRuleDoc, CorsDoc, Dimension, HeaderOps, HostDoc, LimitDoc, Scope, TransformDoc,
    Validate,
};
use crate::route::{host, path};

/// Root paths of built-in services, never to be taken by a route that is not bound to a host.
pub const ROOTS: [&str; 16] = [
    "api",
    "auth",
    "console",
    "static",
    "oss",
    "docs",
    "openapi.json",
    "healthz",
    ".well-known",
    "socket.io",
    "rest",
    "media",
    "live",
    "whip",
    "whep",
    "sub",
];

const MAX_LIST: usize = 100;
const MAX_FIXED_BODY: usize = 64 * 1024;
const MAX_TIME_MS: u32 = 3_600_000;

/// Collects faults.
#[derive(Default)]
struct Faults(Vec<FieldFault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, code: &str, message: impl Into<String>) {
        self.0.push(FieldFault::new(field, code, message));
    }

    fn check(&mut self, good: bool, field: impl Into<String>, code: &str, message: &str) {
        if !good {
            self.add(field, code, message);
        }
    }

    fn list<T>(&mut self, field: &str, list: &[T]) {
        self.check(
            list.len() <= MAX_LIST,
            field,
            "too_many",
            "must have at most 100 entries",
        );
    }

    fn header_name(&mut self, field: String, name: &str) {
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => self.add(field, "invalid", format!("`{name}` is not a header name")),
            Ok(name) if is_protected(name.as_str()) => {
                self.add(
                    field,
                    "protected",
                    format!("`{name}` is set by the gateway alone"),
                );
            }
            Ok(_) => {}
        }
    }

    fn header_value(&mut self, field: String, value: &str) {
        self.check(
            HeaderValue::from_str(value).is_ok(),
            field,
            "invalid",
            "is not a header value",
        );
    }

    fn methods(&mut self, field: &str, methods: &[String]) {
        self.list(field, methods);
        for (i, method) in methods.iter().enumerate() {
            let good = Method::from_bytes(method.as_bytes()).is_ok()
                && !method.bytes().any(|b| b.is_ascii_lowercase());
            self.check(
                good,
                format!("{field}[{i}]"),
                "invalid",
                "must be an upper-case method",
            );
        }
    }

    fn hosts(&mut self, field: &str, hosts: &[String]) {
        self.list(field, hosts);
        for (i, name) in hosts.iter().enumerate() {
            let good = host::is_pattern(name);
            self.check(
                good,
                format!("{field}[{i}]"),
                "invalid",
                "must be a host name, or `*.` and a host name",
            );
        }
    }

    fn service(&mut self, field: String, name: &str) {
        self.check(
            is_service_name(name),
            field,
            "invalid",
            "must be a service name like `my-service`",
        );
    }

    fn statuses(&mut self, field: &str, statuses: &[u16], least: u16) {
        for (i, status) in statuses.iter().enumerate() {
            let good = (least..=599).contains(status);
            self.check(
                good,
                format!("{field}[{i}]"),
                "out_of_range",
                "is not a status that fits here",
            );
        }
    }
}

/// Headers that no document may set, remove or rename.
fn is_protected(name: &str) -> bool {
    name.starts_with("x-portico-")
        || matches!(
            name,
            "connection"
                | "content-length"
                | "host"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "via"
                | "x-request-id"
                | "proxy-authorization"
                | "proxy-authenticate"
        )
}

/// The texts between `{` and `}`.
fn braces(text: &str) -> impl Iterator<Item = &str> {
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .map(|name| name.trim_start_matches('*'))
}

fn placeholders(f: &mut Faults, field: &str, text: &str, names: &[String], more: &[&str]) {
    for name in braces(text) {
        let known = matches!(name, "principal.user" | "principal.tenant" | "request.id")
            || more.contains(&name)
            || name
                .strip_prefix("route.")
                .is_some_and(|n| names.is_empty() || names.iter().any(|have| have == n));
        if !known {
            f.add(
                field,
                "unknown_name",
                format!("`{{{name}}}` is not known here"),
            );
        }
    }
}

fn scope(f: &mut Faults, scope: &Scope) {
    f.list("scope.services", &scope.services);
    f.list("scope.routes", &scope.routes);
    for (i, name) in scope.services.iter().enumerate() {
        f.service(format!("scope.services[{i}]"), name);
    }
    f.methods("scope.methods", &scope.methods);
    let good = scope
        .path_prefix
        .as_deref()
        .is_none_or(|p| path::normalise(p.as_bytes()).is_ok_and(|n| n.as_str() == p));
    f.check(
        good,
        "scope.path_prefix",
        "invalid",
        "must be a normalised path that begins with `/`",
    );
}

fn policy(f: &mut Faults, field: &str, rule: &crate::cache::RulePolicy) {
    for fault in rule.faults() {
        f.add(
            format!("{field}.{}", fault.field),
            fault.code,
            fault.message,
        );
    }
}

impl Validate for LimitDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        scope(&mut f, &self.scope);
        f.check(
            self.per_s.is_some() || self.concurrent.is_some(),
            "per_s",
            "required",
            "a rate or `concurrent` is needed",
        );
        let good = self
            .per_s
            .is_none_or(|n| n.is_finite() && (0.000_01..=1_000_000.0).contains(&n));
        f.check(
            good,
            "per_s",
            "out_of_range",
            "must be above 0 and at most 1000000",
        );
        f.check(
            self.burst.is_none_or(|n| (1..=10_000_000).contains(&n)),
            "burst",
            "out_of_range",
            "must be at least 1",
        );
        f.check(
            self.burst.is_none() || self.per_s.is_some(),
            "burst",
            "conflict",
            "needs `per_s`",
        );
        f.check(
            self.concurrent.is_none_or(|n| n > 0),
            "concurrent",
            "out_of_range",
            "must be at least 1",
        );
        match &self.by {
            Dimension::Header(name) => {
                let good = HeaderName::from_bytes(name.as_bytes()).is_ok();
                f.check(good, "by.header", "invalid", "is not a header name");
            }
            Dimension::Claim(name) => f.check(
                !name.is_empty(),
                "by.claim",
                "required",
                "must not be empty",
            ),
            _ => {}
        }
        f.0
    }
}

impl Validate for CorsDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        scope(&mut f, &self.scope);
        f.list("origins", &self.origins);
        f.check(
            !self.origins.is_empty(),
            "origins",
            "required",
            "at least one origin is needed",
        );
        for (i, origin) in self.origins.iter().enumerate() {
            let good = origin == "*" || is_origin(origin);
            f.check(
                good,
                format!("origins[{i}]"),
                "invalid",
                "must be scheme, host and port as browsers send them",
            );
        }
        let wildcard = self
            .origins
            .iter()
            .chain(&self.methods)
            .chain(&self.headers)
            .chain(&self.expose)
            .any(|o| o == "*");
        f.check(
            !(wildcard && self.credentials),
            "credentials",
            "conflict",
            "`*` cannot be combined with credentials",
        );
        f.methods("methods", &self.methods);
        for (field, list) in [("headers", &self.headers), ("expose", &self.expose)] {
            f.list(field, list);
            for (i, name) in list.iter().enumerate() {
                let good = HeaderName::from_bytes(name.as_bytes()).is_ok();
                f.check(
                    good,
                    format!("{field}[{i}]"),
                    "invalid",
                    "is not a header name",
                );
            }
        }
        f.check(
            self.max_age_s <= 86_400,
            "max_age_s",
            "out_of_range",
            "must be at most 86400",
        );
        f.0
    }
}

/// True for an origin in the form of RFC 6454 §6.2: `scheme://host[:port]` in lower case, nothing behind.
fn is_origin(text: &str) -> bool {
    url::Url::parse(text)
        .is_ok_and(|u| u.host().is_some() && u.origin().ascii_serialization() == text)
}

impl Validate for CacheRuleDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        scope(&mut f, &self.scope);
        policy(&mut f, "policy", &self.policy);
        f.0
    }
}

impl Validate for TransformDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        scope(&mut f, &self.scope);
        header_ops(&mut f, "request_headers", &self.request_headers);
        header_ops(&mut f, "response_headers", &self.response_headers);
        for (field, map) in [
            ("query.rename", &self.query.rename),
            ("query.set", &self.query.set),
        ] {
            for (name, value) in map {
                f.check(
                    !name.is_empty(),
                    field,
                    "required",
                    "names must not be empty",
                );
                placeholders(&mut f, field, value, &[], &[]);
            }
        }
        for (from, to) in &self.status {
            let good = (200..=599).contains(from)
                && (200..=599).contains(to)
                && !matches!(to, 204 | 205 | 304);
            f.check(
                good,
                format!("status.{from}"),
                "out_of_range",
                "both must be from 200 to 599, and keep the body",
            );
        }
        f.0
    }
}

fn header_ops(f: &mut Faults, field: &str, ops: &HeaderOps) {
    for (from, to) in &ops.rename {
        f.header_name(format!("{field}.rename.{from}"), from);
        f.header_name(format!("{field}.rename.{from}"), to);
    }
    for (i, name) in ops.remove.iter().enumerate() {
        f.header_name(format!("{field}.remove[{i}]"), name);
    }
    for (word, map) in [("set", &ops.set), ("add", &ops.add)] {
        for (name, value) in map {
            let at = format!("{field}.{word}.{name}");
            f.header_name(at.clone(), name);
            f.header_value(at.clone(), value);
            placeholders(f, &at, value, &[], &[]);
        }
    }
}

impl Validate for HostDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        f.check(
            !self.hosts.is_empty(),
            "hosts",
            "required",
            "at least one host is needed",
        );
        f.hosts("hosts", &self.hosts);
        f.0
    }
}

impl Validate for BlockDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        f.check(
            !self.networks.is_empty(),
            "networks",
            "required",
            "at least one network is needed",
        );
        f.list("networks", &self.networks);
        f.check(
            self.reason.len() <= 500,
            "reason",
            "too_long",
            "must be at most 500 bytes",
        );
        f.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::doc::{ReleaseDoc, RouteDoc};

    fn fields<T: Validate + serde::de::DeserializeOwned>(doc: serde_json::Value) -> Vec<String> {
        let doc: T = serde_json::from_value(doc).expect("the form is right");
        doc.faults().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn a_good_route_has_no_faults_and_a_bad_one_lists_all() {
        let good = json!({"path": {"prefix": "/shop"}, "target": {"service": {"name": "shop"}}, "rewrite": {"prefix": "/"}});
        assert!(fields::<RouteDoc>(good).is_empty());
        let bad = json!({
            "hosts": ["*.*.x"], "path": {"exact": "/a/../b"}, "methods": ["get"],
            "headers": [{"name": "a b", "is": "x", "present": true}],
            "query": [{"name": "q", "regex": "("}],
            "target": {"services": [{"name": "UPPER", "weight": 2000}]},
            "rewrite": {"path": "x/{nope}"}, "timeouts": {"connect_ms": 0}, "retries": {"attempts": 9}
        });
        let found = fields::<RouteDoc>(bad);
        for field in [
            "hosts[0]",
            "path.exact",
            "methods[0]",
            "headers[0].name",
            "headers[0]",
            "query[0].regex",
            "target.services[0].name",
            "target.services[0].weight",
            "rewrite.path",
            "timeouts.connect_ms",
            "retries.attempts",
        ] {
            assert!(found.iter().any(|f| f == field), "{field} in {found:?}");
        }
    }

    #[test]
    fn routes_cannot_take_the_platforms_paths_unless_bound_to_a_host() {
        let doc = |hosts: serde_json::Value| json!({"hosts": hosts, "path": {"prefix": "/api/x"}, "target": {"service": {"name": "shop"}}});
        assert_eq!(fields::<RouteDoc>(doc(json!([]))), ["path.prefix"]);
        assert!(fields::<RouteDoc>(doc(json!(["shop.example.com"]))).is_empty());
    }

    #[test]
    fn cors_never_combines_a_wildcard_with_credentials() {
        let found = fields::<CorsDoc>(json!({"origins": ["*"], "credentials": true}));
        assert_eq!(found, ["credentials"]);
        assert_eq!(
            fields::<CorsDoc>(json!({"origins": ["https://a.example/"]})),
            ["origins[0]"]
        );
        assert!(
            fields::<CorsDoc>(json!({"origins": ["https://a.example"], "credentials": true}))
                .is_empty()
        );
    }

    #[test]
    fn transforms_cannot_touch_identity_or_framing() {
        let found = fields::<TransformDoc>(json!({
            "request_headers": {"set": {"X-Portico-User": "root", "X-Ok": "{principal.user}", "X-Bad": "{nope}"}},
            "response_headers": {"remove": ["Content-Length"], "add": {"X-Line": "a\nb"}}
        }));
        assert_eq!(
            found,
            [
                "request_headers.set.X-Bad",
                "request_headers.set.X-Portico-User",
                "response_headers.remove[0]",
                "response_headers.add.X-Line"
            ]
        );
    }

    #[test]
    fn releases_and_limits() {
        let found = fields::<ReleaseDoc>(
            json!({"stable": "1", "candidate": {"version": "1", "weight": 0.05}}),
        );
        assert_eq!(found, ["candidate.weight", "candidate.version"]);
        assert_eq!(fields::<LimitDoc>(json!({"by": "user"})), ["per_s"]);
        assert_eq!(
            fields::<LimitDoc>(json!({"by": {"header": "x y"}, "per_s": 0.0})),
            ["per_s", "by.header"]
        );
    }

    #[test]
    fn unknown_fields_are_refused_by_the_form_itself() {
        assert!(
            serde_json::from_value::<LimitDoc>(json!({"by": "user", "per_s": 1.0, "x": 1}))
                .is_err()
        );
    }
}
