//! `portico/settings/` in the key-value store, which is the settings themselves (RG-45, CT-14).
//!
//! Every declared setting is a key, dots as slashes, with the value in force as JSON. `ModifyIndex` is the
//! position of the last change in the scope of the token's tenant, 0 while nothing is set there, so that a
//! read, a change of mind and `?cas=` go together whether or not there was a value before.

use http::header::CONTENT_TYPE;
use portico_contract::settings_tree::{Leaf, Leaves, SettingsTree, TreeError};

use super::blocking::{self, Look, Wait};
use super::kv::{LONGEST_KEY, cut, most};
use super::reply::{Answer, Refused, Reply, denied, refuse};
use super::request::Request;
use super::state::{ConsulState, Topic};
use super::wire::{KvPair, Text, encode};

/// Keys below it are settings.
pub(super) const PREFIX: &str = "portico/settings/";

/// The path of a setting, if the key is one.
pub(super) fn path(key: &str) -> Option<&str> {
    key.strip_prefix(PREFIX)
}

/// Wakes whoever waits for settings that changed.
pub(super) fn follow(state: &ConsulState, tree: &dyn SettingsTree) {
    let state = state.clone();
    tree.subscribe(std::sync::Arc::new(move |paths| {
        state.topics.wake_where(|topic| match topic {
            Topic::Key(_, key) => path(key).is_some_and(|own| paths.iter().any(|p| p == own)),
            Topic::Prefix(_, prefix) => {
                path(prefix).is_some_and(|own| paths.iter().any(|p| p.starts_with(own)))
            }
            Topic::Sessions(_) | Topic::Events(_) => false,
        });
    }));
}

fn tree(state: &ConsulState) -> Result<&dyn SettingsTree, Refused> {
    match state.core.settings_tree.get() {
        Some(tree) => Ok(&**tree),
        None => denied(),
    }
}

fn pair(leaf: &Leaf) -> KvPair {
    KvPair {
        lock_index: 0,
        key: format!("{PREFIX}{}", leaf.key),
        flags: u64::from(leaf.secret),
        value: encode(&leaf.value),
        session: None,
        create_index: leaf.created,
        modify_index: leaf.modified,
    }
}

/// GET: one setting, those below a prefix, or names alone.
pub(super) async fn get(state: &ConsulState, r: &Request, key: &str, own: &str) -> Answer {
    let names = r.params.has("keys");
    let below = names || r.params.has("recurse");
    let settings = tree(state)?;
    let look = move || async move {
        let found = settings
            .look(&r.cx, own, !below)
            .map_err(|error| refused(&error))?;
        Ok(Look::at(found.changed, found))
    };
    let tenant = r.cx.tenant();
    let topic = if below {
        Topic::Prefix(tenant, Text::from(key))
    } else {
        Topic::Key(tenant, Text::from(key))
    };
    let found: Look<Leaves> = blocking::run(state, r, &[Wait::Store(topic)], look).await?;
    let leaves = &found.value.leaves;
    let reply = if leaves.is_empty() {
        Reply::bare(http::StatusCode::NOT_FOUND)
    } else if names {
        let full: Vec<String> = leaves
            .iter()
            .map(|l| format!("{PREFIX}{}", l.key))
            .collect();
        let mut out: Vec<&str> = full
            .iter()
            .map(|name| cut(name, key, r.params.text("separator")))
            .collect();
        out.dedup();
        r.json(&out)
    } else if r.params.has("raw") && !below {
        Reply {
            body: leaves[0].value.clone().into(),
            ..Reply::empty()
        }
        .header(CONTENT_TYPE, "text/plain")
        .named("x-content-type-options", "nosniff")
        .named("content-security-policy", "sandbox")
    } else {
        r.json(&leaves.iter().map(pair).collect::<Vec<_>>())
    };
    Ok(blocking::with_index(r, reply, found.told, false))
}

/// PUT: a new version, unless `cas` names another than the present one.
pub(super) async fn put(
    state: &ConsulState,
    r: &Request,
    own: &str,
    value: &[u8],
    cas: Option<u64>,
) -> Answer {
    if r.params.has("acquire") || r.params.has("release") {
        return refuse(400, "settings cannot be locked");
    }
    let done = tree(state)?
        .write(&r.cx, own, Some(value), cas)
        .await
        .map_err(|error| refused(&error))?;
    Ok(r.json(&done))
}

/// DELETE: back to what holds without a value here.
pub(super) async fn delete(
    state: &ConsulState,
    r: &Request,
    own: &str,
    cas: Option<u64>,
) -> Answer {
    if r.params.has("recurse") {
        return refuse(400, "settings are reset one by one");
    }
    let done = tree(state)?
        .write(&r.cx, own, None, cas)
        .await
        .map_err(|error| refused(&error))?;
    Ok(r.json(&done))
}

/// The limits of every key hold for settings, too.
pub(super) fn check_size(state: &ConsulState, key: &str, value: &[u8]) -> Result<(), Refused> {
    if key.len() > LONGEST_KEY || value.len() > most(state) {
        return refuse(413, "the key or the value is too large");
    }
    Ok(())
}

fn refused(error: &TreeError) -> Refused {
    let (status, text) = match error {
        TreeError::Denied => (403, "Permission denied".to_owned()),
        TreeError::Unknown => (404, error.to_string()),
        TreeError::Invalid(_) => (400, error.to_string()),
        TreeError::Failed(cause) => {
            tracing::warn!(err = %cause, "a setting could not be written");
            (503, error.to_string())
        }
    };
    Refused(Box::new(Reply::text(status, text)))
}
