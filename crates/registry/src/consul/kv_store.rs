//! Changing the key-value store inside a transaction: verbs, locks, quotas, indexes (C§8 to C§10).

use std::sync::Arc;

use portico_base::clock::from_unix_us;
use portico_base::{Context, Timestamp};
use portico_db::{Backend, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::state::{ConsulState, Topic};
use super::wire::Text;
use crate::error::Error;
use crate::hub::Core;
use crate::ops::audited;
use crate::settings::{KV_MAX_BYTES, KV_MAX_KEYS};
use crate::store;
use crate::store::kv::{Entry, Usage};
use crate::store::sessions::Session;

/// Topic of the outbox under which other replicas hear of changed keys.
pub(super) const KV_CHANGED: &str = "kv.changed";
/// Topic of the outbox for sessions.
pub(super) const SESSION_CHANGED: &str = "registry.session.changed";
/// Topic of the outbox for events.
pub(super) const EVENT_FIRED: &str = "registry.event.fired";

/// Why a change is not made.
#[derive(Debug)]
pub(super) enum Fail {
    /// The session that wants to lock is not alive.
    NoSession,
    /// The tenant's room is used up: 507.
    Full(String),
    Other(Error),
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<portico_db::DbError> for Fail {
    fn from(error: portico_db::DbError) -> Self {
        Self::Other(error.into())
    }
}

impl From<Fail> for super::reply::Refused {
    fn from(fail: Fail) -> Self {
        let reply = match fail {
            Fail::NoSession => super::reply::Reply::text(500, "invalid session"),
            Fail::Full(text) => super::reply::Reply::text(507, text),
            Fail::Other(error) => return error.into(),
        };
        Self(Box::new(reply))
    }
}

/// What followers are told of a change.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Told {
    pub tenant: Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Text>,
    /// Everything below a prefix may have changed; used where keys would be too many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Text>,
}

/// Keys that are named one by one in an event; further ones by their prefix.
const MOST_TOLD: usize = 64;

/// How a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Set,
    /// 0: only when absent; else only at this index.
    Cas(u64),
    Lock(Option<Uuid>),
    Unlock(Option<Uuid>),
}

/// An open change of one tenant's keys and sessions.
pub(super) struct Store<'a> {
    pub tx: &'a WriteTx,
    pub tenant: Uuid,
    pub now: Timestamp,
    core: &'a Core,
    index: Option<u64>,
    usage: Usage,
    keys: Vec<Text>,
    prefixes: Vec<Text>,
    /// Sessions that were made or ended, for the audit.
    sessions: Vec<(Uuid, &'static str)>,
}

impl<'a> Store<'a> {
    /// Begins. On PostgreSQL the counter's row is locked first, so that writers are alone from the first
    /// look on, and in the same order of locks as every other change of the registry.
    pub(super) async fn begin(
        core: &'a Core,
        tx: &'a WriteTx,
        tenant: Uuid,
        index: Option<u64>,
    ) -> Result<Self, Fail> {
        if index.is_none() && core.db.backend() == Backend::Postgres {
            store::events::advance(tx, 0, 0).await?;
        }
        // Microseconds, as the rows keep them.
        let now = from_unix_us(core.clock.now().timestamp_micros());
        let usage = store::kv::usage(tx, tenant).await?;
        Ok(Self {
            tx,
            tenant,
            now,
            core,
            index,
            usage,
            keys: Vec::new(),
            prefixes: Vec::new(),
            sessions: Vec::new(),
        })
    }

    /// The index of this change; raised with its first real change.
    pub(super) async fn index(&mut self) -> Result<u64, Fail> {
        match self.index {
            Some(index) => Ok(index),
            None => {
                let position = store::events::advance(self.tx, 1, 0).await?;
                self.index = Some(position.index);
                Ok(position.index)
            }
        }
    }

    /// True when there is something to commit.
    pub(super) const fn is_changed(&self) -> bool {
        !self.keys.is_empty() || !self.prefixes.is_empty() || !self.sessions.is_empty()
    }

