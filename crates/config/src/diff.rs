//! What a reload changes: which keys are taken over while running and which need a restart (CF-5).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::key::Declared;
use crate::load::Loaded;
use crate::origin::Origin;
use crate::sections::Config;
use crate::show::{free_leaves, printed, printed_free};

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The dotted key.
    pub key: String,
    /// The old value without secrets; empty when it was not there.
    pub from: String,
    /// The new value without secrets; empty when it is gone.
    pub to: String,
    /// Where the new value came from.
    pub origin: Origin,
}

/// The difference between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Taken over while running.
    pub reloadable: Vec<Change>,
    /// Kept at the old value until the process is restarted.
    pub restart: Vec<Change>,
}

impl Changes {
    /// True when nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reloadable.is_empty() && self.restart.is_empty()
    }
}

/// Compares the configuration in force with a newly loaded one.
#[must_use]
pub fn diff(old: &Loaded, new: &Loaded) -> Changes {
    let mut changes = Changes::default();
    for key in &Declared::of::<Config>().keys {
        let (Some(from), Some(to)) = (old.found.get(&key.path), new.found.get(&key.path)) else {
            continue;
        };
        // Another layer or another way to write the same is no change, unless it is a secret, whose
        // printed form says nothing.
        let (from_text, to_text) = (printed(key, &from.raw), printed(key, &to.raw));
        if from_text == to_text && from.raw.as_text() == to.raw.as_text() {
            continue;
        }
        if from_text == to_text && key.kind.class == crate::key::Class::Plain {
            continue;
        }
        let change = Change {
            key: key.path.clone(),
            from: from_text,
            to: to_text,
            origin: to.origin.clone(),
        };
        if key.reload {
            &mut changes.reloadable
        } else {
            &mut changes.restart
        }
        .push(change);
    }
    free_changes(old, new, &mut changes);
    changes
}

/// Settings are made for changing while running; agents' addresses are not.
fn free_changes(old: &Loaded, new: &Loaded, changes: &mut Changes) {
    let map = |loaded: &Loaded| -> BTreeMap<_, _> {
        free_leaves(&loaded.config)
            .into_iter()
            .map(|(key, raw, origin)| (key, (raw, origin)))
            .collect()
    };
    let (old, new) = (map(old), map(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (from, to) = (old.get(key), new.get(key));
        if from.map(|(raw, _)| raw.to_json()) == to.map(|(raw, _)| raw.to_json()) {
            continue;
        }
        let text = |side: Option<&(crate::raw::Raw, Origin)>| {
            side.map_or_else(String::new, |(raw, _)| printed_free(key, raw))
        };
        let change = Change {
            key: key.clone(),
            from: text(from),
            to: text(to),
            origin: to.map_or(Origin::Default, |(_, origin)| origin.clone()),
        };
        if key.starts_with("agents.") {
            &mut changes.restart
        } else {
            &mut changes.reloadable
        }
        .push(change);
    }
}
