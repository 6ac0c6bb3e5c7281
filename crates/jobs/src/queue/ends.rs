//! How runs end: done together, tried again, given up, cancelled, and what each left behind.

use std::collections::BTreeSet;

use portico_base::Timestamp;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{
    CaseStatement, Expr, ExprTrait as _, LockType, Query, UpdateStatement,
};
use portico_db::{DbError, WriteTx};
use serde_json::json;
use uuid::Uuid;

use super::claims::Claim;
use super::insert::twin;
use super::job::Once;
use super::pairs::{self, Pair};
use super::{DEAD, TABLE, is};
use crate::cron::runs;

/// Longest error text that is kept, in characters.
const ERROR_LENGTH: usize = 2_000;

const ATTEMPT: &str = "job_id fencing number began_at ended_at outcome holder error logs trace";

/// How a run ended that did not end the job well.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    /// To be tried again then.
    Again(Timestamp, String),
    /// The process stopped: the try does not count.
    GivenBack(Timestamp),
    /// Given up.
    Dead(String),
    /// Somebody wanted that, and the run obeyed.
    Cancelled,
}

/// What a run left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Left {
    pub(crate) logs: Vec<String>,
    pub(crate) trace: Option<String>,
}

/// Refuses to go on when the claim is lost, and keeps it until the transaction ends.
pub(crate) async fn fence(tx: &WriteTx, claim: &Claim) -> Result<(), DbError> {
    let mut select = claim.row("running");
    if tx.get_database_backend() == portico_db::sea_orm::DbBackend::Postgres {
        select.lock(LockType::Share);
    }
    match tx.query_one(&select).await? {
        Some(_) => Ok(()),
        None => Err(claim.lost()),
    }
}

/// Notes that the job is done; false when the claim was lost.
pub(crate) async fn finish(tx: &WriteTx, claim: &Claim, now: Timestamp) -> Result<bool, DbError> {
    let mut update = mine(claim);
    update.value("state", "done");
    end_lease(&mut update, now);
    let done = tx.execute(&update).await?.rows_affected() == 1;
    if done {
        closed(tx, claim, "done", None, now).await?;
    }
    Ok(done)
}

/// Notes that many jobs are done, those with `trace` under their own trace. Gives the ids of those that
/// are: the others were lost.
pub(crate) async fn finish_all(
    tx: &WriteTx,
    claims: &[(&Claim, Option<&str>)],
    now: Timestamp,
) -> Result<BTreeSet<Uuid>, DbError> {
    let mut done = BTreeSet::new();
    for chunk in claims.chunks(pairs::MOST) {
        let all: Vec<Pair> = chunk.iter().map(|(claim, _)| claim.pair()).collect();
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("state", "done")
            .and_where(is("running"))
            .and_where(pairs::among(&all))
            .returning(Query::returning().column("id"));
        end_lease(&mut update, now);
        if chunk.iter().any(|(_, trace)| trace.is_some()) {
            let mut traces = CaseStatement::new();
            for (claim, trace) in chunk {
                if let Some(trace) = trace {
                    traces = traces.case(Expr::col("id").eq(claim.id), Expr::value(*trace));
                }
            }
            update.value("run_trace", Expr::Case(Box::new(traces)));
        }
        for row in tx.query_all(&update).await? {
            done.insert(row.try_get("", "id")?);
        }
        for (claim, _) in chunk {
            if done.contains(&claim.id) {
                closed(tx, claim, "done", None, now).await?;
            } else if is_done(tx, claim).await? {
                // The handler has written it itself, with its effect.
                done.insert(claim.id);
            }
        }
    }
    Ok(done)
}

