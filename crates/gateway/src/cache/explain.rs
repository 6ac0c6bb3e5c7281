//! What the cache knows of an address, for the person who asks why something is or is not served from it.

use serde::Serialize;

use super::facts::Facts;
use super::key::{self, RequestView, describe};
use super::object::Use;
use super::policy::{Refusal, age_ms};
use super::rule::{Mode, RulePolicy};
use super::{Asked, Cache, class_hash};

/// An answer to "explain this URL".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayCacheEntry)]
pub struct Explanation {
    /// The key in words.
    pub key: String,
    /// What a request would meet now: `fresh`, `stale`, `gone`, `absent`, `pass`, or `bypass`.
    pub state: &'static str,
    /// Why a request would go around the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<StoredFacts>,
}

/// The stored answer, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayCacheStored)]
pub struct StoredFacts {
    pub status: u16,
    pub age_s: u64,
    /// Negative when stale.
    pub ttl_s: i64,
    pub stale_while_revalidate_s: u64,
    pub stale_if_error_s: u64,
    pub must_validate: bool,
    pub shareable: bool,
    pub bytes: usize,
    pub hits: u32,
    pub vary: Vec<String>,
    pub tags: Vec<String>,
}

impl Cache {
    /// Explains what would happen to a request, without counting it or changing anything.
    pub fn explain(&self, view: &RequestView<'_>, rule: &RulePolicy, now_ms: u64) -> Explanation {
        let mut told = Explanation {
            key: describe(view, rule),
            state: "absent",
            reason: None,
            stored: None,
        };
        let facts = Facts::of(view.headers);
        let caller = facts.credentials(view.principal.is_some());
        let mut primary = Vec::new();
        let refused = if rule.mode == Mode::Off {
            Some(Refusal::Off)
        } else if facts.around.is_some() {
            facts.around
        } else if Asked::of(facts, view, rule).no_store {
            Some(Refusal::RequestNoStore)
        } else {
            key::write_primary(&mut primary, view, rule).err()
        };
        if let Some(refusal) = refused {
            (told.state, told.reason) = ("bypass", Some(refusal.as_str()));
            return told;
        }
        if self.0.pass.active(class_hash(&primary, caller), now_ms) {
            told.state = "pass";
            return told;
        }
        let Some(object) = self.0.memory.find(&primary, view).object else {
            return told;
        };
        let age_s = age_ms(&object.terms, now_ms) / 1000;
        let fresh_s = object.terms.fresh_ms / 1000;
        told.state = match object.usable(&self.0.ledger, now_ms) {
            Use::Fresh(_) => "fresh",
            Use::Stale { .. } => "stale",
            Use::Gone => "gone",
        };
        if let Err(refusal) = caller.may_use(rule.scope, &object.terms) {
            (told.state, told.reason) = ("bypass", Some(refusal.as_str()));
        }
        told.stored = Some(StoredFacts {
            status: object.status.as_u16(),
            age_s,
            ttl_s: i64::try_from(fresh_s).unwrap_or(i64::MAX)
                - i64::try_from(age_s).unwrap_or(i64::MAX),
            stale_while_revalidate_s: object.terms.stale_while_revalidate_ms / 1000,
            stale_if_error_s: object.terms.stale_if_error_ms / 1000,
            must_validate: object.terms.always_validate,
            shareable: object.terms.shareable,
            bytes: object.body.len(),
            hits: object.hits(),
            vary: object
                .vary
                .names()
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect(),
            tags: object.subject.tags.clone(),
        });
        told
    }
}
