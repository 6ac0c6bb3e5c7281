//! `/v1/txn`: up to 64 operations that happen together or not at all (C§10).

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{KV_READ, KV_WRITE, READ, REGISTER, need};
use super::decode::{self, Fields};
use super::duration::quoted;
use super::kv::{LONGEST_KEY, conclude, is_own, most};
use super::kv_store::{Fail, Store, Verb};
use super::reply::{Answer, Refused, denied, refuse};
use super::request::Request;
use super::state::ConsulState;
use super::txn_catalog::{self, Change, Read};
use super::views::{node_service, service_id};
use super::wire::KvPair;
use crate::ops;
use crate::store::kv as rows;
use crate::writer::Writer;

/// Operations of one transaction.
const MOST: usize = 64;
/// Longest body in bytes.
const BODY: usize = 512 * 1024;

/// One operation.
enum Op {
    Kv(KvOp),
    /// Reads the catalogue: kind and the names that are looked for.
    Get(Kind, [String; 2]),
    /// Changes the catalogue.
    Change(Change),
    Unknown(String),
}

#[derive(Clone, Copy)]
enum Kind {
    Node,
    Service,
    Check,
}

struct KvOp {
    verb: String,
    key: String,
    value: Vec<u8>,
    flags: u64,
    index: u64,
    session: String,
}

/// Reads any value as an operation, for the fuzz target.
pub(super) fn fuzz(value: &Value) {
    if let Ok(op) = Op::read(value) {
        let _writes = op.writes();
    }
}

impl Op {
    fn read(value: &Value) -> Result<Self, decode::Fault> {
        let mut f = Fields::new(value)?;
        if let Some(kv) = f.value("KV") {
            return KvOp::read(kv).map(Self::Kv);
        }
        let (kind, read) = if let Some(node) = f.value("Node") {
            (Kind::Node, txn_catalog::node(node)?)
        } else if let Some(service) = f.value("Service") {
            (Kind::Service, txn_catalog::service(service)?)
        } else if let Some(check) = f.value("Check") {
            (Kind::Check, txn_catalog::check(check)?)
        } else {
            return Ok(Self::Unknown("unknown operation".to_owned()));
        };
        Ok(match read {
            Read::Get(node, id) => Self::Get(kind, [node, id]),
            Read::Change(change) => Self::Change(change),
            Read::Unknown(why) => Self::Unknown(why),
        })
    }

    fn writes(&self) -> bool {
        match self {
            Self::Kv(op) => op.writes(),
            Self::Change(_) => true,
            Self::Get(..) | Self::Unknown(_) => false,
        }
    }
}

impl KvOp {
    fn writes(&self) -> bool {
        !matches!(
            self.verb.as_str(),
            "get" | "get-tree" | "check-index" | "check-session" | "check-not-exists"
        )
    }

    fn read(value: &Value) -> Result<Self, decode::Fault> {
        let mut f = Fields::new(value)?;
        let text = f.text("Value")?;
        let value = base64::engine::general_purpose::STANDARD
            .decode(text.as_bytes())
            .map_err(|error| format!("illegal base64 data: {error}"))?;
        let number = |f: &mut Fields<'_>, name: &str| match f.value(name) {
            None => Ok(0),
            Some(v) => v.as_u64().ok_or_else(|| {
                format!("json: cannot unmarshal into Go struct field .{name} of type uint64")
            }),
        };
        Ok(Self {
            verb: f.text("Verb")?,
            key: f.text("Key")?,
            value,
            flags: number(&mut f, "Flags")?,
            index: number(&mut f, "Index")?,
            session: f.text("Session")?,
        })
    }
}

/// A failure of one operation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    op_index: usize,
    what: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    results: Option<Vec<Value>>,
    errors: Option<Vec<Failure>>,
}

/// The same of reads only.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReadOutcome {
    results: Option<Vec<Value>>,
    errors: Option<Vec<Failure>>,
    index: u64,
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
}

