//! The sealer: one process appends links for what was recorded, so that writers never wait for each other
//! at the head of the chain (CT-34).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use portico_base::Timestamp;
use portico_contract::audit::{BROKEN, RECORDED};
use portico_db::{Held, Lease};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::chain::Head;
use crate::domain::record::record_hash;
use crate::error::Result;
use crate::hub::Core;
use crate::settings::{CHECKPOINT_EVERY, CHECKPOINT_MAX_S};
use crate::store;
use crate::store::chain::NewLink;

/// Links of one transaction.
const BATCH: u64 = 500;
/// After a commit it waits so long, so that it seals many at a time.
const GATHER: Duration = Duration::from_millis(200);
/// Commits of other processes are not heard of.
const POLL: Duration = Duration::from_millis(800);
/// Actions that are remembered as noted already.
const MOST_ACTIONS: usize = 10_000;

/// The sealer while it holds the lease.
pub(crate) struct Sealer {
    core: Arc<Core>,
    lease: Option<Lease>,
    /// Where the chain ended when this sealer last looked: nobody else moves it.
    head: Option<Head>,
    /// Number and moment of the last checkpoint.
    checkpoint: Option<(u64, Timestamp)>,
    known: HashSet<(Uuid, String)>,
}

/// Seals until told to stop, while this process holds the lease.
pub(crate) async fn run(core: Arc<Core>, holder: Arc<str>, stop: CancellationToken) {
    let leases = core.db.leases();
    let work = |held: Held| {
        let core = Arc::clone(&core);
        async move {
            let mut sealer = Sealer::new(&core, Some(held.lease));
            while !held.cancel.is_cancelled() {
                if let Err(error) = sealer.work().await {
                    tracing::warn!(err = %portico_web::problem::chain(&error), "audit records could not be sealed");
                }
                tokio::select! {
                    () = held.cancel.cancelled() => {}
                    () = core.committed.notified() => tokio::time::sleep(GATHER).await,
                    () = tokio::time::sleep(POLL) => {}
                }
            }
        }
    };
    // A lost lease ends the work; then it is waited for again.
    leases.hold("audit.seal", &holder, &stop, work).await;
}

impl Sealer {
    pub(crate) fn new(core: &Arc<Core>, lease: Option<Lease>) -> Self {
        Self {
            core: Arc::clone(core),
            lease,
            head: None,
            checkpoint: None,
            known: HashSet::new(),
        }
    }

    /// Seals everything that waits, and signs when it is time.
    pub(crate) async fn work(&mut self) -> Result<()> {
        while self.batch().await? == BATCH {}
        self.sign_when_due().await?;
        let pending = store::records::count_waiting(self.core.db.reader()).await?;
        let oldest = if pending == 0 {
            None
        } else {
            store::records::oldest_waiting(self.core.db.reader()).await?
        };
        self.core.metrics.waiting(pending, oldest);
        Ok(())
    }

    /// Seals the next records; gives their number.
    async fn batch(&mut self) -> Result<u64> {
        let core = Arc::clone(&self.core);
        // Read before the transaction: only the sealer takes from those that wait, and on SQLite a
        // transaction keeps all other writers out.
        let waiting = store::records::waiting(core.db.reader(), BATCH).await?;
        if waiting.is_empty() {
            return Ok(0);
        }
        let hashes: Vec<_> = { waiting.iter() }
            .map(|record| (record.id, record_hash(&record.public)))
            .collect();
        let new: Vec<_> = { waiting.into_iter() }
            .map(|record| (record.tenant, record.action))
            .filter(|action| !self.known.contains(action))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let tx = core.db.begin().await?;
        if let Some(lease) = &self.lease {
            tx.fence(lease).await?;
        }
        let mut head = head(&tx, core.installation).await?;
        self.compare(&tx, &head)?;
        let links: Vec<NewLink> = { hashes.iter() }
            .map(|(record, hash)| {
                head = head.next(hash);
                NewLink {
                    seq: head.seq,
                    record: *record,
                    record_hash: *hash,
                    link: head.link,
                }
            })
            .collect();
        store::chain::append(&tx, &links).await?;
        store::actions::note(&tx, &new).await?;
        tx.publish(RECORDED, "chain", &head.seq)?;
        tx.commit().await?;
        self.head = Some(head);
        if self.known.len() + new.len() > MOST_ACTIONS {
            self.known.clear();
        }
        self.known.extend(new);
        Ok(links.len() as u64)
    }

    /// The end of the chain must be where this sealer left it. It goes on all the same: what comes now is
    /// to be sealed, and what is missing stays missing.
    fn compare(&self, tx: &portico_db::WriteTx, found: &Head) -> Result<()> {
        let Some(left) = self.head.filter(|left| left != found) else {
            return Ok(());
        };
        self.core.metrics.failures.inc();
        tracing::error!(
            left = left.seq,
            found = found.seq,
            "the end of the audit chain is not the one that was sealed"
        );
        let told = serde_json::json!({ "left": left.seq, "found": found.seq });
        tx.publish(BROKEN, "chain", &told)?;
        Ok(())
    }

    async fn sign_when_due(&mut self) -> Result<()> {
        let core = &self.core;
        let Some(head) = self.head else {
            let tx = core.db.reader();
            self.head = Some(head(tx, core.installation).await?);
            return Ok(());
        };
        let last = match self.checkpoint {
            Some(last) => last,
            None => match store::chain::last_checkpoint(core.db.reader(), None).await? {
                Some(last) => (last.seq, last.at),
                None => (0, Timestamp::UNIX_EPOCH),
            },
        };
        self.checkpoint = Some(last);
        let every = core.settings.system(&CHECKPOINT_EVERY);
        let longest = core.settings.system(&CHECKPOINT_MAX_S);
        let now = core.clock.now();
        let new = head.seq.saturating_sub(last.0);
        let waited = (now - last.1).num_seconds() >= i64::try_from(longest).unwrap_or(i64::MAX);
        if new >= every || new > 0 && waited {
            let tx = core.db.begin_durable().await?;
            if let Some(lease) = &self.lease {
                tx.fence(lease).await?;
            }
            super::checkpoints::sign(core, &tx, now).await?;
            tx.commit().await?;
            self.checkpoint = Some((head.seq, now));
        }
        Ok(())
    }
}

/// Where the chain ends: at its last link, or where its removed beginning ended, or before the first.
pub(crate) async fn head(
    conn: &impl portico_db::sea_orm::ConnectionTrait,
    installation: Uuid,
) -> Result<Head> {
    if let Some(head) = store::chain::last(conn).await? {
        return Ok(head);
    }
    let kept = store::chain::last_checkpoint(conn, None).await?;
    Ok(kept
        .and_then(|checkpoint| checkpoint.head())
        .unwrap_or_else(|| Head::genesis(installation)))
}
