//! Kinds of objects: their names in paths and tables, and how a document of each is read and checked.

use std::sync::Arc;

use portico_base::{FieldFault, Permission};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::doc::{
    BlockDoc, CacheRuleDoc, CallerDoc, CorsDoc, HostDoc, LimitDoc, Object, Objects, ReleaseDoc,
    RouteDoc, TransformDoc, Validate,
};
use super::store::Version;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A rule that leads requests to a target.
    Route,
    /// How traffic is divided among the versions of a service.
    Release,
    /// A rate or concurrency limit.
    Limit,
    /// Cross-origin rules.
    Cors,
    /// A caching rule.
    CacheRule,
    /// Changes of headers, query and status.
    Transform,
    /// Host names that are answered.
    Host,
    /// Blocked networks.
    Block,
    /// Services that may call another one.
    Caller,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Route,
        Self::Release,
        Self::Limit,
        Self::Cors,
        Self::CacheRule,
        Self::Transform,
        Self::Host,
        Self::Block,
        Self::Caller,
    ];

    /// The word in tables, events and permissions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Release => "release",
            Self::Limit => "limit",
            Self::Cors => "cors",
            Self::CacheRule => "cache",
            Self::Transform => "transform",
            Self::Host => "host",
            Self::Block => "block",
            Self::Caller => "caller",
        }
    }

    /// The segment of its path below `/api/gateway`.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Route => "routes",
            Self::Release => "releases",
            Self::Limit => "limits",
            Self::Cors => "cors",
            Self::CacheRule => "cache-rules",
            Self::Transform => "transforms",
            Self::Host => "hosts",
            Self::Block => "blocks",
            Self::Caller => "callers",
        }
    }

    /// The kind of a path segment.
    #[must_use]
    pub fn of_segment(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.segment() == segment)
    }

    /// The kind of a table's word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The right to change objects of the kind.
    #[must_use]
    pub const fn write(self) -> Permission {
        Permission::new(match self {
            Self::Route => "gateway:route:write",
            Self::Release => "gateway:release:write",
            Self::Limit => "gateway:limit:write",
            Self::Cors => "gateway:cors:write",
            Self::CacheRule => "gateway:cache:write",
            Self::Transform => "gateway:transform:write",
            Self::Host => "gateway:host:write",
            Self::Block => "gateway:block:write",
            Self::Caller => "gateway:caller:write",
        })
    }

    /// The right to read objects of the kind.
    #[must_use]
    pub const fn read(self) -> Permission {
        Permission::new(match self {
            Self::Route => "gateway:route:read",
            Self::Release => "gateway:release:read",
            Self::Limit => "gateway:limit:read",
            Self::Cors => "gateway:cors:read",
            Self::CacheRule => "gateway:cache:read",
            Self::Transform => "gateway:transform:read",
            Self::Host => "gateway:host:read",
            Self::Block => "gateway:block:read",
            Self::Caller => "gateway:caller:read",
        })
    }

    /// All faults of a document of the kind.
    #[must_use]
    pub fn faults(self, doc: &Value) -> Vec<FieldFault> {
        match self {
            Self::Route => faults::<RouteDoc>(doc),
            Self::Release => faults::<ReleaseDoc>(doc),
            Self::Limit => faults::<LimitDoc>(doc),
            Self::Cors => faults::<CorsDoc>(doc),
            Self::CacheRule => faults::<CacheRuleDoc>(doc),
            Self::Transform => faults::<TransformDoc>(doc),
            Self::Host => faults::<HostDoc>(doc),
            Self::Block => faults::<BlockDoc>(doc),
            Self::Caller => faults::<CallerDoc>(doc),
        }
    }

    /// Adds an active version to the compiled objects. A document that no longer fits (written by a
    /// newer release) is left out and logged, so that one bad object does not close the door.
    pub(super) fn add(self, objects: &mut Objects, version: &Version) {
        match self {
            Self::Route => push(&mut objects.routes, version),
            Self::Release => push(&mut objects.releases, version),
            Self::Limit => push(&mut objects.limits, version),
            Self::Cors => push(&mut objects.cors, version),
            Self::CacheRule => push(&mut objects.cache_rules, version),
            Self::Transform => push(&mut objects.transforms, version),
            Self::Host => push(&mut objects.hosts, version),
            Self::Block => push(&mut objects.blocks, version),
            Self::Caller => push(&mut objects.callers, version),
        }
    }
}

fn faults<T: DeserializeOwned + Validate>(doc: &Value) -> Vec<FieldFault> {
    let text = doc.to_string();
    match portico_web::extract::parse::<T>(text.as_bytes()) {
        Ok(doc) => doc.faults(),
        Err(problem) => problem.errors,
    }
}

fn push<T: DeserializeOwned>(list: &mut Vec<Object<T>>, version: &Version) {
    let Some(doc) = &version.doc else { return };
    match T::deserialize(doc) {
        Ok(doc) => list.push(Object {
            name: Arc::from(version.name.as_str()),
            tenant: version.tenant,
            created_at: version.born_at,
            doc: Arc::new(doc),
        }),
        Err(error) => {
            tracing::error!(kind = version.kind.as_str(), name = version.name, err = %error, "an object does not fit this release and is left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_and_segments_lead_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_segment(kind.segment()), Some(kind));
            assert_eq!(Kind::of_word(kind.as_str()), Some(kind));
            assert!(Permission::parse(kind.write().as_str()).is_ok());
        }
    }

    #[test]
    fn faults_name_the_field() {
        let doc = json!({ "path": { "prefix": "/x" }, "target": { "service": { "name": "hello" } }, "bogus": 1 });
        let found = Kind::Route.faults(&doc);
        assert!(
            found.iter().any(|fault| fault.message.contains("bogus")),
            "{found:?}"
        );
        let doc =
            json!({ "path": { "prefix": "/x" }, "target": { "service": { "name": "hello" } } });
        assert_eq!(Kind::Route.faults(&doc), []);
    }
}
