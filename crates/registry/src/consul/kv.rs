//! `/v1/kv/*` (C§8).

use http::header::CONTENT_TYPE;
use uuid::Uuid;

use super::access::{KV_READ, KV_WRITE, need};
use super::blocking::{self, Look, Wait};
use super::kv_settings;
use super::kv_store::{Fail, Store, Verb};
use super::reply::{Answer, Refused, Reply, denied, refuse};
use super::request::Request;
use super::state::{ConsulState, Topic};
use super::wire::{KvPair, Text};
use crate::settings::KV_MAX_VALUE;
use crate::store::kv as rows;
use crate::store::kv::{Entry, Usage};

/// Longest key in bytes.
pub(super) const LONGEST_KEY: usize = 4_096;
/// Keys below it are the platform's own (RG-45).
const OWN: &str = "portico/";

/// True when a key belongs to the platform.
pub(super) fn is_own(key: &str) -> bool {
    key.starts_with(OWN)
}

/// GET: one key, a prefix, or names alone.
pub(super) async fn get(state: &ConsulState, r: &Request, key: &str) -> Answer {
    if let Some(own) = kv_settings::path(key) {
        // Whose permission is needed there is for the settings to say.
        r.datacenter(&state.options.datacenter)?;
        return kv_settings::get(state, r, key, own).await;
    }
    need(r, &KV_READ)?;
    r.datacenter(&state.options.datacenter)?;
    if is_own(key) {
        return denied();
    }
    if r.params.has("keys") {
        return names(state, r, key).await;
    }
    if r.params.has("recurse") {
        return tree(state, r, key).await;
    }
    if key.is_empty() {
        return refuse(400, "Missing key name");
    }
    one(state, r, key).await
}

async fn one(state: &ConsulState, r: &Request, key: &str) -> Answer {
    let tenant = r.cx.tenant();
    let look = move || async move { look_one(state, tenant, key).await };
    let waits = [Wait::Store(Topic::Key(tenant, Text::from(key)))];
    let found = blocking::run(state, r, &waits, look).await?;
    let Some(entry) = &found.value else {
        return Ok(missing(r, found.told));
    };
    if r.params.has("raw") {
        let reply = Reply {
            body: entry.value.clone().into(),
            ..Reply::empty()
        }
        .header(CONTENT_TYPE, "text/plain")
        .named("x-content-type-options", "nosniff")
        .named("content-security-policy", "sandbox");
        return Ok(blocking::with_index(r, reply, found.told, false));
    }
    let reply = r.json(&[KvPair::of(entry)]);
    Ok(blocking::with_index(r, reply, found.told, false))
}

fn missing(r: &Request, index: u64) -> Reply {
    blocking::with_index(r, Reply::bare(http::StatusCode::NOT_FOUND), index, false)
}

async fn look_one(
    state: &ConsulState,
    tenant: Uuid,
    key: &str,
) -> Result<Look<Option<Entry>>, Refused> {
    let db = state.core.db.reader();
    let hit = |entry: Entry| Look::at(entry.modify_index, Some(entry));
    if let Some(entry) = rows::get(db, tenant, key).await? {
        return Ok(hit(entry));
    }
    // The indexes before the second look: what is written in between is newer than what is told.
    let usage = rows::usage(db, tenant).await?;
    let buried = rows::buried(db, tenant, key).await?;
    if let Some(entry) = rows::get(db, tenant, key).await? {
        return Ok(hit(entry));
    }
    Ok(nothing(usage, buried, None))
}

/// A look that found nothing: it tells the index of the whole store, and is woken by its own changes only.
fn nothing<T>(usage: Usage, buried: u64, value: T) -> Look<T> {
    let changed = buried.max(usage.floor);
    Look {
        changed,
        told: changed.max(usage.index).max(1),
        value,
    }
}

async fn tree(state: &ConsulState, r: &Request, prefix: &str) -> Answer {
    let tenant = r.cx.tenant();
    let look = move || async move {
        let db = state.core.db.reader();
        let usage = rows::usage(db, tenant).await?;
        let buried = rows::buried_below(db, tenant, prefix).await?;
        let entries = rows::list(db, tenant, prefix).await?;
        let newest = entries.iter().map(|e| e.modify_index).max();
        Ok(below(usage, buried, newest, entries))
    };
    let waits = [Wait::Store(Topic::Prefix(tenant, Text::from(prefix)))];
    let found = blocking::run(state, r, &waits, look).await?;
    if found.value.is_empty() {
        return Ok(missing(r, found.told));
    }
    let pairs: Vec<KvPair> = found.value.iter().map(KvPair::of).collect();
    Ok(blocking::with_index(r, r.json(&pairs), found.told, false))
}

