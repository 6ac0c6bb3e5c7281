//! A unit of work: one transaction with its audit records, events and revocations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use chrono::Duration;
use portico_base::{Context, Timestamp};
use portico_contract::audit::Record;
use portico_db::WriteTx;
use serde::Serialize;
use uuid::Uuid;

use crate::error::Result;
use crate::hub::Core;
use crate::settings::token::ACCESS_TTL_MAX_S;
use crate::store;
use crate::store::revocations::{Kind, Revocation};

/// A revocation of tokens is kept for the longest life that the setting allows, whatever it says now: a life
/// that is shortened and prolonged again brings tokens back that were given out before, and a revocation of
/// the time between must still be known. A minute more for clocks that differ.
const TOKENS: Duration = Duration::seconds(ACCESS_TTL_MAX_S + 60);
/// What tells edges to read a small table again; they do so every half minute in any case.
const NEWS: Duration = Duration::hours(1);

/// An open unit of work. Dropping it undoes everything.
pub(crate) struct Unit {
    pub(crate) core: Arc<Core>,
    pub(crate) cx: Context,
    pub(crate) tx: WriteTx,
    now: Timestamp,
    /// Position of the last revocation of this unit.
    revoked: AtomicU64,
    /// The order that the change is a part of.
    batch: Option<Uuid>,
}

impl Unit {
    /// Opens the transaction.
    pub(crate) async fn begin(core: &Arc<Core>, cx: &Context) -> Result<Self> {
        Self::with(core, cx, core.db.begin().await?)
    }

    /// The same, on the disk before it is answered: for keys, credentials and revocations.
    pub(crate) async fn begin_durable(core: &Arc<Core>, cx: &Context) -> Result<Self> {
        Self::with(core, cx, core.db.begin_durable().await?)
    }

    fn with(core: &Arc<Core>, cx: &Context, tx: WriteTx) -> Result<Self> {
        tx.set_trace(cx.caller.trace_id.as_deref());
        Ok(Self {
            core: Arc::clone(core),
            cx: cx.clone(),
            tx,
            now: cx.now(),
            revoked: AtomicU64::new(0),
            batch: None,
        })
    }

    /// The same unit as a part of an order of many changes, which its audit records name.
    pub(crate) const fn in_batch(mut self, batch: Uuid) -> Self {
        self.batch = Some(batch);
        self
    }

    /// The moment of the change.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Records the change.
    pub(crate) async fn audit(&self, mut record: Record) -> Result<()> {
        record.batch_id = record.batch_id.or(self.batch);
        Ok(self.core.audit.record(&self.tx, &self.cx, record).await?)
    }

    /// Tells others after the commit. `topic` is `identity.noun.past_verb`.
    pub(crate) fn publish<P: Serialize + ?Sized>(
        &self,
        topic: &str,
        key: &str,
        payload: &P,
    ) -> Result<()> {
        Ok(self.tx.publish(topic, key, payload)?)
    }

    /// Writes a revocation; every edge follows within a second of the commit (ID-111).
    pub(crate) async fn revoke(
        &self,
        kind: Kind,
        tenant: Uuid,
        subject: &str,
        min: u32,
        cause: &str,
    ) -> Result<()> {
        let kept = match kind {
            Kind::User | Kind::Tenant | Kind::Global | Kind::Session => TOKENS,
            Kind::ApiKey | Kind::SigningKey | Kind::Roles | Kind::Tenants => NEWS,
        };
        let revocation = Revocation {
            seq: self.tx.next_seq(store::revocations::COUNTER).await?,
            kind,
            tenant,
            subject: subject.to_owned(),
            min,
            cause: cause.to_owned(),
            at: self.now,
            until: self.now + kept,
        };
        store::revocations::insert(&self.tx, &revocation).await?;
        self.revoked.store(revocation.seq, Relaxed);
        self.tx
            .publish(store::revocations::TOPIC, subject, &revocation.seq)?;
        Ok(())
    }

    /// Commits; edges of this process know of revocations before this returns.
    pub(crate) async fn commit(self) -> Result<()> {
        let core = Arc::clone(&self.core);
        let revoked = self.revoked.load(Relaxed);
        self.tx.commit().await?;
        if revoked > 0 {
            core.edge.catch_up_to(revoked).await;
        }
        Ok(())
    }
}
