//! What a route, endpoint or the defaults say about caching: the part of the decision that is ours, not the origin's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest lifetime that a rule may give or allow: a year, as RFC 9111 suggests for "never expires".
const SECONDS_MAX: u64 = 31_536_000;
/// Largest body that may be kept at all, in bytes; above the first tier's limit only the shared tier takes it.
pub(super) const OBJECT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The caching rule of one route or endpoint. Times are seconds, sizes bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulePolicy {
    pub mode: Mode,
    pub scope: Scope,
    /// Lifetime of answers that declare none (RFC 9111 §4.2.1 leaves it to the cache); none means not stored.
    pub ttl_s: Option<u64>,
    /// Upper bound on whatever lifetime the origin declares.
    pub max_ttl_s: Option<u64>,
    /// Stale use while refreshing, for answers that say nothing of it (RFC 5861 §3).
    pub stale_while_revalidate_s: u64,
    /// Stale use after errors, for answers that say nothing of it (RFC 5861 §4).
    pub stale_if_error_s: u64,
    /// Guess a lifetime out of `Last-Modified` (RFC 9111 §4.2.2).
    pub heuristic: bool,
    pub honour_request: Honour,
    /// Keep answers that set cookies: everybody who hits gets the same cookie.
    pub store_set_cookie: bool,
    /// When not empty, only these media types are kept (`image/*` matches all of a kind).
    pub content_types: Vec<String>,
    pub max_object_bytes: u64,
    /// Parameters in another order are the same resource.
    pub sort_query: bool,
    /// Parameters without influence on the answer, such as `utm_source`.
    pub ignore_query_parameters: Vec<String>,
}

/// Whether this route is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Off,
    /// Only answers whose own fields declare a lifetime.
    #[default]
    Response,
    On,
}

/// Between whom a stored answer is shared; the tenant always separates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Callers with credentials share only what the origin declares shareable (RFC 9111 §3.5).
    #[default]
    Auto,
    /// Everybody in the tenant, because the operator knows that the answer does not depend on the caller.
    Shared,
    /// One copy for each principal.
    User,
}

/// Whose request directives (`no-cache`, `max-age=0` …) count; for everybody else they would be a cheap bypass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Honour {
    Nobody,
    #[default]
    Trusted,
    Everyone,
}

/// One fault of a rule; all of them are reported together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    pub field: &'static str,
    pub code: &'static str,
    pub message: String,
}

impl Default for RulePolicy {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            scope: Scope::default(),
            ttl_s: None,
            max_ttl_s: None,
            stale_while_revalidate_s: 0,
            stale_if_error_s: 86_400,
            heuristic: false,
            honour_request: Honour::default(),
            store_set_cookie: false,
            content_types: Vec::new(),
            max_object_bytes: 1024 * 1024,
            sort_query: false,
            ignore_query_parameters: Vec::new(),
        }
    }
}

impl RulePolicy {
    /// A rule that caches nothing.
    pub fn off() -> Self {
        Self {
            mode: Mode::Off,
            ..Self::default()
        }
    }

    /// Every fault of the rule, in the order of its fields.
    pub fn faults(&self) -> Vec<RuleFault> {
        let mut faults = Vec::new();
        let mut fault = |field, code, message: String| {
            faults.push(RuleFault {
                field,
                code,
                message,
            })
        };
        let seconds = [
            ("ttl_s", self.ttl_s.unwrap_or(0)),
            ("max_ttl_s", self.max_ttl_s.unwrap_or(0)),
            ("stale_while_revalidate_s", self.stale_while_revalidate_s),
            ("stale_if_error_s", self.stale_if_error_s),
        ];
        for (field, value) in seconds {
            if value > SECONDS_MAX {
                fault(
                    field,
                    "too_large",
                    format!("must be at most {SECONDS_MAX} seconds"),
                );
            }
        }
        if !(1..=OBJECT_BYTES_MAX).contains(&self.max_object_bytes) {
            fault(
                "max_object_bytes",
                "out_of_range",
                format!("must be between 1 and {OBJECT_BYTES_MAX}"),
            );
        }
        for kind in &self.content_types {
            if kind.split('/').count() != 2
                || kind.bytes().any(|b| b.is_ascii_whitespace() || b == b';')
            {
                fault(
                    "content_types",
                    "invalid",
                    format!("{kind:?} is not a media type without parameters"),
                );
            }
        }
        if self.content_types.len() > 64 {
            fault(
                "content_types",
                "too_many",
                "at most 64 media types".to_owned(),
            );
        }
        if self.ignore_query_parameters.len() > 64 {
            fault(
                "ignore_query_parameters",
                "too_many",
                "at most 64 parameters".to_owned(),
            );
        }
        if self.ignore_query_parameters.iter().any(String::is_empty) {
            fault(
                "ignore_query_parameters",
                "invalid",
                "a parameter's name is empty".to_owned(),
            );
        }
        faults
    }

    /// Whether an answer of this media type may be kept. The path's ending never counts: an answer named
    /// `/account/x.css` is still an account page (web-cache deception).
    pub fn takes_content_type(&self, content_type: Option<&str>) -> bool {
        if self.content_types.is_empty() {
            return true;
        }
        let Some(full) = content_type else {
            return false;
        };
        let bare = full.split(';').next().unwrap_or_default().trim();
        let kind = bare.split('/').next().unwrap_or_default();
        self.content_types
            .iter()
            .any(|allowed| match allowed.strip_suffix("/*") {
                Some(wanted) => wanted.eq_ignore_ascii_case(kind),
                None => allowed.eq_ignore_ascii_case(bare),
            })
    }

    pub(super) fn honours(&self, trusted: bool) -> bool {
        match self.honour_request {
            Honour::Nobody => false,
            Honour::Trusted => trusted,
            Honour::Everyone => true,
        }
    }
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_at_once() {
        let rule = RulePolicy {
            ttl_s: Some(u64::MAX),
            max_object_bytes: 0,
            content_types: vec!["text".to_owned(), "image/*".to_owned(), "a/b; c".to_owned()],
            ignore_query_parameters: vec![String::new()],
            ..RulePolicy::default()
        };
        let fields: Vec<_> = rule.faults().iter().map(|f| f.field).collect();
        assert_eq!(
            fields,
            [
                "ttl_s",
                "max_object_bytes",
                "content_types",
                "content_types",
                "ignore_query_parameters"
            ]
        );
        assert!(RulePolicy::default().faults().is_empty());
    }

    #[test]
    fn media_types_match_by_declared_type() {
        let rule = RulePolicy {
            content_types: vec!["image/*".to_owned(), "text/css".to_owned()],
            ..RulePolicy::default()
        };
        assert!(rule.takes_content_type(Some("image/png")));
        assert!(rule.takes_content_type(Some("Text/CSS; charset=utf-8")));
        assert!(!rule.takes_content_type(Some("text/html")));
        assert!(!rule.takes_content_type(Some("imagex/png")));
        assert!(!rule.takes_content_type(None));
    }

    #[test]
    fn documents_are_strict() {
        let rule: RulePolicy =
            serde_json::from_str(r#"{"mode":"on","ttl_s":5,"scope":"user"}"#).expect("valid");
        assert_eq!(
            (rule.mode, rule.ttl_s, rule.scope),
            (Mode::On, Some(5), Scope::User)
        );
        assert!(serde_json::from_str::<RulePolicy>(r#"{"ttl":5}"#).is_err());
    }
}
