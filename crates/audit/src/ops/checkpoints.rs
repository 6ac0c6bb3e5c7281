//! Checkpoints: signed points of the chain (CT-35).

use std::sync::Arc;

use portico_base::{Access, Context, Timestamp, id};
use portico_contract::audit::Record;
use portico_db::WriteTx;

use super::{seal, write};
use crate::domain::checkpoint::Checkpoint;
use crate::domain::record::Entry;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::permissions::VERIFY;
use crate::store;

/// Signs the end of the chain; gives the checkpoint that is there already when nothing was added since.
pub(crate) async fn sign(core: &Core, tx: &WriteTx, now: Timestamp) -> Result<Checkpoint> {
    // Two at a moment would both count from the same one before.
    tx.serialise("portico/audit/checkpoint").await?;
    let head = seal::head(tx, core.installation).await?;
    if head.seq == 0 {
        return Err(Error::NothingSealed);
    }
    let before = store::chain::last_checkpoint(tx, None).await?;
    if let Some(there) = before.as_ref().filter(|c| c.seq >= head.seq) {
        return Ok(there.clone());
    }
    let count = head.seq - before.map_or(0, |c| c.seq);
    let checkpoint = core.signer.sign(core.installation, &head, count, now);
    store::chain::add_checkpoint(tx, &checkpoint).await?;
    Ok(checkpoint)
}

/// Signs at somebody's wish.
pub(crate) async fn make(core: &Arc<Core>, cx: &Context) -> Result<Checkpoint> {
    cx.authorise(&Access::Permission(VERIFY))?;
    let tx = core.db.begin_durable().await?;
    let checkpoint = sign(core, &tx, cx.now()).await?;
    let record = Record::done(
        "audit.checkpoint.created",
        "checkpoint",
        checkpoint.seq.to_string(),
        id::TENANT_SYSTEM,
    )
    .change("link", None, Some(hex::encode(&checkpoint.link).into()));
    write::write(core, &tx, Entry::new(cx, record)).await?;
    tx.commit().await?;
    Ok(checkpoint)
}

/// Checkpoints, newest first, below `before`.
pub(crate) async fn list(
    core: &Core,
    cx: &Context,
    before: Option<u64>,
    limit: u64,
) -> Result<Vec<Checkpoint>> {
    cx.authorise(&Access::Permission(VERIFY))?;
    Ok(store::chain::checkpoint_page(core.db.reader(), before, limit).await?)
}
