//! Rolling back: a key to a version, a change set, or a scope to a moment (CT-8). A rollback is a change like
//! any other: a new version, by today's rules.

use std::sync::Arc;

use portico_base::{Context, FieldFault, Timestamp};
use portico_db::sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::change::{Done, change};
use super::plan::{MOST_KEYS, Wish, Wished};
use super::scope::need;
use crate::error::{Error, Result, unknown};
use crate::hub::Core;
use crate::live;
use crate::permissions::VALUE_WRITE;
use crate::store;
use crate::store::history::Version;

/// How a rollback is wished for, beside what comes back.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    pub scope: Uuid,
    pub comment: Option<String>,
    pub confirm: bool,
    pub dry_run: bool,
    /// Later changes up to this position are known, and are taken back as well.
    pub base_seq: Option<u64>,
}

impl How {
    fn wish(&self, changes: Vec<Wished>) -> Wish {
        Wish {
            scope: self.scope,
            changes,
            comment: self.comment.clone(),
            base_seq: self.base_seq,
            confirm: self.confirm,
            dry_run: self.dry_run,
            reverts: None,
        }
    }
}

const UNKNOWN_VERSION: Error = Error::NotFound(
    "settings.version_not_found",
    "there is no such version of this setting",
);
const UNKNOWN_SET: Error =
    Error::NotFound("settings.change_not_found", "there is no such change set");

/// Brings a version of a key back.
pub(crate) async fn key(
    core: &Arc<Core>,
    cx: &Context,
    how: &How,
    key: &str,
    version: u64,
    base: Option<u64>,
) -> Result<Done> {
    need(cx, &VALUE_WRITE)?;
    let reader = core.db.reader();
    let found = store::history::get(reader, &core.keys, how.scope, key, version).await?;
    let known = core.catalogue.get(key, how.scope).is_some();
    let Some(found) = found else {
        return Err(if known {
            UNKNOWN_VERSION
        } else {
            Error::unknown(key)
        });
    };
    let base = match (base, how.base_seq) {
        (None, None) => Some(present(core, how.scope, key).await?),
        (base, _) => base,
    };
    let back = wished(&found, base)?;
    possible(change(core, cx, &how.wish(vec![back])).await)
}

/// Takes a change set back: every key gets the value that it had before. A key that was changed again since
/// is a conflict, unless the position says that this is known.
pub(crate) async fn set(core: &Arc<Core>, cx: &Context, how: &How, id: Uuid) -> Result<Done> {
    need(cx, &VALUE_WRITE)?;
    let reader = core.db.reader();
    let found = store::sets::get(reader, how.scope, id).await?;
    let Some(found) = found else {
        return Err(UNKNOWN_SET);
    };
    let versions = store::history::of_set(reader, &core.keys, how.scope, id).await?;
    let mut changes = Vec::new();
    for one in &versions {
        let base = if how.base_seq.is_some() {
            None
        } else {
            Some(one.version)
        };
        changes.push(before(core, reader, one, base).await?);
    }
    let wish = Wish {
        reverts: Some(found.id),
        ..how.wish(changes)
    };
    possible(change(core, cx, &wish).await)
}

/// To which moment a scope goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    At(Timestamp),
    Seq(u64),
}

/// Brings all values of a scope back to a moment.
pub(crate) async fn moment(
    core: &Arc<Core>,
    cx: &Context,
    how: &How,
    moment: Moment,
) -> Result<Done> {
    need(cx, &VALUE_WRITE)?;
    let reader = core.db.reader();
    let seq = match moment {
        Moment::Seq(seq) => seq,
        Moment::At(at) => store::sets::position_at(reader, at).await?,
    };
    let keys = store::history::changed_since(reader, how.scope, seq).await?;
    if keys.len() > MOST_KEYS {
        let message = format!(
            "{} keys changed since, {MOST_KEYS} can go back at once",
            keys.len()
        );
        return Err(Error::field("at", "range", message));
    }
    let mut changes = Vec::new();
    for key in &keys {
        let place = (how.scope, key.as_str());
        let base = match how.base_seq {
            Some(_) => None,
            None => Some(present(core, how.scope, key).await?),
        };
        let then = store::history::at_position(reader, &core.keys, place, seq).await?;
        changes.push(match then {
            Some(version) => wished(&version, base)?,
            None => Wished {
                key: key.clone(),
                to: None,
                base,
                rolled_back_from: Some(0),
            },
        });
    }
    if changes.is_empty() {
        return Ok(Done {
            id: None,
            seq: core.live.state().seq,
            changed: Vec::new(),
            dry_run: how.dry_run,
        });
    }
    possible(change(core, cx, &how.wish(changes)).await)
}

/// The present version of a key, other replicas' changes included.
async fn present(core: &Core, scope: Uuid, key: &str) -> Result<u64> {
    live::catch_up(core).await?;
    Ok(core.live.state().version(scope, key))
}

/// The value of a key before a version.
async fn before(
    core: &Core,
    conn: &impl ConnectionTrait,
    version: &Version,
    base: Option<u64>,
) -> Result<Wished> {
    let earlier = version.version - 1;
    let (scope, key) = (version.scope, version.key.as_str());
    match store::history::get(conn, &core.keys, scope, key, earlier).await? {
        Some(found) => wished(&found, base),
        None => Ok(Wished {
            key: version.key.clone(),
            to: None,
            base,
            rolled_back_from: Some(0),
        }),
    }
}

fn wished(version: &Version, base: Option<u64>) -> Result<Wished> {
    if version.sealed && version.value.is_none() {
        let message = "the secret was sealed with a master key that is not here any more";
        let fault = FieldFault::new(version.key.as_str(), "unreadable", message);
        return Err(Error::NotPossible(vec![fault]));
    }
    Ok(Wished {
        key: version.key.clone(),
        to: version.value.as_deref().cloned(),
        base,
        rolled_back_from: Some(version.version),
    })
}

/// What is wrong with a value that was right once is told as such.
fn possible(done: Result<Done>) -> Result<Done> {
    let told = |faults: Vec<FieldFault>| {
        let gone = |f: FieldFault| {
            if f.code == unknown(&f.field).code {
                FieldFault::new(f.field, &f.code, "the key no longer exists")
            } else {
                f
            }
        };
        faults.into_iter().map(gone).collect()
    };
    match done {
        // What the caller left out is the caller's own fault.
        Err(Error::Invalid(faults)) if faults.iter().any(|f| is_form(&f.code)) => {
            Err(Error::Invalid(faults))
        }
        Err(Error::Invalid(faults) | Error::UnknownKey(faults)) => {
            Err(Error::NotPossible(told(faults)))
        }
        other => other,
    }
}

fn is_form(code: &str) -> bool {
    matches!(code, "confirm" | "range" | "version_missing")
}
