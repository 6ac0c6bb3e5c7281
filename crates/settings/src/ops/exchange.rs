//! Taking all values of a scope out, and a set of values in (CT-17). Secrets stay where they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico_base::Context;
use portico_contract::audit::Record;
use serde_json::Value;
use uuid::Uuid;

use super::change::{Done, change};
use super::plan::{MOST_KEYS, Wish, Wished};
use super::scope::{Sight, named, need};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::live;
use crate::permissions::{VALUE_READ, VALUE_WRITE};

/// What is set in a scope.
#[derive(Debug)]
pub(crate) struct Export {
    pub scope: Uuid,
    pub seq: u64,
    pub settings: BTreeMap<String, Value>,
    /// Secrets that are set, left out.
    pub secrets: Vec<String>,
}

/// All values that are stored for a scope, below a prefix.
pub(crate) async fn export(
    core: &Core,
    cx: &Context,
    scope: Option<&str>,
    prefix: &str,
) -> Result<Export> {
    need(cx, &VALUE_READ)?;
    let sight = Sight::of(cx, scope)?;
    let state = core.live.state();
    let mut out = Export {
        scope: sight.scope(),
        seq: state.seq,
        settings: BTreeMap::new(),
        secrets: Vec::new(),
    };
    for declared in core.catalogue.list(prefix, out.scope) {
        let Some(taken) = state.get(out.scope, &declared.key) else {
            continue;
        };
        if !sight.sees(&declared) || !taken.stored.is_set() {
            continue;
        }
        let key = declared.key.to_string();
        match &taken.stored.value {
            Some(value) if !declared.secret => {
                out.settings.insert(key, (**value).clone());
            }
            _ => out.secrets.push(key),
        }
    }
    let tx = core.db.begin().await?;
    let keys = out.settings.keys().chain(&out.secrets).cloned().collect();
    let record = Record::done("settings.value.exported", "settings", prefix, out.scope);
    let record = record.change("keys", None, Some(Value::Array(keys_of(keys))));
    core.audit.record(&tx, cx, record).await?;
    tx.commit().await?;
    Ok(out)
}

/// Names for the audit: as many as say what was taken out.
fn keys_of(keys: Vec<String>) -> Vec<Value> {
    keys.into_iter().take(MOST_KEYS).map(Value::from).collect()
}

/// A set of values to take in.
#[derive(Debug)]
pub(crate) struct Import {
    pub scope: Option<String>,
    pub settings: BTreeMap<String, Value>,
    /// Values that are set now and not named are reset; secrets never.
    pub prune: bool,
    pub comment: Option<String>,
    pub confirm: bool,
    pub dry_run: bool,
    pub base_seq: Option<u64>,
}

/// Takes values in as one change set; those that are the same already are left alone.
pub(crate) async fn import(core: &Arc<Core>, cx: &Context, import: Import) -> Result<Done> {
    need(cx, &VALUE_WRITE)?;
    let scope = named(cx, import.scope.as_deref())?;
    live::catch_up(core).await?;
    let state = core.live.state();
    let base_seq = import.base_seq.unwrap_or(state.seq);
    let wished = |key: &str, to: Option<Value>| Wished {
        key: key.to_owned(),
        to,
        base: None,
        rolled_back_from: None,
    };
    let mut changes: Vec<Wished> = import
        .settings
        .iter()
        .filter(|(key, value)| state.stored(scope, key).as_deref() != Some(value))
        .map(|(key, value)| wished(key, Some(value.clone())))
        .collect();
    if import.prune {
        let gone = state.rows().map(|taken| &taken.stored).filter(|stored| {
            stored.scope == scope
                && stored.value.is_some()
                && !stored.sealed
                && !import.settings.contains_key(&*stored.key)
        });
        let mut gone: Vec<&str> = gone.map(|stored| &*stored.key).collect();
        gone.sort_unstable();
        changes.extend(gone.into_iter().map(|key| wished(key, None)));
    }
    if changes.is_empty() {
        return Ok(Done {
            id: None,
            seq: state.seq,
            changed: Vec::new(),
            dry_run: import.dry_run,
        });
    }
    if changes.len() > MOST_KEYS {
        let message = format!(
            "{} settings would change, {MOST_KEYS} can at once",
            changes.len()
        );
        return Err(Error::field("settings", "range", message));
    }
    let wish = Wish {
        scope,
        changes,
        comment: import.comment,
        base_seq: Some(base_seq),
        confirm: import.confirm,
        dry_run: import.dry_run,
        reverts: None,
    };
    change(core, cx, &wish).await
}
