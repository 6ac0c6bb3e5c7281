//! `/v1/session/*` (C§9).

use chrono::Duration;
use portico_base::Context;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{KV_READ, SESSION_WRITE, need};
use super::blocking::{self, Look, Wait};
use super::catalog::BODY;
use super::decode::{self, Fields};
use super::duration;
use super::kv::conclude;
use super::kv_store::{Fail, Store};
use super::reply::{Answer, Refused, refuse};
use super::request::Request;
use super::state::{ConsulState, Topic};
use super::views::{SERF, View};
use super::wire::SessionView;
use crate::domain::check::Status;
use crate::store::kv as rows;
use crate::store::sessions as table;
use crate::store::sessions::{ServiceCheck, Session, SessionChecks};

/// Sessions of one principal (RG-46).
const MOST: i64 = 10_000;
/// Lock delay without a wish.
const LOCK_DELAY_NS: i64 = 15_000_000_000;
/// A number below this in `LockDelay` means seconds.
const BARE_SECONDS: i64 = 1_000;
const TTL_MIN_NS: i64 = 10_000_000_000;
const TTL_MAX_NS: i64 = 86_400_000_000_000;
/// Longest name, and most checks of a session.
const LONGEST: usize = 512;
const MOST_CHECKS: usize = 64;

/// What a session is to be.
struct Wanted {
    name: String,
    node: String,
    lock_delay_ns: i64,
    behavior: String,
    ttl: String,
    ttl_ns: i64,
    checks: SessionChecks,
}

/// Reads any bytes as a session to be made, for the fuzz target.
pub(super) fn fuzz(body: &[u8]) {
    if let Ok(wanted) = Wanted::read(body, "node") {
        let _fault = wanted.fault();
    }
}

impl Wanted {
    fn read(body: &[u8], host: &str) -> Result<Self, decode::Fault> {
        let value = if body.iter().all(u8::is_ascii_whitespace) {
            json!({})
        } else {
            decode::parse(body)?
        };
        let mut f = Fields::new(&value)?;
        let lock_delay_ns = match f.value("LockDelay") {
            None => LOCK_DELAY_NS,
            Some(Value::Number(n)) => match n.as_i64().unwrap_or(0) {
                n if n < BARE_SECONDS => n.saturating_mul(1_000_000_000),
                n => n,
            },
            Some(_) => f.duration("LockDelay")?,
        };
        let ttl = match f.value("TTL") {
            Some(Value::Number(n)) => duration::format(n.as_i64().unwrap_or(0)),
            _ => f.text("TTL")?,
        };
        let ttl_ns = if ttl.is_empty() {
            0
        } else {
            duration::parse(&ttl)?
        };
        let (old, node) = (f.texts("Checks")?, f.texts("NodeChecks")?);
        let given = old.is_some() || node.is_some();
        let mut node_checks: Vec<String> = old.into_iter().chain(node).flatten().collect();
        node_checks.dedup();
        if !given {
            node_checks.push(SERF.to_owned());
        }
        let mut service = Vec::new();
        let named = f.value("ServiceChecks").is_some();
        for check in f.list("ServiceChecks")? {
            let mut inner = Fields::new(check)?;
            service.push(ServiceCheck {
                id: inner.text("ID")?,
                namespace: inner.text("Namespace")?,
            });
        }
        let named_node = f.text("Node")?;
        Ok(Self {
            name: f.text("Name")?,
            node: if named_node.is_empty() {
                host.to_owned()
            } else {
                named_node
            },
            lock_delay_ns: lock_delay_ns.clamp(0, TTL_MAX_NS),
            behavior: f.text("Behavior")?,
            ttl,
            ttl_ns,
            checks: SessionChecks {
                node: node_checks,
                service: named.then_some(service),
            },
        })
    }

