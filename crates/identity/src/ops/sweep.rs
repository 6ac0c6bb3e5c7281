//! Removes rows whose time is over (`identity.sweep`): sessions, devices, tickets, revocations, history.

use std::sync::Arc;

use chrono::Duration;
use portico_base::Timestamp;

use crate::error::Result;
use crate::hub::Core;
use crate::store;

/// Rows of one transaction, so that logins go on between two.
const CHUNK: u64 = 1_000;
/// More chunks of one kind wait for the next run.
const CHUNKS: usize = 1_000;
/// Ended sessions are shown to administrators for so long.
const SESSIONS: Duration = Duration::days(90);
/// A device that nobody used for so long is forgotten.
const DEVICES: Duration = Duration::days(180);
/// The history of logins.
const HISTORY: Duration = Duration::days(180);

/// A kind of rows that are over.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Expired,
    Ended,
    Unused,
    History,
}

/// Expired sessions are ended; ended ones, unused devices, and what is used or expired go.
pub(crate) async fn sweep(core: &Arc<Core>) -> Result<()> {
    let now = core.clock.now();
    for kind in [Kind::Expired, Kind::Ended, Kind::Unused, Kind::History] {
        for _ in 0..CHUNKS {
            if chunk(core, kind, now).await? < CHUNK {
                break;
            }
        }
    }
    let tx = core.db.begin().await?;
    store::one_time::trim(&tx, now).await?;
    store::revocations::trim(&tx, now).await?;
    tx.commit().await?;
    super::security::sweep(core).await?;
    super::sms::trim(core).await?;
    let live = store::sessions::count_live(core.db.reader(), now).await?;
    core.logins.active(live);
    Ok(())
}

async fn chunk(core: &Core, kind: Kind, now: Timestamp) -> Result<u64> {
    let tx = core.db.begin().await?;
    let done = match kind {
        Kind::Expired => store::sessions::expire(&tx, now, CHUNK).await?,
        Kind::Ended => store::sessions::trim(&tx, now - SESSIONS, CHUNK).await?,
        Kind::Unused => store::devices::trim(&tx, now - DEVICES, CHUNK).await?,
        Kind::History => store::logins::trim(&tx, now - HISTORY, CHUNK).await?,
    };
    tx.commit().await?;
    Ok(done)
}
