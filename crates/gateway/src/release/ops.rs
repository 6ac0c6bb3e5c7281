//! Use-cases of releases: the verbs of people, and what the guard job carries out.

use std::sync::Arc;

use portico_base::{Context, Timestamp};
use portico_db::Lease;
use serde_json::{Value, json};

use super::machine;
use super::refused::Refused;
use super::serving::Serving;
use super::status::{Status, status};
use super::watch::Watch;
use crate::error::Error;
use crate::objects::doc::{Guard, Numbers, Phase, ReleaseDoc};
use crate::objects::{Amendment, Kind, Ops, Version};

/// What may be done with a release.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// To the next weight.
    Step,
    /// Stop the clock.
    Pause,
    /// Let it go on.
    Resume,
    /// The candidate becomes stable.
    Promote,
    /// The candidate gets nothing.
    Abort,
    /// Undo the last switch.
    Rollback,
    /// Return to a version of the document.
    Restore {
        /// Which.
        version: i64,
    },
}

/// What the job does by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    /// The hold is over.
    Step,
    /// The last hold is over.
    Promote,
    /// The last hold is over, and promoting is for people.
    Wait,
    /// The rollback window is over.
    CloseWindow,
    /// A guard was violated.
    Stop(Guard, Box<Numbers>),
}

/// The use-cases. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Releases {
    ops: Ops,
    pub(super) serving: Serving,
    pub(super) watch: Arc<Watch>,
}

impl Releases {
    pub(super) const fn new(ops: Ops, serving: Serving, watch: Arc<Watch>) -> Self {
        Self {
            ops,
            serving,
            watch,
        }
    }

    /// Carries out a verb. Without `expected` a change that somebody else makes at the same moment is a
    /// conflict all the same: a verb never takes effect on a release that its caller cannot have seen.
    pub(crate) async fn command(
        &self,
        cx: &Context,
        service: &str,
        command: Command,
        expected: Option<i64>,
        message: Option<String>,
    ) -> Result<Version, Error> {
        if let Command::Restore { version } = command {
            let kind = Kind::Release;
            let to = Some(version);
            return { self.ops.rollback(cx, kind, service, to, expected, message) }.await;
        }
        let seen = self.ops.get(cx, Kind::Release, service).await?.version;
        let amendment = Amendment {
            kind: Kind::Release,
            name: service,
            expected,
            seen: Some(seen),
            lease: None,
        };
        let change = |doc: &Value, now: Timestamp| {
            let mut doc = read(doc)?;
            let said = self.obey(&mut doc, service, &command, now)?;
            let message = message.filter(|m| !m.is_empty()).unwrap_or(said);
            Ok((
                serde_json::to_value(doc).map_err(portico_db::DbError::from)?,
                message,
            ))
        };
        self.ops.amend(cx, amendment, change).await
    }

    /// Carries out what is due, if the release still is as it was judged.
    pub(super) async fn carry_out(
        &self,
        cx: &Context,
        service: &str,
        judged: &ReleaseDoc,
        order: &Order,
        lease: &Lease,
    ) -> Result<Version, Error> {
        let amendment = Amendment {
            kind: Kind::Release,
            name: service,
            expected: None,
            seen: None,
            lease: Some(lease),
        };
        let change = |doc: &Value, now: Timestamp| {
            let mut doc = read(doc)?;
            if doc != *judged {
                return Err(Refused::Changed.into());
            }
            let said = self.apply(&mut doc, service, order, now)?;
            Ok((
                serde_json::to_value(doc).map_err(portico_db::DbError::from)?,
                said,
            ))
        };
        self.ops.amend(cx, amendment, change).await
    }

    /// What goes on now.
    pub(crate) fn status(&self, service: &str, doc: &Value, now: Timestamp) -> Status {
        match serde_json::from_value::<ReleaseDoc>(doc.clone()) {
            Ok(doc) => status(service, &doc, now, &self.serving, &self.watch),
            // Written by a newer release of ours: the document is shown as it is.
            Err(_) => Status::default(),
        }
    }

    fn obey(
        &self,
        doc: &mut ReleaseDoc,
        service: &str,
        command: &Command,
        now: Timestamp,
    ) -> Result<String, Error> {
        match command {
            Command::Step => doc.step(now)?,
            Command::Pause => {
                doc.pause(now)?;
                return Ok("paused".to_owned());
            }
            Command::Resume => {
                doc.resume(now)?;
                return Ok("resumed".to_owned());
            }
            Command::Promote => return self.promote(doc, service, now),
            Command::Abort => {
                doc.abort(now, None)?;
                return Ok("aborted".to_owned());
            }
            Command::Rollback | Command::Restore { .. } => {
                doc.roll_back(now)?;
                if doc.phase() == Phase::Aborted {
                    return Ok("rolled back: the candidate gets nothing".to_owned());
                }
                let version = doc.stable.clone().unwrap_or_default();
                self.must_answer(service, &version)?;
                return Ok(format!("rolled back to {version}"));
            }
        }
        Ok(stepped(doc))
    }