    /// One key.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Entry>, Fail> {
        Ok(store::kv::get(self.tx, self.tenant, key).await?)
    }

    /// Writes a key by a verb. Nothing when the verb's condition does not hold.
    pub(super) async fn write(
        &mut self,
        key: &str,
        value: Vec<u8>,
        flags: u64,
        verb: Verb,
    ) -> Result<Option<Entry>, Fail> {
        let known = self.get(key).await?;
        let Some((lock_index, session)) = self.lock(key, known.as_ref(), verb).await? else {
            return Ok(None);
        };
        let next = Entry {
            key: key.to_owned(),
            value,
            flags,
            create_index: known.as_ref().map_or(0, |k| k.create_index),
            modify_index: known.as_ref().map_or(0, |k| k.modify_index),
            lock_index,
            session,
            locked_until: known
                .as_ref()
                .and_then(|k| k.locked_until)
                .filter(|until| *until > self.now),
        };
        if let Some(known) = known.as_ref().filter(|k| same(k, &next)) {
            return Ok(Some(known.clone()));
        }
        self.put(known.as_ref(), next).await.map(Some)
    }

    /// Lock index and holder after a verb; nothing when its condition does not hold.
    async fn lock(
        &self,
        key: &str,
        known: Option<&Entry>,
        verb: Verb,
    ) -> Result<Option<(u64, Option<Uuid>)>, Fail> {
        let holder = known.and_then(|k| k.session);
        match verb {
            Verb::Set => Ok(Some((0, holder))),
            Verb::Cas(0) => Ok(known.is_none().then_some((0, None))),
            Verb::Cas(wanted) => Ok(known
                .filter(|k| k.modify_index == wanted)
                .map(|k| (0, k.session))),
            Verb::Lock(session) => {
                let Some(session) = self.live(session).await? else {
                    return Err(Fail::NoSession);
                };
                if self.is_delayed(key, known).await? {
                    return Ok(None);
                }
                Ok(match known {
                    None => Some((1, Some(session))),
                    Some(k) if k.session == Some(session) => Some((k.lock_index, k.session)),
                    Some(k) if k.session.is_some() => None,
                    Some(k) => Some((k.lock_index + 1, Some(session))),
                })
            }
            Verb::Unlock(session) => Ok(known
                .filter(|k| session.is_some() && k.session == session)
                .map(|k| (k.lock_index, None))),
        }
    }

    async fn live(&self, session: Option<Uuid>) -> Result<Option<Uuid>, Fail> {
        let Some(id) = session else { return Ok(None) };
        let found = store::sessions::get(self.tx, self.tenant, id).await?;
        Ok(found
            .filter(|s| s.expires_at.is_none_or(|at| at > self.now))
            .map(|s| s.id))
    }

    /// True while the last holder's lock delay runs.
    pub(super) async fn is_delayed(&self, key: &str, known: Option<&Entry>) -> Result<bool, Fail> {
        let until = match known {
            Some(known) => known.locked_until,
            None => store::kv::buried_lock(self.tx, self.tenant, key).await?,
        };
        Ok(until.is_some_and(|until| until > self.now))
    }

    async fn put(&mut self, known: Option<&Entry>, mut next: Entry) -> Result<Entry, Fail> {
        let grown = next.size() - known.map_or(0, Entry::size);
        self.room(i64::from(known.is_none()), grown)?;
        let index = self.index().await?;
        next.modify_index = index;
        if known.is_none() {
            next.create_index = index;
        }
        store::kv::put(self.tx, self.tenant, &next).await?;
        self.usage.keys += i64::from(known.is_none());
        self.usage.bytes += grown;
        self.keys.push(Arc::from(next.key.as_str()));
        Ok(next)
    }

    fn room(&self, keys: i64, bytes: i64) -> Result<(), Fail> {
        let most_keys = self.core.settings.system(&KV_MAX_KEYS);
        let most_bytes = self.core.settings.system(&KV_MAX_BYTES);
        if keys > 0 && self.usage.keys + keys > most_keys {
            return Err(Fail::Full(format!(
                "the key-value store is full: {most_keys} keys"
            )));
        }
        if bytes > 0 && self.usage.bytes + bytes > most_bytes {
            return Err(Fail::Full(format!(
                "the key-value store is full: {most_bytes} bytes"
            )));
        }
        Ok(())
    }

    /// Removes a key; false when it is not at the wished index. A missing one is no failure.
    pub(super) async fn delete(&mut self, key: &str, cas: Option<u64>) -> Result<bool, Fail> {
        let Some(known) = self.get(key).await? else {
            return Ok(true);
        };
        if cas.is_some_and(|wanted| wanted != known.modify_index) {
            return Ok(false);
        }
        self.bury(&known, None).await?;
        Ok(true)
    }

    async fn bury(&mut self, known: &Entry, locked_until: Option<Timestamp>) -> Result<(), Fail> {
        let index = self.index().await?;
        store::kv::delete(
            self.tx,
            self.tenant,
            &known.key,
            index,
            self.now,
            locked_until,
        )
        .await?;
        self.usage.keys -= 1;
        self.usage.bytes -= known.size();
        self.keys.push(Arc::from(known.key.as_str()));
        Ok(())
    }

    /// Removes everything below a prefix.
    pub(super) async fn delete_tree(&mut self, prefix: &str) -> Result<(), Fail> {
        if store::kv::size(self.tx, self.tenant, prefix)
            .await?
            .is_empty()
        {
            return Ok(());
        }
        let index = self.index().await?;
        let gone = store::kv::delete_below(self.tx, self.tenant, prefix, index, self.now).await?;
        self.usage.keys -= i64::try_from(gone.len()).unwrap_or(0);
        self.usage.bytes -= gone.iter().map(|(_, size)| size).sum::<i64>();
        if gone.len() > MOST_TOLD {
            self.prefixes.push(Arc::from(prefix));
        } else {
            self.keys
                .extend(gone.into_iter().map(|(key, _)| Text::from(key)));
        }
        Ok(())
    }

    /// Writes a session.
    pub(super) async fn put_session(&mut self, mut session: Session) -> Result<Session, Fail> {
        let index = self.index().await?;
        session.create_index = index;
        session.modify_index = index;
        store::sessions::put(self.tx, &session).await?;
        self.usage.sessions = index;
        self.sessions.push((session.id, "registry.session.created"));
        Ok(session)
    }

    /// Ends a session: its locks are released or its keys deleted, and nobody may lock them for its lock
    /// delay (C§9).
    pub(super) async fn end_session(&mut self, session: &Session) -> Result<(), Fail> {
        if store::sessions::delete(self.tx, session.id).await? == 0 {
            return Ok(());
        }
        let index = self.index().await?;
        self.usage.sessions = index;
        self.sessions.push((session.id, "registry.session.ended"));
        let until = (session.lock_delay_ns > 0)
            .then(|| self.now + chrono::Duration::nanoseconds(session.lock_delay_ns));
        for (tenant, entry) in store::kv::held(self.tx, session.id).await? {
            if tenant != self.tenant {
                continue;
            }
            if session.deletes {
                self.bury(&entry, until).await?;
            } else {
                let next = Entry {
                    session: None,
                    locked_until: until,
                    ..entry.clone()
                };
                self.put(Some(&entry), next).await?;
            }
        }
        Ok(())
    }

    /// Records in the audit what was changed: keys, never values.
    async fn audit(&self, cx: &Context) -> Result<(), Fail> {
        let tenant = Some(self.tenant);
        let names = self.keys.iter().chain(&self.prefixes);
        let keys: Vec<Value> = names.take(MOST_TOLD).map(|k| Value::from(&**k)).collect();
        if let Some(first) = self.keys.first().or(self.prefixes.first()) {
            let record = audited("registry.kv.changed", "key", &**first, tenant);
            let record = record.change("keys", None, Some(keys.into()));
            self.core
                .audit
                .record(self.tx, cx, record)
                .await
                .map_err(Error::from)?;
        }
        for (id, action) in &self.sessions {
            let record = audited(action, "session", id.to_string(), tenant);
            self.core
                .audit
                .record(self.tx, cx, record)
                .await
                .map_err(Error::from)?;
        }
        Ok(())
    }

    /// Writes what the tenant uses now and tells of the change; whoever waits is woken after the commit.
    /// Call it last, before the transaction's own commit. Answers whether there is anything to commit.
    pub(super) async fn finish(mut self, state: &ConsulState, cx: &Context) -> Result<bool, Fail> {
        let Some(index) = self.index.filter(|_| self.is_changed()) else {
            return Ok(false);
        };
        self.audit(cx).await?;
        let keys_changed = !self.keys.is_empty() || !self.prefixes.is_empty();
        if keys_changed {
            self.usage.index = self.usage.index.max(index);
        }
        store::kv::put_usage(self.tx, self.tenant, self.usage).await?;
        self.keys.sort();
        self.keys.dedup();
        let told = Told {
            tenant: self.tenant,
            keys: self.keys,
            prefixes: self.prefixes,
        };
        if keys_changed {
            let first = told
                .keys
                .first()
                .or(told.prefixes.first())
                .cloned()
                .unwrap_or_default();
            self.tx.publish(KV_CHANGED, &first, &told)?;
        }
        if !self.sessions.is_empty() {
            let only = Told {
                tenant: self.tenant,
                ..Told::default()
            };
            self.tx.publish(SESSION_CHANGED, "", &only)?;
        }
        let (state, sessions) = (state.clone(), !self.sessions.is_empty());
        self.tx.after_commit(Box::new(move || {
            wake(&state, &told);
            if sessions {
                state.topics.wake(&Topic::Sessions(told.tenant));
            }
        }));
        Ok(true)
    }
}