/// Notes how a run ended that did not end as it should; false when the claim was lost.
pub(crate) async fn end(
    tx: &WriteTx,
    claim: &Claim,
    ended: &Ended,
    left: &Left,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = mine(claim);
    end_lease(&mut update, now);
    update.value("run_trace", left.trace.as_deref());
    let (outcome, error) = match ended {
        Ended::Again(_, error) => ("retried", Some(shortened(error))),
        Ended::Dead(error) => ("dead", Some(shortened(error))),
        Ended::GivenBack(_) => ("given_back", None),
        Ended::Cancelled => ("cancelled", None),
    };
    if let Some(error) = &error {
        update.value("last_error", error.as_str());
    }
    match ended {
        Ended::Dead(_) => {
            update.value("state", "dead");
        }
        Ended::Cancelled => {
            update.value("state", "cancelled");
        }
        Ended::Again(at, _) | Ended::GivenBack(at) => {
            // Somebody asked for the same while this one ran: that one does its work.
            if waits_again(tx, claim).await? {
                update.value("state", "cancelled");
            } else {
                update.value("state", "waiting").value("run_at", *at);
            }
        }
    }
    if matches!(ended, Ended::GivenBack(_)) {
        update.value("tries", Expr::col("tries").sub(1));
    }
    if tx.execute(&update).await?.rows_affected() != 1 {
        return Ok(false);
    }
    attempt(tx, claim, outcome, error.as_deref(), left, now).await?;
    match ended {
        Ended::Dead(_) => {
            let payload = json!({ "id": claim.id, "kind": claim.kind, "tenant_id": claim.tenant });
            tx.publish(DEAD, &claim.id.to_string(), &payload)?;
            closed(tx, claim, "failed", error.as_deref(), now).await?;
        }
        Ended::Cancelled => closed(tx, claim, "cancelled", None, now).await?,
        Ended::Again(..) | Ended::GivenBack(_) => {}
    }
    Ok(true)
}

/// Notes what a run left behind.
pub(crate) async fn attempt(
    tx: &WriteTx,
    claim: &Claim,
    outcome: &str,
    error: Option<&str>,
    left: &Left,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table("job_attempts")
        .columns(ATTEMPT.split_ascii_whitespace())
        .values_panic([
            claim.id.into(),
            claim.fencing.into(),
            i32::try_from(claim.tries).unwrap_or(i32::MAX).into(),
            claim.began_at.into(),
            now.into(),
            outcome.into(),
            claim.holder.as_str().into(),
            error.into(),
            json!(left.logs).into(),
            left.trace.as_deref().into(),
        ]);
    tx.execute(&insert).await?;
    Ok(())
}

async fn waits_again(tx: &WriteTx, claim: &Claim) -> Result<bool, DbError> {
    match &claim.once {
        Some(once @ Once::Waiting(_)) => {
            let found = tx.query_one(&twin(&claim.kind, once)).await?;
            Ok(found.is_some())
        }
        // Nobody else can have the other key meanwhile.
        _ => Ok(false),
    }
}

/// True when the job was done under this claim already.
pub(crate) async fn is_done(tx: &WriteTx, claim: &Claim) -> Result<bool, DbError> {
    Ok(tx.query_one(&claim.row("done")).await?.is_some())
}

/// Tells the schedule, where the job is for one.
async fn closed(
    tx: &WriteTx,
    claim: &Claim,
    outcome: &str,
    error: Option<&str>,
    now: Timestamp,
) -> Result<(), DbError> {
    let began = Some(claim.began_at);
    runs::closed(tx, &claim.kind, claim.tick, began, outcome, error, now).await
}

/// A change of the row while the claim holds.
fn mine(claim: &Claim) -> UpdateStatement {
    let mut update = Query::update();
    update
        .table(TABLE)
        .and_where(Expr::col("id").eq(claim.id))
        .and_where(is("running"))
        .and_where(Expr::col("fencing").eq(claim.fencing));
    update
}

fn end_lease(update: &mut UpdateStatement, now: Timestamp) {
    update
        .value("holder", None::<String>)
        .value("lease_until", None::<Timestamp>)
        .value("cancel_asked", false)
        .value("updated_at", now);
}

fn shortened(error: &str) -> String {
    error
        .chars()
        .filter(|c| *c != '\0')
        .take(ERROR_LENGTH)
        .collect()
}
