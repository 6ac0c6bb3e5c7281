//! Applying a change set: values, history, audit record and event in one transaction (CT-4).

use std::collections::HashMap;
use std::sync::Arc;

use portico_base::Context;
use portico_contract::audit::Record;
use portico_db::WriteTx;
use portico_db::sea_orm::ConnectionTrait;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::plan::{Planned, Wish, authorise, plan, shown};
use crate::domain::conflict::{Conflict, ThreeWay};
use crate::domain::secret::{Row, fingerprint, seal};
use crate::domain::state::{Author, State, Taken};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::live;
use crate::store;
use crate::store::history::NewVersion;
use crate::store::sets::ChangeSet;
use crate::store::values::{COUNTER, Content, NewValue, TOPIC};

/// What a change set did, or would do.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// Nothing when nothing was to be changed, or nothing was written.
    pub id: Option<Uuid>,
    /// Position of the change, or the present one.
    pub seq: u64,
    pub changed: Vec<Changed>,
    pub dry_run: bool,
}

/// A changed key; secrets by their fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Changed {
    pub key: String,
    pub version: u64,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// What followers and listeners of the bus are told.
#[derive(Serialize)]
struct Event<'a> {
    seq: u64,
    scope: Uuid,
    keys: Vec<&'a str>,
}

/// Applies a change set. It is in force in this process when this returns.
pub(crate) async fn change(core: &Arc<Core>, cx: &Context, wish: &Wish) -> Result<Done> {
    authorise(core, cx, wish)?;
    let done = core.db.retry(|| Box::pin(once(core, cx, wish))).await?;
    if done.id.is_some() {
        in_force(core, done.seq).await;
    }
    Ok(done)
}

/// Waits until this process has taken the change over. The change is committed: when the database went away
/// in between, the follower does it later.
async fn in_force(core: &Core, seq: u64) {
    if core.live.state().seq >= seq {
        return;
    }
    if let Err(error) = live::catch_up(core).await {
        tracing::warn!(err = %error, "a change is written but not in force here yet");
    }
}

async fn once(core: &Arc<Core>, cx: &Context, wish: &Wish) -> Result<Done> {
    let tx = core.db.begin_durable().await?;
    tx.set_trace(cx.caller.trace_id.as_deref());
    // From here on nobody else changes settings, so that what is read now is what is written over.
    let seq = tx.next_seq(COUNTER).await?;
    let state = present(core, &tx).await?;
    let planned = match plan(core, &state, wish) {
        Err(Error::Conflict(conflicts)) => {
            return Err(Error::Conflict(
                with_bases(core, &tx, wish, &state, conflicts).await?,
            ));
        }
        other => other?,
    };
    let changed: Vec<Changed> = planned.iter().map(changed).collect();
    if wish.dry_run || planned.is_empty() {
        tx.rollback().await?;
        return Ok(Done {
            id: None,
            seq: seq - 1,
            changed,
            dry_run: wish.dry_run,
        });
    }
    let id = cx.new_id();
    let set = ChangeSet {
        id,
        seq,
        scope: wish.scope,
        comment: wish.comment.clone().filter(|c| !c.is_empty()),
        actor: Author::of(cx),
        at: cx.now(),
        reverts: wish.reverts,
    };
    store::sets::insert(&tx, &set).await?;
    for one in &planned {
        write(core, cx, &tx, &set, one).await?;
    }
    core.audit.record(&tx, cx, record(&set, &planned)).await?;
    let keys: Vec<&str> = planned.iter().map(|p| &*p.declared.key).collect();
    let event = Event {
        seq,
        scope: wish.scope,
        keys,
    };
    tx.publish(TOPIC, &id.to_string(), &event)?;
    tx.commit().await?;
    Ok(Done {
        id: Some(id),
        seq,
        changed,
        dry_run: false,
    })
}