fn same(known: &Entry, next: &Entry) -> bool {
    known.value == next.value
        && known.flags == next.flags
        && known.lock_index == next.lock_index
        && known.session == next.session
}

/// Wakes whoever waits for the changed keys, or for prefixes of them.
pub(super) fn wake(state: &ConsulState, told: &Told) {
    if state.topics.len() == 0 {
        return;
    }
    let tenant = told.tenant;
    if let (true, [key]) = (told.prefixes.is_empty(), told.keys.as_slice()) {
        state.topics.wake(&Topic::Key(tenant, Arc::clone(key)));
        for (end, _) in key.char_indices().chain([(key.len(), ' ')]) {
            state
                .topics
                .wake(&Topic::Prefix(tenant, Arc::from(&key[..end])));
        }
        return;
    }
    state.topics.wake_where(|topic| match topic {
        Topic::Key(of, key) => {
            *of == tenant
                && (told.keys.binary_search(key).is_ok()
                    || told.prefixes.iter().any(|p| key.starts_with(&**p)))
        }
        Topic::Prefix(of, prefix) => {
            *of == tenant
                && (told
                    .prefixes
                    .iter()
                    .any(|p| p.starts_with(&**prefix) || prefix.starts_with(&**p))
                    || touches(&told.keys, prefix))
        }
        Topic::Sessions(_) | Topic::Events(_) => false,
    });
}

/// True when one of the sorted keys begins with the prefix.
fn touches(keys: &[Text], prefix: &str) -> bool {
    let at = keys.partition_point(|key| **key < *prefix);
    keys.get(at).is_some_and(|key| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prefixes_are_found_among_sorted_keys(keys in proptest::collection::vec("[ab/]{0,4}", 0..8), prefix in "[ab/]{0,3}") {
            let mut keys: Vec<Text> = keys.into_iter().map(Text::from).collect();
            keys.sort();
            let plain = keys.iter().any(|k| k.starts_with(&*prefix));
            prop_assert_eq!(touches(&keys, &prefix), plain);
        }
    }
}
