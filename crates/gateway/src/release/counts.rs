//! The table `gateway_release_counts`: what each process counted of each trial, for all replicas to add up.
//!
//! Counts only grow and begin at zero with each trial and process, so that a row that is written late or
//! twice changes nothing, and what a dead process counted stays counted. They are in the database because
//! replicas without Redis share nothing else, and because who cannot reach it cannot stop a candidate either.

use portico_base::Timestamp;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use portico_db::{Db, DbError};

use super::tally::Totals;

const TABLE: &str = "gateway_release_counts";
const KEY: [&str; 4] = ["service", "run", "version", "replica"];
/// Trials that nobody counted for so long are forgotten.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(7);

/// Counts of one version under trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) service: String,
    pub(super) run: i64,
    pub(super) version: String,
    pub(super) totals: Totals,
}

/// Writes what a process counted, and forgets trials that are over.
pub(super) async fn tell(
    db: &Db,
    replica: &str,
    counts: &[Count],
    now: Timestamp,
) -> Result<(), DbError> {
    // In one order for all replicas, so that none waits for another in a circle.
    let mut counts: Vec<&Count> = counts.iter().collect();
    counts.sort_by_key(|c| (&c.service, c.run, &c.version));
    let tx = db.begin().await?;
    for count in counts {
        let mut insert = Query::insert();
        insert
            .into_table(TABLE)
            .columns(KEY.into_iter().chain(["counts", "at"]))
            .values_panic([
                count.service.as_str().into(),
                count.run.into(),
                count.version.as_str().into(),
                replica.into(),
                count.totals.encode().into(),
                now.into(),
            ])
            .on_conflict(
                OnConflict::columns(KEY)
                    .update_columns(["counts", "at"])
                    .to_owned(),
            );
        tx.execute(&insert).await?;
        // Numbers of trials rise, so that a replica that is behind cannot take away what is newer.
        let over = Expr::col("service").eq(count.service.as_str());
        let over = over.and(Expr::col("run").lt(count.run));
        let mut delete = Query::delete();
        delete
            .from_table(TABLE)
            .cond_where(over.or(Expr::col("at").lt(now - KEPT)));
        tx.execute(&delete).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// What all other processes counted.
pub(super) async fn of_others(db: &Db, replica: &str) -> Result<Vec<Count>, DbError> {
    let mut select = Query::select();
    select
        .columns(["service", "run", "version", "counts"])
        .from(TABLE)
        .and_where(Expr::col("replica").ne(replica));
    let rows = db.reader().query_all(&select).await?;
    let counts: Result<Vec<_>, _> = rows.iter().map(from_row).collect();
    Ok(counts?.into_iter().flatten().collect())
}

/// A row as counts; nothing where a newer release of ours wrote them differently.
fn from_row(row: &QueryResult) -> Result<Option<Count>, DbError> {
    let bytes: Vec<u8> = row.try_get("", "counts")?;
    let Some(totals) = Totals::decode(&bytes) else {
        return Ok(None);
    };
    Ok(Some(Count {
        service: row.try_get("", "service")?,
        run: row.try_get("", "run")?,
        version: row.try_get("", "version")?,
        totals,
    }))
}
