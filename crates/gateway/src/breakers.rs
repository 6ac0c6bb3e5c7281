//! Breakers as people see them: their changes as events, and what operators decide, on every replica (GW-57).

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Access, Context, Permission, Timestamp};
use portico_contract::audit::{Audit, Record};
use portico_db::{Db, News, OutboxRow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::balance::{Forced, Phase};
use crate::error::Error;
use crate::pipeline::operate::{ANY_TENANT, Audience, BreakerView, Place, ReasonView};
use crate::pipeline::{BreakerEvent, BreakerListener};
use crate::topology::Topology;
use crate::topology::happenings::Happening;

/// Permission to look.
pub(crate) const READ: Permission = Permission::new("gateway:breaker:read");
/// Permission to decide.
pub(crate) const WRITE: Permission = Permission::new("gateway:breaker:write");
/// Longest time for which an operator may decide: decisions are read from the outbox after a restart,
/// and it keeps events as long.
pub(crate) const LONGEST_S: u32 = 86_400;

/// Topic of every change.
const CHANGED: &str = "gateway.breaker.changed";
/// Topic of operators' decisions, which replicas follow.
const FORCED: &str = "gateway.breaker.forced";
const POLL: Duration = Duration::from_millis(500);
/// Changes that wait to be told; further ones are only in the metrics.
const WAITING: usize = 1_024;
/// How long ago another replica's change may be to be told to those who watch here.
const FRESH_MS: i64 = 900_000;
/// The reason of a change that nobody's failures brought about.
const DECIDED: &str = "an operator decided";
/// Changes of one transaction.
const BATCH: usize = 64;
/// Between two transactions: breakers that flap must not keep the database busy.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at breakers, decides about them, tells of their changes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Breakers {
    pub(crate) db: Db,
    pub(crate) audit: Audit,
    pub(crate) topology: Topology,
}

/// What an operator wants of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Open,
    Closed,
    /// The breaker decides again.
    Auto,
}

impl Wish {
    const fn forced(self) -> Option<Forced> {
        match self {
            Self::Open => Some(Forced::Open),
            Self::Closed => Some(Forced::Closed),
            Self::Auto => None,
        }
    }
}

/// A decision as replicas hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Decision {
    id: Uuid,
    /// `open`, `closed`, or nothing when the breaker decides again.
    forced: Option<Word>,
    /// Unix milliseconds.
    until_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Open,
    Closed,
}

/// `gateway.breaker.changed`.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    id: Uuid,
    service: &'a str,
    service_id: Uuid,
    tenant: Option<Uuid>,
    instance: Option<Uuid>,
    from: &'static str,
    to: &'static str,
    /// An operator's word, while it holds.
    forced: Option<&'static str>,
    /// An operator decided it; else the breaker did.
    decided: bool,
    /// The last failures, newest last.
    reasons: Vec<ReasonView>,
    /// Where it was seen: each replica has breakers of its own.
    replica: &'a str,
}

/// The same as another replica told it.
#[derive(Debug, Deserialize)]
struct Heard {
    id: Uuid,
    from: String,
    to: String,
    #[serde(default)]
    decided: bool,
    #[serde(default)]
    reasons: Vec<HeardReason>,
    replica: Arc<str>,
}

#[derive(Debug, Deserialize)]
struct HeardReason {
    why: String,
}

/// A queue from the data threads, which never wait.
pub(crate) fn queue() -> (BreakerListener, mpsc::Receiver<BreakerEvent>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let listener: BreakerListener = Arc::new(move |event| {
        // When it is full the change is still in metrics and lists.
        let _full = sender.try_send(event);
    });
    (listener, receiver)
}

impl Breakers {
    /// All breakers that the caller may see.
    ///
    /// # Errors
    /// When the process is ending, or without the permission.
    pub(crate) fn list(&self, cx: &Context) -> Result<Vec<BreakerView>, Error> {
        cx.authorise(&Access::AnyOf(vec![READ, WRITE]))?;
        Ok(self.topology.gate()?.breakers(Audience::of(cx.principal())))
    }

