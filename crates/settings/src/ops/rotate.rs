//! Sealing all secrets of the installation with the current master key, while everything runs (CT-21).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Access, Context};
use portico_contract::audit::Record;
use portico_contract::sealed::{SealedError, SealedRows, Step};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::scope::need;
use crate::domain::secret;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::permissions::{KEYS_READ, KEYS_ROTATE};
use crate::store::sealed::{self, Table};

/// Rows of one transaction.
const ROWS: u64 = 100;
/// Rows of one request; whoever rotates asks again until nothing is left.
const MOST_ROWS: u64 = 2_000;

/// Which master keys seal what.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MasterKeyUse)]
pub(crate) struct Status {
    /// Id of the key that seals now.
    pub current: String,
    /// Ids of all keys that this process has.
    pub known: Vec<String>,
    /// Envelopes by key id, over all tables. A previous key whose count is 0 can be removed.
    pub totals: BTreeMap<String, u64>,
    /// The same by table.
    pub tables: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

/// What one step of a rotation did.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = MasterKeyRotation)]
pub(crate) struct Progress {
    /// Rows sealed anew with this request.
    pub done: u64,
    /// Rows that no key of this process opens.
    pub broken: u64,
    /// Envelopes that are still sealed with another key, those included.
    pub left: u64,
    /// Where to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Counts envelopes.
pub(crate) async fn status(core: &Core, cx: &Context) -> Result<Status> {
    need(cx, &KEYS_READ)?;
    count(core).await
}

async fn count(core: &Core) -> Result<Status> {
    let mut out = Status {
        current: core.keys.current().to_owned(),
        known: core.keys.ids().map(str::to_owned).collect(),
        totals: BTreeMap::new(),
        tables: BTreeMap::new(),
    };
    for part in core.sealed.all() {
        let counts = part.count().await?;
        for (kid, n) in &counts {
            *out.totals.entry(kid.clone()).or_default() += n;
        }
        out.tables.insert(part.name(), counts);
    }
    Ok(out)
}

/// Seals rows anew, at most some thousand, behind where the last request ended. It may be broken off at any
/// row: what is done stays done, and the next run begins with what is left.
pub(crate) async fn rotate(core: &Core, cx: &Context, after: Option<&str>) -> Result<Progress> {
    cx.authorise(&Access::Permission(KEYS_ROTATE).aal2_fresh())?;
    let parts = core.sealed.all();
    let (mut at, mut inner) = begin(&parts, after)?;
    let mut progress = Progress::default();
    let mut left = MOST_ROWS;
    while left > 0
        && let Some(part) = parts.get(at)
    {
        let step = part.reseal(inner.as_deref(), ROWS.min(left)).await?;
        progress.done += step.done;
        progress.broken += step.broken;
        left = left.saturating_sub((step.done + step.broken).max(1));
        if step.next.is_none() {
            at += 1;
        }
        inner = step.next;
    }
    progress.next = parts
        .get(at)
        .map(|part| format!("{}|{}", part.name(), inner.unwrap_or_default()));
    record(core, cx, &progress).await?;
    let counted = count(core).await?;
    progress.left = counted
        .totals
        .iter()
        .filter(|(kid, _)| **kid != counted.current)
        .map(|(_, n)| n)
        .sum();
    Ok(progress)
}

fn begin(parts: &[Arc<dyn SealedRows>], after: Option<&str>) -> Result<(usize, Option<String>)> {
    let Some(after) = after else {
        return Ok((0, None));
    };
    let (name, inner) = after.split_once('|').unwrap_or((after, ""));
    let at = parts
        .iter()
        .position(|part| part.name() == name)
        .ok_or_else(|| Error::field("after", "invalid", "is not what the last answer gave"))?;
    Ok((at, Some(inner.to_owned()).filter(|i| !i.is_empty())))
}

async fn record(core: &Core, cx: &Context, progress: &Progress) -> Result<()> {
    let tx = core.db.begin().await?;
    let record = Record::done(
        "settings.secrets.resealed",
        "master_key",
        core.keys.current(),
        portico_base::id::TENANT_SYSTEM,
    )
    .change("rows", None, Some(progress.done.into()));
    core.audit.record(&tx, cx, record).await?;
    tx.commit().await?;
    Ok(())
}

/// Our own envelopes.
pub(crate) struct Own {
    pub core: Arc<Core>,
    pub table: Table,
}

impl SealedRows for Own {
    fn name(&self) -> &'static str {
        match self.table {
            Table::Values => "settings.values",
            Table::History => "settings.history",
        }
    }

    fn count(&self) -> BoxFuture<'_, std::result::Result<BTreeMap<String, u64>, SealedError>> {
        Box::pin(async move {
            sealed::count(self.core.db.reader(), self.table)
                .await
                .map_err(|error| SealedError(Box::new(error)))
        })
    }

    fn reseal<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: u64,
    ) -> BoxFuture<'a, std::result::Result<Step, SealedError>> {
        Box::pin(async move {
            let step = self.core.db.retry(|| self.step(after, limit)).await;
            step.map_err(|error| SealedError(Box::new(error)))
        })
    }
}

impl Own {
    async fn step(&self, after: Option<&str>, limit: u64) -> Result<Step> {
        let core = &self.core;
        let at = after.and_then(place);
        let tx = core.db.begin_durable().await?;
        let current = core.keys.current();
        let rows = sealed::others(&tx, self.table, current, at.as_ref(), limit).await?;
        let mut step = Step::default();
        for row in &rows {
            let place = match self.table {
                Table::Values => secret::Row::Value(row.scope, &row.key),
                Table::History => secret::Row::History(row.scope, &row.key, row.version),
            };
            let Ok(value) = secret::open(&core.keys, place, &row.sealed) else {
                step.broken += 1;
                continue;
            };
            let new = secret::seal(&core.keys, place, &value, &*core.random);
            step.done += u64::from(sealed::replace(&tx, self.table, row, &new).await?);
        }
        tx.commit().await?;
        if rows.len() as u64 == limit {
            step.next = rows
                .last()
                .map(|row| format!("{}/{}/{}", row.scope, row.version, row.key));
        }
        Ok(step)
    }
}

/// The place that a step ended at, as it was written above.
fn place(text: &str) -> Option<(Uuid, String, u64)> {
    let mut parts = text.splitn(3, '/');
    let scope = Uuid::parse_str(parts.next()?).ok()?;
    let version = parts.next()?.parse().ok()?;
    Some((scope, parts.next()?.to_owned(), version))
}