    fn apply(
        &self,
        doc: &mut ReleaseDoc,
        service: &str,
        order: &Order,
        now: Timestamp,
    ) -> Result<String, Error> {
        match order {
            Order::Step => doc.step(now)?,
            Order::Promote => return self.promote(doc, service, now),
            Order::Wait => {
                doc.wait(now);
                return Ok("the last step is over, `promote` is due".to_owned());
            }
            Order::CloseWindow => {
                doc.close_window();
                return Ok("the rollback window is over".to_owned());
            }
            Order::Stop(guard, numbers) => {
                doc.abort(now, Some((*guard, **numbers)))?;
                return Ok(format!("stopped by the guard {}", guard.as_str()));
            }
        }
        Ok(stepped(doc))
    }

    /// A switch to a version that nobody runs would be none: the others would go on answering.
    fn promote(
        &self,
        doc: &mut ReleaseDoc,
        service: &str,
        now: Timestamp,
    ) -> Result<String, Error> {
        let not = doc.candidate.as_ref().map(|c| c.version.clone());
        doc.promote(now, self.serving.stable(service, not.as_deref()))?;
        let version = doc.stable.clone().unwrap_or_default();
        self.must_answer(service, &version)?;
        Ok(format!("promoted {version}"))
    }

    fn must_answer(&self, service: &str, version: &str) -> Result<(), Error> {
        if self.serving.ready(service, version) == 0 {
            return Err(Refused::NotReady(version.to_owned()).into());
        }
        Ok(())
    }
}

/// A document that is saved as a whole, with the state that follows from it.
pub(crate) fn admitted(
    serving: &Serving,
    service: &str,
    before: Option<&Value>,
    wished: &Value,
    now: Timestamp,
) -> Result<Value, Error> {
    let before = before.map(read).transpose()?;
    let mut wished = read(wished)?;
    wished.state = None;
    let not = wished.candidate.as_ref().map(|c| c.version.clone());
    let stable = serving.stable(service, not.as_deref());
    let doc = machine::admit(before.as_ref(), wished, now, stable);
    Ok(serde_json::to_value(doc).map_err(portico_db::DbError::from)?)
}

/// The events that a change of a release publishes besides that of its object: `(topic, payload)`.
pub(crate) fn events(
    service: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Vec<(&'static str, Value)> {
    let doc = |value: Option<&Value>| value.and_then(|v| read(v).ok()).unwrap_or_default();
    let (before, after) = (doc(before), doc(after));
    let share =
        |doc: &ReleaseDoc| { doc.candidate.as_ref() }.map(|c| (c.version.clone(), c.weight));
    let ended = |version: &str, doc: &ReleaseDoc| {
        let stopped = doc.state.as_ref().and_then(|s| s.stopped.as_ref());
        json!({
            "service": service,
            "version": version,
            "guard": stopped.and_then(|s| s.guard),
            "numbers": stopped.and_then(|s| s.numbers),
        })
    };
    let step = |version: &str, weight: f64| {
        let told = json!({ "service": service, "version": version, "weight": weight });
        ("gateway.release.step", told)
    };
    let (was, is) = (share(&before), share(&after));
    let ended_now = after.phase() == Phase::Aborted && before.phase() != Phase::Aborted;
    let mut told = Vec::new();
    match &is {
        Some((version, _)) if ended_now => {
            told.push(("gateway.release.aborted", ended(version, &after)));
        }
        Some((version, weight)) if is != was && after.phase() != Phase::Aborted => {
            told.push(step(version, *weight))
        }
        _ => {}
    }
    // What is only said now and held before is no switch: then the candidate's share is the news.
    match &after.stable {
        Some(stable) if before.stable != after.stable && told.is_empty() => {
            told.push(step(stable, 100.0 - is.map_or(0.0, |(_, weight)| weight)));
        }
        _ => {}
    }
    told
}

fn stepped(doc: &ReleaseDoc) -> String {
    let weight = doc.candidate.as_ref().map_or(0.0, |c| c.weight);
    format!("step to {weight} %")
}

fn read(doc: &Value) -> Result<ReleaseDoc, Error> {
    use serde::Deserialize as _;
    Ok(ReleaseDoc::deserialize(doc).map_err(portico_db::DbError::from)?)
}