    /// What is wrong with it by itself.
    fn fault(&self) -> Option<String> {
        if !matches!(self.behavior.as_str(), "" | "release" | "delete") {
            return Some(format!("Invalid Behavior setting '{}'", self.behavior));
        }
        if self.ttl_ns != 0 && !(TTL_MIN_NS..=TTL_MAX_NS).contains(&self.ttl_ns) {
            return Some(format!(
                "Invalid Session TTL '{}', must be between [10s=24h0m0s]",
                self.ttl_ns
            ));
        }
        let service = self.checks.service.as_ref().map_or(0, Vec::len);
        if self.name.len() > LONGEST || self.checks.node.len() + service > MOST_CHECKS {
            return Some(format!(
                "a name is at most {LONGEST} bytes, and checks are at most {MOST_CHECKS}"
            ));
        }
        None
    }
}

/// What keeps a session from living: its node or one of its checks.
pub(super) fn obstacle(view: &View<'_>, node: &str, checks: &SessionChecks) -> Option<String> {
    if view.node(node).is_none() {
        return Some("Missing node registration".to_owned());
    }
    let on = view.checks_on(node);
    let services = checks.service.iter().flatten().map(|c| c.id.as_str());
    for id in checks.node.iter().map(String::as_str).chain(services) {
        match on.iter().find(|c| &*c.check_id == id) {
            None => return Some(format!("Missing check '{id}' registration")),
            Some(check) if check.status == Status::Critical.as_str() => {
                return Some(format!("Check '{id}' is in critical state"));
            }
            Some(_) => {}
        }
    }
    None
}

/// `session/create`.
pub(super) async fn create(state: &ConsulState, r: &mut Request) -> Answer {
    need(r, &SESSION_WRITE)?;
    r.datacenter(&state.options.datacenter)?;
    let Some(body) = r.body(BODY).await? else {
        return refuse(413, "Request body too large");
    };
    let wanted = match Wanted::read(&body, &state.core.host) {
        Ok(wanted) => wanted,
        Err(why) => return refuse(400, format!("Request decode failed: {why}")),
    };
    if let Some(why) = wanted.fault() {
        return refuse(500, why);
    }
    let obstacle = {
        let model = state.core.model.read();
        obstacle(
            &state.view(&model, r.cx.tenant()),
            &wanted.node,
            &wanted.checks,
        )
    };
    if let Some(why) = obstacle {
        return refuse(500, why);
    }
    let id = insert(state, r, wanted).await?;
    Ok(r.json(&json!({"ID": id.to_string()})))
}

/// Whoever makes a session, for the limit.
fn owner(r: &Request) -> String {
    let principal = r.cx.principal();
    format!("{}:{}", principal.kind.as_str(), principal.subject)
}

async fn insert(state: &ConsulState, r: &Request, wanted: Wanted) -> Result<Uuid, Fail> {
    let (tenant, owner) = (r.cx.tenant(), owner(r));
    let tx = state.core.db.begin_durable().await?;
    tx.set_trace(r.cx.caller.trace_id.as_deref());
    let mut store = Store::begin(&state.core, &tx, tenant, None).await?;
    if table::count(&tx, Some((tenant, &owner))).await? >= MOST {
        return Err(Fail::Full(format!("this caller has {MOST} sessions")));
    }
    let only_here = *wanted.node == *state.core.host
        && wanted.checks.node.iter().all(|c| c == SERF)
        && wanted.checks.service.iter().flatten().next().is_none();
    let ttl_ms = wanted.ttl_ns / 1_000_000;
    let session = Session {
        id: r.cx.new_id(),
        tenant,
        name: wanted.name,
        node: wanted.node,
        ttl: wanted.ttl,
        ttl_ms,
        lock_delay_ns: wanted.lock_delay_ns,
        deletes: wanted.behavior == "delete",
        checks: wanted.checks,
        watched: !only_here,
        owner,
        create_index: 0,
        modify_index: 0,
        expires_at: (ttl_ms > 0).then(|| store.now + Duration::milliseconds(2 * ttl_ms)),
    };
    let session = store.put_session(session).await?;
    let changed = store.finish(state, &r.cx).await?;
    conclude(tx, changed).await?;
    Ok(session.id)
}