/// PUT.
pub(super) async fn put(state: &ConsulState, r: &mut Request) -> Answer {
    r.datacenter(&state.options.datacenter)?;
    let Some(body) = r.body(BODY).await? else {
        return refuse(
            413,
            format!(
                "Request body too large, max size: {BODY} bytes. See https://www.consul.io/docs/agent/options.html#txn_max_req_len."
            ),
        );
    };
    let ops = read(state, &body)?;
    let (writes, empty) = (ops.iter().any(Op::writes), ops.is_empty());
    allowed(r, &ops)?;
    let (results, failures) = run(state, r, ops).await?;
    let status = if failures.is_empty() { 200 } else { 409 };
    let (results, errors) = if failures.is_empty() {
        (Some(results), None)
    } else {
        (None, Some(failures))
    };
    if writes || empty {
        return Ok(r.json(&Outcome { results, errors }).status(status));
    }
    let outcome = ReadOutcome {
        results,
        errors,
        index: 0,
        last_contact: 0,
        known_leader: true,
        consistency_level: "",
    };
    let reply = r.json(&outcome).status(status);
    Ok(reply
        .named("x-consul-knownleader", "true")
        .named("x-consul-lastcontact", "0"))
}

fn read(state: &ConsulState, body: &[u8]) -> Result<Vec<Op>, Refused> {
    let failed = |why: decode::Fault| refuse(400, format!("Failed to parse body: {why}"));
    let value = match decode::parse(body) {
        Ok(value) => value,
        Err(why) => return failed(why),
    };
    let items = match &value {
        Value::Array(items) => items.as_slice(),
        Value::Null => &[],
        _ => {
            return failed(
                "json: cannot unmarshal object into Go value of type api.TxnOps".to_owned(),
            );
        }
    };
    if items.len() > MOST {
        return refuse(
            413,
            format!(
                "Transaction contains too many operations ({} > {MOST})",
                items.len()
            ),
        );
    }
    let mut ops = Vec::with_capacity(items.len());
    for item in items {
        match Op::read(item) {
            Ok(op) => ops.push(op),
            Err(why) => return failed(why),
        }
    }
    let most = most(state);
    for op in &ops {
        if let Op::Kv(kv) = op {
            if kv.value.len() > most {
                let text = format!(
                    "Value for key {} is too large ({} > {most} bytes)",
                    quoted(&kv.key),
                    kv.value.len()
                );
                return refuse(413, text);
            }
            if kv.key.len() > LONGEST_KEY {
                return refuse(400, format!("Key name is longer than {LONGEST_KEY} bytes"));
            }
        }
    }
    Ok(ops)
}

fn allowed(r: &Request, ops: &[Op]) -> Result<(), Refused> {
    for op in ops {
        match op {
            Op::Kv(kv) if is_own(&kv.key) => return denied(),
            Op::Kv(kv) if kv.writes() => need(r, &KV_WRITE)?,
            Op::Kv(_) => need(r, &KV_READ)?,
            Op::Change(_) => need(r, &REGISTER)?,
            Op::Get(..) | Op::Unknown(_) => need(r, &READ)?,
        }
    }
    Ok(())
}

/// What each operation answered: its items, or the sentence of its failure.
type Done = Vec<Result<Vec<Value>, String>>;

async fn run(
    state: &ConsulState,
    r: &Request,
    ops: Vec<Op>,
) -> Result<(Vec<Value>, Vec<Failure>), Refused> {
    let done = if ops.iter().any(|op| matches!(op, Op::Change(_))) {
        with_catalog(state, r, ops).await?
    } else {
        keys_only(state, r, &ops).await?
    };
    let (mut results, mut failures) = (Vec::new(), Vec::new());
    for (op_index, one) in done.into_iter().enumerate() {
        match one {
            Ok(found) => results.extend(found),
            Err(what) => failures.push(Failure { op_index, what }),
        }
    }
    Ok((results, failures))
}

