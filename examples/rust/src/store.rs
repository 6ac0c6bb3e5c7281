//! The notes of all tenants. Nothing here can be reached without naming a tenant.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{SecondsFormat, Utc};
use indexmap::IndexMap;
use serde::Serialize;
use uuid::Uuid;

/// Most notes of a tenant.
pub(crate) const MAX_NOTES: usize = 1000;
const MAX_TENANTS: usize = 1000;

/// A note.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Note {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) author: Option<String>,
    pub(crate) created_at: String,
}

/// What a caller writes.
#[derive(Debug)]
pub(crate) struct NewNote {
    pub(crate) title: String,
    pub(crate) text: String,
}

/// Notes by tenant and id, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<HashMap<String, IndexMap<String, Note>>>);

impl Notes {
    pub(crate) fn find(&self, tenant: &str, id: &str) -> Option<Note> {
        self.lock().get(tenant)?.get(id).cloned()
    }

    /// A page behind `cursor`, and the cursor of the next one.
    pub(crate) fn list(
        &self,
        tenant: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> (Vec<Note>, Option<String>) {
        let all = self.lock();
        let Some(mine) = all.get(tenant) else {
            return (Vec::new(), None);
        };
        let first = cursor
            .and_then(|id| mine.get_index_of(id))
            .map_or(0, |i| i + 1);
        let items: Vec<Note> = mine.values().skip(first).take(limit).cloned().collect();
        let more = first + items.len() < mine.len();
        let next = items.last().filter(|_| more).map(|note| note.id.clone());
        (items, next)
    }

    /// Adds a note, unless there are too many.
    pub(crate) fn add(&self, tenant: &str, author: Option<&str>, new: NewNote) -> Option<Note> {
        let mut all = self.lock();
        if !all.contains_key(tenant) && all.len() >= MAX_TENANTS {
            return None;
        }
        let mine = all.entry(tenant.to_owned()).or_default();
        if mine.len() >= MAX_NOTES {
            return None;
        }
        let now = Utc::now();
        // Version 7 begins with the time, so ids sort as the notes do.
        let id = Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).to_string();
        let note = Note {
            id,
            title: new.title,
            text: new.text,
            author: author.map(str::to_owned),
            created_at: now.to_rfc3339_opts(SecondsFormat::Millis, true),
        };
        mine.insert(note.id.clone(), note.clone());
        Some(note)
    }

    pub(crate) fn remove(&self, tenant: &str, id: &str) -> bool {
        let mut all = self.lock();
        let Some(mine) = all.get_mut(tenant) else {
            return false;
        };
        let there = mine.shift_remove(id).is_some();
        if mine.is_empty() {
            all.remove(tenant);
        }
        there
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, IndexMap<String, Note>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