/// The id of a path: 36 characters, though not necessarily a UUID.
fn session_id(text: &str, missing: &str, failed: &str) -> Result<Option<Uuid>, Refused> {
    if text.is_empty() {
        return refuse(400, missing);
    }
    if text.len() != 36 {
        return refuse(
            500,
            format!("{failed}: index error: UUID must be 36 characters"),
        );
    }
    Ok(Uuid::parse_str(text).ok())
}

/// `session/info/:id`.
pub(super) async fn info(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &KV_READ)?;
    r.datacenter(&state.options.datacenter)?;
    let id = session_id(id, "Missing session", "failed session lookup")?;
    let tenant = r.cx.tenant();
    let look = move || async move {
        let db = state.core.db.reader();
        let index = rows::usage(db, tenant).await?.sessions.max(1);
        let found = match id {
            Some(id) => table::get(db, tenant, id).await?,
            None => None,
        };
        let views: Vec<SessionView> = found.map(SessionView::from).into_iter().collect();
        Ok(Look::at(index, views))
    };
    let found = blocking::run(state, r, &[Wait::Store(Topic::Sessions(tenant))], look).await?;
    blocking::answer(r, &found, false)
}

/// `session/list` and `session/node/:node`.
pub(super) async fn list(state: &ConsulState, r: &Request, node: Option<&str>) -> Answer {
    need(r, &KV_READ)?;
    if node == Some("") {
        return refuse(400, "Missing node name");
    }
    r.datacenter(&state.options.datacenter)?;
    let tenant = r.cx.tenant();
    let look = move || async move {
        let db = state.core.db.reader();
        let index = rows::usage(db, tenant).await?.sessions.max(1);
        let found = table::list(db, tenant, node).await?;
        Ok(Look::at(
            index,
            found.into_iter().map(SessionView::from).collect::<Vec<_>>(),
        ))
    };
    let found = blocking::run(state, r, &[Wait::Store(Topic::Sessions(tenant))], look).await?;
    blocking::answer(r, &found, false)
}

/// `session/renew/:id`.
pub(super) async fn renew(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &SESSION_WRITE)?;
    r.datacenter(&state.options.datacenter)?;
    let wanted = session_id(id, "Missing session", "session lookup failed")?;
    let tenant = r.cx.tenant();
    let now = r.cx.now();
    let found = match wanted {
        Some(wanted) => table::get(state.core.db.reader(), tenant, wanted).await?,
        None => None,
    };
    let Some(session) = found.filter(|s| s.expires_at.is_none_or(|at| at > now)) else {
        return refuse(404, format!("Session id '{id}' not found"));
    };
    if let Some(expires_at) = session.expires_at {
        let ttl = Duration::milliseconds(session.ttl_ms);
        // A session lives for one to two of its times after a renewal, so that not each is a write.
        if expires_at - now < ttl {
            let tx = state.core.db.begin().await?;
            if table::renew(&tx, session.id, now + ttl * 2).await? == 0 {
                return refuse(404, format!("Session id '{id}' not found"));
            }
            tx.commit().await?;
        }
    }
    Ok(r.json(&[SessionView::from(session)]))
}

/// `session/destroy/:id`.
pub(super) async fn destroy(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &SESSION_WRITE)?;
    r.datacenter(&state.options.datacenter)?;
    if let Some(id) = session_id(id, "Missing session", "session lookup failed")? {
        end(state, &r.cx, r.cx.tenant(), id, |_| true).await?;
    }
    Ok(r.json(&true))
}

/// Ends a session if it is still there and `due` says so, looked at inside the transaction.
pub(super) async fn end(
    state: &ConsulState,
    cx: &Context,
    tenant: Uuid,
    id: Uuid,
    due: impl FnOnce(&Session) -> bool,
) -> Result<bool, Fail> {
    let tx = state.core.db.begin_durable().await?;
    let mut store = Store::begin(&state.core, &tx, tenant, None).await?;
    if let Some(session) = table::get(&tx, tenant, id).await?.filter(due) {
        store.end_session(&session).await?;
    }
    let changed = store.finish(state, cx).await?;
    conclude(tx, changed).await?;
    Ok(changed)
}