/// A transaction of keys, with reads of the catalogue.
async fn keys_only(state: &ConsulState, r: &Request, ops: &[Op]) -> Result<Done, Fail> {
    let tx = state.core.db.begin_durable().await?;
    tx.set_trace(r.cx.caller.trace_id.as_deref());
    let mut store = Store::begin(&state.core, &tx, r.cx.tenant(), None).await?;
    let mut done = Done::with_capacity(ops.len());
    for op in ops {
        done.push(plain(state, r, &mut store, op).await?);
    }
    if done.iter().any(Result::is_err) {
        drop(store);
        tx.rollback().await?;
        return Ok(done);
    }
    let changed = store.finish(state, &r.cx).await?;
    conclude(tx, changed).await?;
    Ok(done)
}

/// An operation that does not change the catalogue.
async fn plain(
    state: &ConsulState,
    r: &Request,
    store: &mut Store<'_>,
    op: &Op,
) -> Result<Result<Vec<Value>, String>, Fail> {
    Ok(match op {
        Op::Kv(kv) => key(store, kv).await?,
        Op::Get(kind, names) => look(state, r, *kind, names).map(|found| vec![found]),
        Op::Unknown(why) => Err(why.clone()),
        Op::Change(_) => Ok(Vec::new()),
    })
}

/// A transaction that changes the catalogue, and keys with it: one unit of work of the registry.
async fn with_catalog(state: &ConsulState, r: &Request, ops: Vec<Op>) -> Result<Done, Fail> {
    let (mut rest, mut changes) = (Vec::with_capacity(ops.len()), Vec::new());
    let mut addresses = BTreeMap::new();
    for op in ops {
        // Names are resolved before anything is locked.
        let prepared = match op {
            Op::Change(change) => {
                Some(txn_catalog::prepare(state, r, change, &mut addresses).await)
            }
            other => {
                rest.push(other);
                None
            }
        };
        if let Some(prepared) = prepared {
            changes.push((rest.len(), prepared));
            rest.push(Op::Unknown(String::new()));
        }
    }
    let mut w = Writer::begin_durable(&state.core, &r.cx).await?;
    let mut done = {
        let index = w.index();
        let mut store = Store::begin(&state.core, w.tx(), r.cx.tenant(), Some(index)).await?;
        let mut done = Done::with_capacity(rest.len());
        for op in &rest {
            done.push(plain(state, r, &mut store, op).await?);
        }
        store.finish(state, &r.cx).await?;
        done
    };
    let mut made = txn_catalog::Made::default();
    for (at, prepared) in changes {
        done[at] = match prepared {
            Ok(ready) => {
                let item = txn_catalog::apply(state, r, &mut w, &mut made, ready).await?;
                item.map(|item| item.into_iter().collect())
            }
            Err(why) => Err(why),
        };
    }
    // Dropping the unit of work undoes everything.
    if done.iter().all(Result::is_ok) {
        w.commit().await?;
        let ids: Vec<Uuid> = made.settle.into_iter().collect();
        ops::settle::settle(&state.core, &r.cx, &ids).await?;
    }
    Ok(done)
}

fn item(pair: &KvPair) -> Value {
    json!({ "KV": pair })
}

/// One operation on a key: its results, or the sentence of its failure.
async fn key(store: &mut Store<'_>, op: &KvOp) -> Result<Result<Vec<Value>, String>, Fail> {
    let name = quoted(&op.key);
    let session = Uuid::parse_str(&op.session).ok();
    let verb = match op.verb.as_str() {
        "set" => Verb::Set,
        "cas" => Verb::Cas(op.index),
        "lock" => Verb::Lock(session),
        "unlock" => Verb::Unlock(session),
        _ => return other(store, op, &name).await,
    };
    if op.key.is_empty() {
        return Ok(Err("Missing key name".to_owned()));
    }
    if op.verb == "lock" {
        let known = store.get(&op.key).await?;
        if store.is_delayed(&op.key, known.as_ref()).await? {
            return Ok(Err(format!("failed to lock key {name} due to lock delay")));
        }
    }
    match store.write(&op.key, op.value.clone(), op.flags, verb).await {
        Ok(Some(entry)) => Ok(Ok(vec![item(&KvPair::without_value(&entry))])),
        Ok(None) => Ok(Err(match op.verb.as_str() {
            "lock" => format!("failed to lock key {name}, lock is already held"),
            "unlock" => {
                format!(
                    "failed to unlock key {name}, lock isn't held, or is held by another session"
                )
            }
            _ => format!("failed to set key {name}, index is stale"),
        })),
        Err(Fail::NoSession) => Ok(Err(format!("invalid session {}", quoted(&op.session)))),
        Err(Fail::Full(why)) => Ok(Err(why)),
        Err(fail) => Err(fail),
    }
}

