//! Signing keys and epochs: prepared ahead, changed by the calendar or by hand, dropped at once when they leaked (ID-92…94).

use std::sync::Arc;

use chrono::Duration;
use portico_base::envelope::MasterKeys;
use portico_base::{Clock, Context, Random, id};
use portico_contract::audit::Record;
use portico_db::sea_orm::ConnectionTrait;
use portico_db::{Db, WriteTx};
use portico_token::SigningKey;
use portico_token::signing::ALGORITHM;
use serde_json::json;
use uuid::Uuid;

use super::need;
use crate::edge::place;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::permissions::{KEYS_READ, KEYS_ROTATE};
use crate::settings::edge::ROTATION_DAYS;
use crate::store;
use crate::store::keys::{KeyState, SigningKeyRow};
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// Everybody who caches our keys has a new one after so long (ID-92); the document may be cached for half of it.
const PUBLISHED: Duration = Duration::minutes(10);
/// Longest life that the setting allows, and a margin: after so long nothing that a key signed is alive.
const LONGEST: Duration = Duration::seconds(86_400 + 60);
/// One change of keys at a time.
const ALONE: &str = "identity.keys";

/// What else ends with the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Clients refresh and go on.
    Survive,
    /// Everybody logs in again.
    End,
}

/// Names the installation and makes its first keys where there are none; of several first starts at once, one does.
pub(crate) async fn prepare(
    db: &Db,
    master: &MasterKeys,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Uuid> {
    if let Some(installation) = named(db.reader()).await? {
        return Ok(installation);
    }
    db.retry(async || {
        let tx = db.begin_durable().await?;
        tx.serialise(ALONE).await?;
        if let Some(installation) = named(&tx).await? {
            return Ok(installation);
        }
        store::keys::name_installation(&tx, id::new_id(clock, random)).await?;
        let rows = store::keys::all(&tx).await?;
        let minter = Minter {
            master,
            random,
            now: clock.now(),
        };
        if active(&rows).is_none() {
            minter.insert(&tx, KeyState::Active).await?;
        }
        if next(&rows).is_none() {
            minter.insert(&tx, KeyState::Next).await?;
        }
        let installation = store::keys::state(&tx).await?.installation;
        tx.commit().await?;
        installation.ok_or_else(|| Error::Internal("the installation has no id".to_owned()))
    })
    .await
}

/// All keys that verify or did lately, newest first.
pub(crate) async fn list(core: &Arc<Core>, cx: &Context) -> Result<Vec<SigningKeyRow>> {
    need(cx, KEYS_READ)?;
    Ok(store::keys::all(core.db.reader()).await?)
}

/// Lets the next key sign now. Tokens of the one before stay good until they end.
pub(crate) async fn rotate(core: &Arc<Core>, cx: &Context) -> Result<Vec<SigningKeyRow>> {
    need(cx, KEYS_ROTATE)?;
    let rows = core
        .db
        .retry(async || {
            let unit = begin(core, cx).await?;
            advance(&unit, &store::keys::all(&unit.tx).await?).await?;
            finish(unit).await
        })
        .await?;
    Ok(rows)
}

/// Drops every key and raises the epoch, in one transaction: no token that is out opens anything afterwards,
/// whoever signed it (ID-93).
pub(crate) async fn emergency(
    core: &Arc<Core>,
    cx: &Context,
    sessions: Sessions,
    why: Option<&str>,
) -> Result<Vec<SigningKeyRow>> {
    need(cx, KEYS_ROTATE)?;
    let rows = core
        .db
        .retry(async || {
            let unit = begin(core, cx).await?;
            let (now, mut kids) = (unit.now(), Vec::new());
            for row in store::keys::all(&unit.tx).await? {
                if row.state != KeyState::Dropped {
                    store::keys::end(&unit.tx, &row.kid, KeyState::Dropped, now).await?;
                    kids.push(row.kid);
                }
            }
            let minter = Minter::of(&unit);
            let kid = minter.insert(&unit.tx, KeyState::Active).await?;
            minter.insert(&unit.tx, KeyState::Next).await?;
            raise(&unit, "emergency", sessions).await?;
            unit.revoke(Kind::SigningKey, id::TENANT_SYSTEM, &kid, 0, "emergency")
                .await?;
            let record = Record {
                reason: why.map(str::to_owned),
                ..Record::done(
                    "identity.key.dropped",
                    "signing_key",
                    &*kid,
                    id::TENANT_SYSTEM,
                )
                .change("dropped", Some(json!(kids)), None)
                .change("active", None, Some(json!(kid)))
            };
            unit.audit(record).await?;
            let news = json!({ "kid": kid, "emergency": true });
            unit.publish("identity.key.rotated", &kid, &news)?;
            finish(unit).await
        })
        .await?;
    Ok(rows)
}

/// Logs the whole installation out: the epoch rises and every session ends (ID-94).
pub(crate) async fn raise_epoch(core: &Arc<Core>, cx: &Context, why: Option<&str>) -> Result<u32> {
    need(cx, KEYS_ROTATE)?;
    core.db
        .retry(async || {
            let unit = begin(core, cx).await?;
            let ge = raise(&unit, "epoch_raised", Sessions::End).await?;
            let record = Record {
                reason: why.map(str::to_owned),
                ..Record::done(
                    "identity.epoch.raised",
                    "installation",
                    "ge",
                    id::TENANT_SYSTEM,
                )
                .change("ge", Some(json!(ge - 1)), Some(json!(ge)))
            };
            unit.audit(record).await?;
            unit.commit().await?;
            Ok(ge)
        })
        .await
}

/// What the calendar asks for: a next key that is published in time, another active one when the old one has
/// signed for long enough, and no keys that nothing needs any more. Does nothing most of the time.
pub(crate) async fn keep(core: &Arc<Core>) -> Result<()> {
    let cx = core.own_context("identity.keys.rotate");
    let age = Duration::days(i64::from(core.settings.system(&ROTATION_DAYS)));
    let now = cx.now();
    let due = |rows: &[SigningKeyRow]| {
        let old = active(rows).is_none_or(|k| k.activated_at.is_none_or(|at| at + age <= now));
        old && next(rows).is_some_and(|k| k.not_before <= now)
    };
    let over = |k: &SigningKeyRow| k.retired_at.is_some_and(|at| at + LONGEST <= now);
    let rows = store::keys::all(core.db.reader()).await?;
    if !due(&rows) && next(&rows).is_some() && !rows.iter().any(over) {
        return Ok(());
    }
    core.db
        .retry(async || {
            let unit = begin(core, &cx).await?;
            let rows = store::keys::all(&unit.tx).await?;
            if next(&rows).is_none() {
                let kid = Minter::of(&unit).insert(&unit.tx, KeyState::Next).await?;
                tell(&unit, &kid, "prepared").await?;
            } else if due(&rows) {
                advance(&unit, &rows).await?;
            }
            if store::keys::trim(&unit.tx, unit.now() - LONGEST).await? > 0 {
                tell(&unit, "retired", "deleted").await?;
            }
            finish(unit).await
        })
        .await?;
    Ok(())
}

async fn begin(core: &Arc<Core>, cx: &Context) -> Result<Unit> {
    let unit = Unit::begin_durable(core, cx).await?;
    unit.tx.serialise(ALONE).await?;
    Ok(unit)
}

async fn finish(unit: Unit) -> Result<Vec<SigningKeyRow>> {
    let rows = store::keys::all(&unit.tx).await?;
    unit.commit().await?;
    Ok(rows)
}

/// The next key signs from now on, and another one is published.
async fn advance(unit: &Unit, rows: &[SigningKeyRow]) -> Result<()> {
    let now = unit.now();
    let next = next(rows).ok_or(reason::KEY_CONFLICT)?;
    if next.not_before > now {
        let wait = (next.not_before - now).num_seconds() + 1;
        let wait = u32::try_from(wait).unwrap_or(u32::MAX);
        return Err(Error::Later(reason::KEY_CONFLICT, wait));
    }
    let before = active(rows).map(|k| k.kid.clone());
    if let Some(kid) = &before {
        store::keys::end(&unit.tx, kid, KeyState::Retired, now).await?;
    }
    store::keys::activate(&unit.tx, &next.kid, now).await?;
    Minter::of(unit).insert(&unit.tx, KeyState::Next).await?;
    tell(unit, &next.kid, "rotated").await?;
    let record = Record::done(
        "identity.key.rotated",
        "signing_key",
        &*next.kid,
        id::TENANT_SYSTEM,
    )
    .change("active", before.map(|k| json!(k)), Some(json!(next.kid)));
    unit.audit(record).await?;
    let news = json!({ "kid": next.kid, "emergency": false });
    unit.publish("identity.key.rotated", &next.kid, &news)
}

/// Edges read the keys again.
async fn tell(unit: &Unit, kid: &str, cause: &str) -> Result<()> {
    unit.revoke(Kind::SigningKey, id::TENANT_SYSTEM, kid, 0, cause)
        .await
}

async fn raise(unit: &Unit, cause: &'static str, sessions: Sessions) -> Result<u32> {
    // Rows first: the log is everybody's and comes last.
    if sessions == Sessions::End {
        store::sessions::end_everywhere(&unit.tx, None, cause, unit.now()).await?;
    }
    let ge = store::keys::raise_epoch(&unit.tx).await?;
    unit.revoke(Kind::Global, id::TENANT_SYSTEM, "ge", ge, cause)
        .await?;
    Ok(ge)
}

/// The installation's id, once it has one and an active key.
async fn named(conn: &impl ConnectionTrait) -> Result<Option<Uuid>> {
    let state = store::keys::state(conn).await?;
    let rows = store::keys::all(conn).await?;
    Ok(state.installation.filter(|_| active(&rows).is_some()))
}

fn active(rows: &[SigningKeyRow]) -> Option<&SigningKeyRow> {
    rows.iter().find(|row| row.state == KeyState::Active)
}

fn next(rows: &[SigningKeyRow]) -> Option<&SigningKeyRow> {
    rows.iter().find(|row| row.state == KeyState::Next)
}

/// Makes keys whose private half is readable with the master key only.
struct Minter<'a> {
    master: &'a MasterKeys,
    random: &'a dyn Random,
    now: portico_base::Timestamp,
}

impl<'a> Minter<'a> {
    fn of(unit: &'a Unit) -> Self {
        Self {
            master: &unit.core.keys,
            random: &*unit.core.random,
            now: unit.now(),
        }
    }

    async fn insert(&self, tx: &WriteTx, state: KeyState) -> Result<String> {
        let (key, seed) =
            SigningKey::generate(self.random).map_err(|e| Error::Internal(e.to_string()))?;
        let kid = key.kid().to_string();
        let signs = state == KeyState::Active;
        let row = SigningKeyRow {
            private: self.master.seal(place(&kid), seed.expose(), self.random),
            alg: ALGORITHM.to_owned(),
            public_jwk: key.public_jwk(),
            state,
            not_before: if signs {
                self.now
            } else {
                self.now + PUBLISHED
            },
            activated_at: signs.then_some(self.now),
            retired_at: None,
            created_at: self.now,
            kid: kid.clone(),
        };
        store::keys::insert(tx, &row).await?;
        Ok(kid)
    }
}