/// The index of a prefix: its newest key or deletion; of the whole store when it has none.
fn below<T>(usage: Usage, buried: u64, newest: Option<u64>, value: T) -> Look<T> {
    match newest {
        None => nothing(usage, buried, value),
        Some(newest) => Look::at(newest.max(buried).max(usage.floor), value),
    }
}

async fn names(state: &ConsulState, r: &Request, prefix: &str) -> Answer {
    let tenant = r.cx.tenant();
    let look = move || async move {
        let db = state.core.db.reader();
        let usage = rows::usage(db, tenant).await?;
        let buried = rows::buried_below(db, tenant, prefix).await?;
        let keys = rows::keys(db, tenant, prefix).await?;
        let newest = keys.iter().map(|(_, index)| *index).max();
        Ok(below(usage, buried, newest, keys))
    };
    let waits = [Wait::Store(Topic::Prefix(tenant, Text::from(prefix)))];
    let found = blocking::run(state, r, &waits, look).await?;
    if found.value.is_empty() {
        return Ok(missing(r, found.told));
    }
    let separator = r.params.text("separator");
    let mut out: Vec<&str> = Vec::with_capacity(found.value.len());
    for (key, _) in &found.value {
        let name = cut(key, prefix, separator);
        if out.last() != Some(&name) {
            out.push(name);
        }
    }
    Ok(blocking::with_index(r, r.json(&out), found.told, false))
}

/// The key up to and with the first separator behind the prefix.
pub(super) fn cut<'a>(key: &'a str, prefix: &str, separator: &str) -> &'a str {
    if separator.is_empty() {
        return key;
    }
    match key[prefix.len()..].find(separator) {
        Some(at) => &key[..prefix.len() + at + separator.len()],
        None => key,
    }
}

/// Go's `ParseUint` of a parameter; its error is answered with 500.
fn number(text: &str) -> Result<u64, Refused> {
    let wrong = |why: &str| {
        refuse(
            500,
            format!(
                "strconv.ParseUint: parsing {}: {why}",
                super::duration::quoted(text)
            ),
        )
    };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return wrong("invalid syntax");
    }
    text.parse().or_else(|_| wrong("value out of range"))
}

fn conflicting(r: &Request, flags: &[&str]) -> Result<(), Refused> {
    if flags.iter().filter(|flag| r.params.has(flag)).count() > 1 {
        return refuse(400, format!("Conflicting flags: {}", r.params.encode()));
    }
    Ok(())
}

/// PUT.
pub(super) async fn put(state: &ConsulState, r: &mut Request, key: &str) -> Answer {
    if let Some(own) = kv_settings::path(key) {
        r.datacenter(&state.options.datacenter)?;
        conflicting(r, &["cas", "acquire", "release"])?;
        let cas = r.params.get("cas").map(number).transpose()?;
        let value = value(state, r).await?;
        kv_settings::check_size(state, key, &value)?;
        return kv_settings::put(state, r, own, &value, cas).await;
    }
    need(r, &KV_WRITE)?;
    r.datacenter(&state.options.datacenter)?;
    writable(key)?;
    conflicting(r, &["cas", "acquire", "release"])?;
    let flags = r.params.get("flags").map_or(Ok(0), number)?;
    let session = |text: &str| Uuid::parse_str(text).ok();
    let verb = if let Some(cas) = r.params.get("cas") {
        Verb::Cas(number(cas)?)
    } else if let Some(id) = r.params.get("acquire") {
        Verb::Lock(session(id))
    } else if let Some(id) = r.params.get("release") {
        Verb::Unlock(session(id))
    } else {
        Verb::Set
    };
    let value = value(state, r).await?;
    let written = write(state, r, key, value, flags, verb).await;
    let done = match written {
        // The session is told as the caller wrote it.
        Err(Fail::NoSession) => {
            let id = super::duration::quoted(r.params.text("acquire"));
            return refuse(500, format!("invalid session {id}"));
        }
        other => other?,
    };
    Ok(r.json(&done))
}