/// Verbs that read, check or delete.
async fn other(
    store: &mut Store<'_>,
    op: &KvOp,
    name: &str,
) -> Result<Result<Vec<Value>, String>, Fail> {
    Ok(match op.verb.as_str() {
        "get" => match store.get(&op.key).await? {
            Some(entry) => Ok(vec![item(&KvPair::of(&entry))]),
            None => Err(format!("key {name} doesn't exist")),
        },
        "get-tree" => {
            let found = rows::list(store.tx, store.tenant, &op.key).await?;
            Ok(found.iter().map(|entry| item(&KvPair::of(entry))).collect())
        }
        "check-index" => match store.get(&op.key).await? {
            None => Err(format!("failed to check index, key {name} doesn't exist")),
            Some(entry) if entry.modify_index != op.index => Err(format!(
                "failed index check for key {name}, current modify index {} != {}",
                entry.modify_index, op.index
            )),
            Some(entry) => Ok(vec![item(&KvPair::without_value(&entry))]),
        },
        "check-session" => match store.get(&op.key).await? {
            None => Err(format!("failed to check session, key {name} doesn't exist")),
            Some(entry) => {
                let holder = entry.session.map(|s| s.to_string()).unwrap_or_default();
                if holder == op.session {
                    Ok(vec![item(&KvPair::without_value(&entry))])
                } else {
                    Err(format!(
                        "failed session check for key {name}, current session {} != {}",
                        quoted(&holder),
                        quoted(&op.session)
                    ))
                }
            }
        },
        "check-not-exists" => match store.get(&op.key).await? {
            Some(_) => Err(format!("key {name} exists")),
            None => Ok(Vec::new()),
        },
        "delete" => store.delete(&op.key, None).await.map(|_| Ok(Vec::new()))?,
        "delete-tree" => store.delete_tree(&op.key).await.map(|()| Ok(Vec::new()))?,
        "delete-cas" => {
            if store.delete(&op.key, Some(op.index)).await? {
                Ok(Vec::new())
            } else {
                Err(format!("failed to delete key {name}, index is stale"))
            }
        }
        verb => Err(format!("unknown KV verb {}", quoted(verb))),
    })
}

/// Reads the catalogue inside a transaction.
fn look(
    state: &ConsulState,
    r: &Request,
    kind: Kind,
    names: &[String; 2],
) -> Result<Value, String> {
    let model = state.core.model.read();
    let view = state.view(&model, r.cx.tenant());
    let [node, id] = names;
    match kind {
        Kind::Node => view
            .node(node)
            .map(|n| json!({ "Node": n }))
            .ok_or_else(|| format!("node {} doesn't exist", quoted(node))),
        Kind::Service => view
            .on_node(node)
            .find(|s| service_id(&s.entry.instance) == *id)
            .map(|s| json!({"Service": node_service(s)}))
            .ok_or_else(|| {
                format!(
                    "service {} on node {} doesn't exist",
                    quoted(id),
                    quoted(node)
                )
            }),
        Kind::Check => view
            .checks_on(node)
            .into_iter()
            .find(|c| *c.check_id == **id)
            .map(|c| json!({ "Check": c }))
            .ok_or_else(|| {
                format!(
                    "check {} on node {} doesn't exist",
                    quoted(id),
                    quoted(node)
                )
            }),
    }
}