    /// Decides about a breaker for a time, or gives the decision back. In force here at once, on other
    /// replicas within a second; it outlives restarts.
    ///
    /// # Errors
    /// When there is no such breaker for the caller, or the change cannot be written.
    pub(crate) async fn decide(
        &self,
        cx: &Context,
        id: &str,
        wish: Wish,
        for_s: u32,
        reason: Option<String>,
    ) -> Result<(BreakerView, Timestamp), Error> {
        cx.authorise(&Access::Permission(WRITE))?;
        if !(1..=LONGEST_S).contains(&for_s) {
            let most = format!("must be from 1 to {LONGEST_S}");
            return Err(Error::field("for_s", "range", &most));
        }
        let gate = self.topology.gate()?;
        let place = self.find(cx, id)?;
        let until = cx.now() + chrono::TimeDelta::seconds(i64::from(for_s));
        let before = gate.breaker(place.id());
        let decision = Decision {
            id: place.id(),
            forced: match wish {
                Wish::Open => Some(Word::Open),
                Wish::Closed => Some(Word::Closed),
                Wish::Auto => None,
            },
            until_ms: until.timestamp_millis(),
        };
        self.write(cx, &place, &decision, before.as_ref(), reason)
            .await?;
        gate.force_breaker(decision.id, wish.forced(), u64::from(for_s) * 1_000);
        let after = gate.breaker(decision.id);
        let state = |view: &Option<BreakerView>| view.as_ref().map(|b| b.state);
        self.tell_watchers(cx, &place, state(&before), state(&after));
        let view = after.unwrap_or_else(|| BreakerView {
            // Nothing is sent to it at present; the decision waits for it.
            forced: wish.forced().map(Forced::as_str),
            forced_for_ms: wish.forced().map(|_| u64::from(for_s) * 1_000),
            ..absent(&place)
        });
        Ok((view, until))
    }

    /// By the id of a service or instance, or by the name of a service.
    fn find(&self, cx: &Context, id: &str) -> Result<Place, Error> {
        let gate = self.topology.gate()?;
        let audience = Audience::of(cx.principal());
        let found = match Uuid::parse_str(id) {
            Ok(id) => gate.place(id),
            Err(_) => gate.service_named(cx.tenant(), id),
        };
        let place = found
            .filter(|place| audience.sees(&place.service))
            .ok_or(Error::UnknownBreaker)?;
        if audience.rules(&place.service) {
            Ok(place)
        } else {
            // A global service belongs to all tenants.
            Err(Error::Missing(ANY_TENANT))
        }
    }

    async fn write(
        &self,
        cx: &Context,
        place: &Place,
        decision: &Decision,
        before: Option<&BreakerView>,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let service = &place.service;
        let was = before.and_then(|b| b.forced);
        let kind = match place.instance {
            Some(_) => "instance",
            None => "service",
        };
        let tenant = service.key.tenant.unwrap_or_else(|| cx.tenant());
        let word = |f: Option<&str>| f.map_or(json!("auto"), |f| json!(f));
        let now = decision.forced.map(Word::as_str);
        let mut record = Record::done(
            "gateway.breaker.forced",
            kind,
            decision.id.to_string(),
            tenant,
        )
        .change("breaker", Some(word(was)), Some(word(now)));
        if decision.forced.is_some() {
            record = record.change("until_ms", None, Some(json!(decision.until_ms)));
        }
        record.reason = reason.map(|r| r.chars().take(500).collect());
        let told = Changed {
            id: decision.id,
            service: &service.key.name,
            service_id: service.id,
            tenant: service.key.tenant,
            instance: place.instance,
            from: before.map_or("closed", |b| b.state),
            to: now.or(before.map(|b| b.own_state)).unwrap_or("closed"),
            forced: now,
            decided: true,
            reasons: before.map(|b| b.reasons.clone()).unwrap_or_default(),
            replica: self.topology.replica(),
        };
        let tx = self.db.begin().await?;
        self.audit.record(&tx, cx, record).await?;
        let key = decision.id.to_string();
        tx.publish(FORCED, &key, decision)?;
        tx.publish(CHANGED, &key, &told)?;
        tx.commit().await?;
        Ok(())
    }

    fn tell_watchers(
        &self,
        cx: &Context,
        place: &Place,
        from: Option<&'static str>,
        to: Option<&'static str>,
    ) {
        self.topology.happened(Happening {
            instance: place.instance,
            from,
            to,
            reason: Some(DECIDED.into()),
            replica: Some(self.topology.replica().into()),
            ..Happening::new("breaker.changed", cx.now(), &place.service)
        });
    }

