//! Mail: queued with the change that it tells of, sent by a job, tried again, given up in the end.
//!
//! A letter in the queue is sealed with the master key, because it holds an address and often a link that
//! works like a password.

pub(crate) mod smtp;
pub(crate) mod templates;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portico_base::envelope::Place;
use portico_contract::settings::Key;
use portico_jobs::{Failure, Handler, Job, JobRun};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::hub::Core;
use crate::settings;
use crate::unit::Unit;

/// Kind of the job that sends a letter.
pub(crate) const KIND: &str = "identity.mail";

/// With waits from 30 s, doubled up to 2 h, the last try is about a day after the first.
const TRIES: u32 = 18;
/// Longest display name in a mail, in characters.
const NAME_LENGTH: usize = 32;

/// What goes to whom: a template and what is filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub to: String,
    /// Display name, already cut.
    pub name: String,
    pub locale: String,
    pub template: String,
    pub values: BTreeMap<String, String>,
}

/// A letter in the queue.
#[derive(Debug, Serialize, Deserialize)]
struct Queued {
    /// Row of the envelope's place.
    row: Uuid,
    sealed: String,
}

impl Core {
    /// Mail can be sent: there is a server and a sender (ID-143).
    pub(crate) fn mail_on(&self, tenant: Uuid) -> bool {
        let is_set = |key: &Key<String>| !self.settings.get(tenant, key).is_empty();
        is_set(&settings::mail::HOST) && is_set(&settings::mail::FROM)
    }
}

/// Queues a letter with a unit of work.
pub(crate) async fn queue(unit: &Unit, tenant: Uuid, letter: &Letter) -> Result<()> {
    let plain = serde_json::to_vec(letter).map_err(|e| Error::Internal(e.to_string()))?;
    let row = unit.cx.new_id();
    let queued = Queued {
        row,
        sealed: unit
            .core
            .keys
            .seal(place(&row.to_string()), &plain, &*unit.core.random),
    };
    let job = Job::new(KIND, &queued)?.tenant(tenant).max_tries(TRIES);
    portico_jobs::enqueue(&unit.tx, &unit.cx, job).await?;
    Ok(())
}

/// What sends the letters of the queue.
pub(crate) fn handler(core: &Arc<Core>) -> Handler {
    let core = Arc::clone(core);
    Handler::new(KIND, move |job| {
        let core = Arc::clone(&core);
        async move { send(&core, &job).await }
    })
    .at_once(2)
    .limit(Duration::from_secs(90))
    .backoff(Duration::from_secs(30), Duration::from_secs(7_200))
}

async fn send(core: &Core, job: &JobRun) -> std::result::Result<(), Failure> {
    let queued: Queued = job.payload()?;
    let plain = core
        .keys
        .open(place(&queued.row.to_string()), &queued.sealed)
        .map_err(Failure::dead)?;
    let letter: Letter = serde_json::from_slice(plain.expose()).map_err(Failure::dead)?;
    let tenant = job.tenant().unwrap_or(portico_base::id::TENANT_DEFAULT);
    let mail = templates::render(&core.settings, tenant, &letter);
    let server = smtp::Server::of(&core.settings).ok_or("mail is switched off")?;
    match server.send(&letter.to, &mail, &job.id().to_string()).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_final() => Err(Failure::dead(error)),
        Err(error) => Err(error.into()),
    }
}

/// A display name as it may stand in a mail: no longer than 32 characters, and with nothing in it that a
/// mail program makes a link of (§11).
pub(crate) fn plain_name(name: &str) -> String {
    let kept: String = name
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '\'' | '-' | '·'))
        .collect();
    let words: Vec<&str> = kept.split(' ').filter(|word| !word.is_empty()).collect();
    let cut: String = words.join(" ").chars().take(NAME_LENGTH).collect();
    cut.trim_end().to_owned()
}

const fn place(row: &str) -> Place<'_> {
    Place {
        table: "jobs",
        row,
        column: "payload",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_links_and_end() {
        assert_eq!(plain_name("  Anna-Maria  O'Neil "), "Anna-Maria O'Neil");
        assert_eq!(plain_name("张伟"), "张伟");
        assert_eq!(
            plain_name("see https://evil.example/x?y"),
            "see httpsevilexamplexy"
        );
        assert_eq!(plain_name("win@evil．com。cn"), "winevilcomcn");
        assert_eq!(plain_name("a\u{202e}b\r\nBcc: x"), "ab Bcc x");
        assert_eq!(plain_name(&"ö".repeat(99)).chars().count(), 32);
    }
}
