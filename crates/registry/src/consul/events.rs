//! `/v1/event/*` (C§11).

use uuid::Uuid;

use super::access::{EVENT_WRITE, READ, need};
use super::blocking::{self, Look, Wait};
use super::kv_store::{EVENT_FIRED, Fail, Told};
use super::reply::{Answer, refuse};
use super::request::Request;
use super::state::{ConsulState, Topic};
use super::wire::EventView;
use crate::error::Error;
use crate::ops::audited;
use crate::store;
use crate::store::sessions as table;
use crate::store::sessions::{EventFilters, UserEvent};

/// Events of one principal that are kept (RG-46).
const KEPT: u64 = 256;
/// Longest payload in bytes.
const PAYLOAD: usize = 9_216;
const LONGEST: usize = 512;

/// `event/fire/:name`.
pub(super) async fn fire(state: &ConsulState, r: &mut Request, name: &str) -> Answer {
    need(r, &EVENT_WRITE)?;
    if name.is_empty() {
        return refuse(400, "Missing name");
    }
    r.datacenter(&state.options.datacenter)?;
    let filters = EventFilters {
        node: r.params.text("node").to_owned(),
        service: r.params.text("service").to_owned(),
        tag: r.params.text("tag").to_owned(),
    };
    let wrong = [&filters.node, &filters.service, &filters.tag]
        .into_iter()
        .any(|text| {
            text.len() > LONGEST
                || regex::RegexBuilder::new(text)
                    .size_limit(1 << 18)
                    .build()
                    .is_err()
        });
    if wrong || name.len() > LONGEST {
        return refuse(
            400,
            "Invalid event: a filter is no regular expression, or a name is too long",
        );
    }
    let Some(payload) = r.body(PAYLOAD).await? else {
        return refuse(
            500,
            format!("user event exceeds sane limit of {PAYLOAD} bytes before encoding"),
        );
    };
    let principal = r.cx.principal();
    let event = UserEvent {
        id: r.cx.new_id(),
        tenant: r.cx.tenant(),
        ltime: 0,
        name: name.to_owned(),
        payload: (!payload.is_empty()).then(|| payload.to_vec()),
        filters,
        owner: format!("{}:{}", principal.kind.as_str(), principal.subject),
    };
    insert(state, r, event.clone()).await?;
    Ok(r.json(&EventView::from(&event)))
}

async fn insert(state: &ConsulState, r: &Request, mut event: UserEvent) -> Result<(), Fail> {
    let tx = state.core.db.begin().await?;
    tx.set_trace(r.cx.caller.trace_id.as_deref());
    event.ltime = store::events::advance(&tx, 1, 0).await?.index;
    table::put_event(&tx, &event).await?;
    table::trim_events(&tx, event.tenant, &event.owner, KEPT).await?;
    let tenant = event.tenant;
    let record = audited(
        "registry.event.fired",
        "event",
        event.id.to_string(),
        Some(tenant),
    )
    .change("name", None, Some(event.name.as_str().into()));
    state
        .core
        .audit
        .record(&tx, &r.cx, record)
        .await
        .map_err(Error::from)?;
    tx.publish(
        EVENT_FIRED,
        &event.name,
        &Told {
            tenant,
            ..Told::default()
        },
    )?;
    let wake = state.clone();
    tx.after_commit(Box::new(move || wake.topics.wake(&Topic::Events(tenant))));
    tx.commit().await?;
    Ok(())
}

/// `event/list`. Its index is not a counter: it is made of the last event's id, and any other wakes.
pub(super) async fn list(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    let tenant = r.cx.tenant();
    let name = r.params.text("name");
    let wanted = r.blocking()?.index;
    let look = move || async move {
        let mut events = table::events(state.core.db.reader(), tenant).await?;
        events.retain(|e| name.is_empty() || e.name == name);
        let index = events.last().map_or(1, |e| number_of(e.id));
        let changed = if index == wanted { 0 } else { u64::MAX };
        let views: Vec<EventView> = events.iter().map(EventView::from).collect();
        Ok(Look {
            changed,
            told: index,
            value: views,
        })
    };
    let found = blocking::run(state, r, &[Wait::Store(Topic::Events(tenant))], look).await?;
    Ok(r.json(&found.value)
        .named("x-consul-index", &found.told.max(1).to_string()))
}

/// Both halves of a UUID in one number.
const fn number_of(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    high ^ low
}