    /// Tells of changes until told to stop: the log, those who watch, and the outbox.
    pub(crate) async fn tell(
        self,
        mut changes: mpsc::Receiver<BreakerEvent>,
        stop: CancellationToken,
    ) {
        let work = async {
            let mut batch = Vec::with_capacity(BATCH);
            while changes.recv_many(&mut batch, BATCH).await > 0 {
                if let Err(error) = self.publish(&mut batch).await {
                    tracing::warn!(err = %error, "changes of breakers could not be published");
                }
                batch.clear();
                tokio::time::sleep(PAUSE).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn publish(&self, batch: &mut Vec<BreakerEvent>) -> Result<(), Error> {
        let gate = self.topology.gate()?;
        let now = self.topology.now();
        let tx = self.db.begin().await?;
        for event in batch.drain(..) {
            let id = event.instance.unwrap_or(event.service_id);
            let view = gate.breaker(id);
            let reasons = view.as_ref().map(|b| b.reasons.clone()).unwrap_or_default();
            let (from, to) = (event.change.from.as_str(), event.change.to.as_str());
            let last = reasons.last().map(|r| r.why);
            tracing::warn!(
                service = %event.service,
                instance = event.instance.map(tracing::field::display),
                from, to, last,
                "a breaker changed"
            );
            if let Some(place) = gate.place(id) {
                self.topology.happened(Happening {
                    instance: event.instance,
                    from: Some(from),
                    to: Some(to),
                    reason: last.map(Arc::from),
                    replica: Some(self.topology.replica().into()),
                    ..Happening::new("breaker.changed", now, &place.service)
                });
            }
            let told = Changed {
                id,
                service: &event.service,
                service_id: event.service_id,
                tenant: event.tenant,
                instance: event.instance,
                from,
                to,
                forced: view.as_ref().and_then(|b| b.forced),
                decided: false,
                reasons,
                replica: self.topology.replica(),
            };
            tx.publish(CHANGED, &id.to_string(), &told)?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Follows the decisions of operators, at first those of the last day, until told to stop.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let work = async {
            loop {
                // From the oldest event that is kept: what was decided before we began still holds.
                if let Ok(oldest) = self.db.outbox().trimmed().await {
                    self.follow_from(oldest).await;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Ends when events were missed.
    async fn follow_from(&self, position: u64) {
        let mut follower = self.db.follow(&[FORCED, CHANGED], position, POLL);
        loop {
            match follower.next().await {
                Ok(News::Events(rows)) => rows.iter().for_each(|row| self.take_row(row)),
                Ok(News::Reset) => return,
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn take_row(&self, row: &OutboxRow) {
        if row.topic == FORCED {
            if let Ok(decision) = row.decode() {
                self.take(&decision);
            }
        } else if let Ok(heard) = row.decode() {
            self.hear(&heard, row.created_at);
        }
    }

    /// A breaker of another replica: nothing changes here, but those who watch are told.
    fn hear(&self, heard: &Heard, at: Timestamp) {
        let age_ms = (self.topology.now() - at).num_milliseconds();
        let own = *heard.replica == *self.topology.replica();
        let Ok(gate) = self.topology.gate() else {
            return;
        };
        let Some(place) = gate.place(heard.id).filter(|_| !own && age_ms < FRESH_MS) else {
            return;
        };
        let last = heard.reasons.last().map(|r| Arc::from(&*r.why));
        self.topology.happened(Happening {
            instance: place.instance,
            from: word(&heard.from),
            to: word(&heard.to),
            reason: if heard.decided {
                Some(DECIDED.into())
            } else {
                last
            },
            replica: Some(Arc::clone(&heard.replica)),
            ..Happening::new("breaker.changed", at, &place.service)
        });
    }

    fn take(&self, decision: &Decision) {
        let Ok(gate) = self.topology.gate() else {
            return;
        };
        let left = decision.until_ms - self.topology.now().timestamp_millis();
        let forced = match decision.forced {
            Some(Word::Open) => Some(Forced::Open),
            Some(Word::Closed) => Some(Forced::Closed),
            None => None,
        };
        // One that has ended takes back what an older one said.
        let forced = forced.filter(|_| left > 0);
        gate.force_breaker(decision.id, forced, u64::try_from(left).unwrap_or(0));
    }
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// A phase that another replica named; a newer one may know more of them.
fn word(text: &str) -> Option<&'static str> {
    let known = [Phase::Closed, Phase::HalfOpen, Phase::Open].map(Phase::as_str);
    known.into_iter().find(|known| *known == text)
}

/// The breaker of something that gets no requests at present.
fn absent(place: &Place) -> BreakerView {
    let service = &place.service;
    BreakerView {
        id: place.id(),
        kind: if place.instance.is_some() {
            "instance"
        } else {
            "service"
        },
        service: service.key.name.to_string(),
        service_id: service.id,
        tenant: service.key.tenant,
        version: None,
        state: "closed",
        own_state: "closed",
        tries_again_ms: None,
        forced: None,
        forced_for_ms: None,
        reasons: Vec::new(),
    }
}
