//! Removal of what ended long ago: jobs with their attempts, and runs of schedules.

use chrono::Duration;
use portico_base::Timestamp;
use portico_contract::settings::Settings;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use portico_db::{Db, DbError};
use uuid::Uuid;

use super::job::JobRun;
use super::{BATCH, TABLE, is};
use crate::settings::{KEEP_DEAD_D, KEEP_DONE_H};

/// Runs of schedules are kept so long.
const RUNS_KEPT: Duration = Duration::days(30);

/// Removes everything that was kept long enough, a batch a transaction.
pub(crate) async fn sweep(db: &Db, settings: &Settings, run: &JobRun) -> Result<(), DbError> {
    let now = run.context.now();
    let done = Duration::hours(settings.system(&KEEP_DONE_H).into());
    let dead = Duration::days(settings.system(&KEEP_DEAD_D).into());
    for (state, kept) in [("done", done), ("cancelled", done), ("dead", dead)] {
        while jobs(db, state, now - kept).await? > 0 {
            if run.cancel.is_cancelled() {
                return Ok(());
            }
        }
    }
    let mut old = Query::delete();
    old.from_table("cron_runs")
        .and_where(Expr::col("tick").lt(now - RUNS_KEPT));
    let tx = db.begin().await?;
    tx.execute(&old).await?;
    tx.commit().await?;
    Ok(())
}

/// Removes up to a batch of jobs that ended in a state before a moment; gives their number. The index is in
/// the order of ids, which is that of their beginnings: one that ended before had begun before.
async fn jobs(db: &Db, state: &'static str, before: Timestamp) -> Result<u64, DbError> {
    let mut old = Query::select();
    old.column("id")
        .from(TABLE)
        .and_where(is(state))
        .and_where(Expr::col("id").lt(first_id_of(before)))
        .and_where(Expr::col("updated_at").lt(before))
        .order_by("id", Order::Asc)
        .limit(BATCH);
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("id").in_subquery(old));
    let tx = db.begin().await?;
    let gone = tx.execute(&delete).await?.rows_affected();
    tx.commit().await?;
    Ok(gone)
}

/// The smallest `UUIDv7` of a moment.
fn first_id_of(at: Timestamp) -> Uuid {
    let ms = u128::try_from(at.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128((ms << 80) | (7 << 76))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_moment_lie_behind_its_first() {
        use portico_base::{Clock as _, SeededRandom, SystemClock};
        let now = SystemClock.now();
        let id = portico_base::id::new_id(&SystemClock, &SeededRandom::new(1));
        assert!(first_id_of(now - Duration::milliseconds(1)) < id);
        assert!(first_id_of(now + Duration::seconds(60)) > id);
    }
}