fn writable(key: &str) -> Result<(), Refused> {
    if key.is_empty() {
        return refuse(400, "Missing key name");
    }
    if key.len() > LONGEST_KEY {
        return refuse(400, format!("Key name is longer than {LONGEST_KEY} bytes"));
    }
    if is_own(key) { denied() } else { Ok(()) }
}

/// Longest value now.
pub(super) fn most(state: &ConsulState) -> usize {
    usize::try_from(state.core.settings.system(&KV_MAX_VALUE)).unwrap_or(524_288)
}

async fn value(state: &ConsulState, r: &mut Request) -> Result<Vec<u8>, Refused> {
    let most = most(state);
    let announced = r.announced();
    let too_large = announced.is_some_and(|n| n > most as u64);
    let body = if too_large { None } else { r.body(most).await? };
    match body {
        Some(body) => Ok(body.to_vec()),
        None => {
            let bytes = announced.unwrap_or(most as u64 + 1);
            let mut reply = Reply::text(
                413,
                format!(
                    "Request body({bytes} bytes) too large, max size: {most} bytes. See https://www.consul.io/docs/agent/options.html#kv_max_value_size."
                ),
            );
            reply.close = true;
            Err(Refused(Box::new(reply)))
        }
    }
}

async fn write(
    state: &ConsulState,
    r: &Request,
    key: &str,
    value: Vec<u8>,
    flags: u64,
    verb: Verb,
) -> Result<bool, Fail> {
    let tx = state.core.db.begin_durable().await?;
    tx.set_trace(r.cx.caller.trace_id.as_deref());
    let mut store = Store::begin(&state.core, &tx, r.cx.tenant(), None).await?;
    let done = store.write(key, value, flags, verb).await?.is_some();
    let changed = store.finish(state, &r.cx).await?;
    conclude(tx, changed).await?;
    Ok(done)
}

/// Commits what was changed; nothing is kept, and the disk not waited for, when nothing was.
pub(super) async fn conclude(tx: portico_db::WriteTx, changed: bool) -> Result<(), Fail> {
    if changed {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(())
}

/// DELETE.
pub(super) async fn delete(state: &ConsulState, r: &Request, key: &str) -> Answer {
    if let Some(own) = kv_settings::path(key) {
        r.datacenter(&state.options.datacenter)?;
        conflicting(r, &["recurse", "cas"])?;
        let cas = r.params.get("cas").map(number).transpose()?;
        return kv_settings::delete(state, r, own, cas).await;
    }
    need(r, &KV_WRITE)?;
    r.datacenter(&state.options.datacenter)?;
    conflicting(r, &["recurse", "cas"])?;
    let recurse = r.params.has("recurse");
    if !recurse {
        writable(key)?;
    } else if is_own(key) {
        return denied();
    }
    let cas = r.params.get("cas").map(number).transpose()?;
    let done = remove(state, r, key, recurse, cas).await?;
    Ok(r.json(&done))
}

async fn remove(
    state: &ConsulState,
    r: &Request,
    key: &str,
    recurse: bool,
    cas: Option<u64>,
) -> Result<bool, Fail> {
    let tx = state.core.db.begin_durable().await?;
    tx.set_trace(r.cx.caller.trace_id.as_deref());
    let mut store = Store::begin(&state.core, &tx, r.cx.tenant(), None).await?;
    let done = if recurse {
        store.delete_tree(key).await?;
        true
    } else {
        store.delete(key, cas).await?
    };
    let changed = store.finish(state, &r.cx).await?;
    conclude(tx, changed).await?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_behind_the_separator() {
        assert_eq!(cut("base/base/foo", "base/", "/"), "base/base/");
        assert_eq!(cut("base/foo", "base/", "/"), "base/foo");
        assert_eq!(cut("a--b--c", "a", "--"), "a--");
        assert_eq!(cut("a/b", "", ""), "a/b");
    }

    #[test]
    fn an_index_never_falls_when_tombstones_are_swept() {
        let usage = |floor| Usage {
            index: 40,
            floor,
            ..Usage::default()
        };
        assert_eq!(below(usage(0), 30, Some(10), ()).told, 30);
        assert_eq!(below(usage(30), 0, Some(10), ()).told, 30);
        let gone = nothing(usage(30), 0, ());
        assert_eq!((gone.changed, gone.told), (30, 40));
        assert_eq!(nothing(Usage::default(), 0, ()).told, 1);
    }
}