/// The values as this transaction sees them: memory, and what other replicas wrote since.
async fn present(core: &Core, tx: &WriteTx) -> Result<State> {
    let mut state = (*core.live.state()).clone();
    for stored in store::values::after(tx, &core.keys, state.seq).await? {
        state.put(Taken {
            stored: Arc::new(stored),
            refused: None,
        });
    }
    Ok(state)
}

async fn write(
    core: &Core,
    cx: &Context,
    tx: &WriteTx,
    set: &ChangeSet,
    one: &Planned,
) -> Result<()> {
    let key = &*one.declared.key;
    let content = |row: Row<'_>| match &one.after {
        None => Content::Nothing,
        Some(value) if one.declared.secret => Content::Secret {
            sealed: seal(&core.keys, row, value, &*cx.random),
            fingerprint: fingerprint(value),
        },
        Some(value) => Content::Plain(Arc::clone(value)),
    };
    let value = NewValue {
        scope: set.scope,
        key,
        content: &content(Row::Value(set.scope, key)),
        version: one.version,
        seq: set.seq,
        created_seq: one.created_seq.unwrap_or(set.seq),
        by: &set.actor,
        at: set.at,
    };
    store::values::put(tx, &value).await?;
    let version = NewVersion {
        id: cx.new_id(),
        scope: set.scope,
        key,
        version: one.version,
        seq: set.seq,
        secret: one.declared.secret,
        content: &content(Row::History(set.scope, key, one.version)),
        change_set: set.id,
        actor: &set.actor,
        ip: cx.caller.address.map(|ip| ip.to_string()),
        comment: set.comment.as_deref(),
        request_id: &cx.caller.request_id,
        at: set.at,
        rolled_back_from: one.rolled_back_from,
    };
    Ok(store::history::insert(tx, &version).await?)
}

fn changed(one: &Planned) -> Changed {
    Changed {
        key: one.declared.key.to_string(),
        version: one.version,
        before: shown(&one.declared, one.before.as_deref()),
        after: shown(&one.declared, one.after.as_deref()),
    }
}

fn record(set: &ChangeSet, planned: &[Planned]) -> Record {
    let back = set.reverts.is_some() || planned.iter().any(|p| p.rolled_back_from.is_some());
    let action = if back {
        "settings.value.rolled_back"
    } else {
        "settings.value.changed"
    };
    let mut record = Record::done(action, "setting_change_set", set.id.to_string(), set.scope);
    for one in planned {
        let (before, after) = (one.before.as_deref(), one.after.as_deref());
        let told = |value| shown(&one.declared, value);
        record = record.change(&one.declared.key, told(before), told(after));
    }
    record.reason.clone_from(&set.comment);
    record
}

/// Conflicts with the value that both sides began from, where the history knows it.
async fn with_bases(
    core: &Core,
    conn: &impl ConnectionTrait,
    wish: &Wish,
    state: &State,
    conflicts: Vec<Conflict>,
) -> Result<Vec<Conflict>> {
    let wished: HashMap<&str, Option<&Value>> = wish
        .changes
        .iter()
        .map(|w| (w.key.as_str(), w.to.as_ref()))
        .collect();
    let mut out = Vec::new();
    for mut one in conflicts {
        let place = (wish.scope, one.key.as_str());
        let base = match (one.base_version, wish.base_seq) {
            (Some(version), _) => {
                store::history::get(conn, &core.keys, place.0, place.1, version).await?
            }
            (None, Some(seq)) => store::history::at_position(conn, &core.keys, place, seq).await?,
            (None, None) => None,
        };
        if let Some(declared) = core.catalogue.get(&one.key, wish.scope) {
            let told = |value: Option<&Value>| shown(&declared, value);
            let base = told(base.as_ref().and_then(|v| v.value.as_deref()));
            let theirs = told(state.stored(wish.scope, &one.key).as_deref());
            let yours = told(wished.get(one.key.as_str()).copied().flatten());
            one.diff = ThreeWay::of(base.as_ref(), theirs.as_ref(), yours.as_ref());
        }
        out.push(one);
    }
    Ok(out)
}
