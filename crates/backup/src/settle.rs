//! Makes restored rows of the platform fit to be lived with, as every service does with its own (BK-4).

use portico_base::Timestamp;
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use portico_db::{DbError, JUMP, RESTORE_PENDING, WriteTx};

const COUNTERS: &str = "seq_counters";
const OUTBOX: &str = "outbox";
const TRIMMED: &str = "outbox.trimmed";

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Position of the outbox from now on.
    pub(crate) outbox: i64,
    /// Leases that were ended.
    pub(crate) leases: u64,
    /// Counters that jumped.
    pub(crate) counters: u64,
}

/// Nobody is there any more, no lease holds, and every counter is beyond whatever it gave out after the
/// backup was made. Followers begin anew, because the outbox says that everything was removed up to its
/// head. The mark of an unfinished restore goes with it.
pub(crate) async fn settle(tx: &WriteTx, now: Timestamp) -> Result<Settled, DbError> {
    let mut gone = Query::delete();
    gone.from_table("replicas");
    tx.execute(&gone).await?;
    let mut leases = Query::update();
    leases
        .table("leases")
        .value("expires_at", now)
        .value("fencing", Expr::col("fencing").add(JUMP));
    let leases = tx.execute(&leases).await?.rows_affected();
    let mut finished = Query::delete();
    finished
        .from_table(COUNTERS)
        .and_where(Expr::col("name").eq(RESTORE_PENDING));
    tx.execute(&finished).await?;
    // The outbox is used from now on, even where it was not before.
    let before = tx.next_seq(OUTBOX).await?;
    let mut jump = Query::update();
    jump.table(COUNTERS)
        .value("value", Expr::col("value").add(JUMP))
        .and_where(Expr::col("name").ne(TRIMMED));
    let counters = tx.execute(&jump).await?.rows_affected();
    let outbox = i64::try_from(before).unwrap_or(i64::MAX - JUMP) + JUMP;
    let mut trimmed = Query::insert();
    trimmed
        .into_table(COUNTERS)
        .columns(["name", "value"])
        .values_panic([TRIMMED.into(), outbox.into()])
        .on_conflict(OnConflict::column("name").update_column("value").to_owned());
    tx.execute(&trimmed).await?;
    Ok(Settled {
        outbox,
        leases,
        counters,
    })
}
