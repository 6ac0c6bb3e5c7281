//! Searching records: by an index, newest first; what no index knows is looked for in a bounded stretch.

use portico_base::Timestamp;
use portico_contract::audit::Filter;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Func, Order, Query, SelectStatement, UnionType};
use uuid::Uuid;

use super::records::{TABLE, read, seq, with_seq};
use super::{all, escaped, like, one, unsigned};
use crate::domain::record::{Stored, outcome};

/// Where a page begins: the last record of the page before.
pub(crate) type After = (Timestamp, Uuid);

/// A record and its number in the chain.
pub(crate) type Found = (Stored, Option<u64>);

/// One page of a search, newest first.
pub(crate) fn page(
    filter: &Filter,
    after: Option<After>,
    down_to: Option<After>,
    limit: u64,
) -> SelectStatement {
    let mut select = with_seq();
    indexed(&mut select, filter);
    rest(&mut select, filter);
    bounded(&mut select, after, down_to);
    newest_first(&mut select);
    select.limit(limit);
    select
}

/// The end of a stretch of `step` records that the indexes find.
pub(crate) fn stretch(filter: &Filter, after: Option<After>, step: u64) -> SelectStatement {
    let mut select = Query::select();
    select.columns([(TABLE, "at"), (TABLE, "id")]).from(TABLE);
    indexed(&mut select, filter);
    bounded(&mut select, after, None);
    newest_first(&mut select);
    select.limit(1).offset(step.saturating_sub(1));
    select
}

pub(crate) async fn found(
    conn: &impl ConnectionTrait,
    select: &SelectStatement,
) -> Result<Vec<Found>, DbError> {
    all(conn, select, |row| Ok((read(row)?, seq(row)?))).await
}

pub(crate) async fn end_of(
    conn: &impl ConnectionTrait,
    select: &SelectStatement,
) -> Result<Option<After>, DbError> {
    one(conn, select, |row: &QueryResult| {
        Ok((row.try_get("", "at")?, row.try_get("", "id")?))
    })
    .await
}

/// How many records fall into each span of time, in the spans' order.
pub(crate) async fn counts(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    spans: &[(Timestamp, Timestamp)],
) -> Result<Vec<u64>, DbError> {
    let one_of = |at: usize, (from, to): (Timestamp, Timestamp)| {
        let mut select = Query::select();
        select
            .expr_as(Expr::value(i32::try_from(at).unwrap_or(i32::MAX)), "span")
            .expr_as(Func::count(Expr::col((TABLE, "id"))), "n")
            .from(TABLE)
            .and_where(Expr::col((TABLE, "at")).gte(from))
            .and_where(Expr::col((TABLE, "at")).lt(to));
        indexed(&mut select, filter);
        if let Some(wanted) = filter.outcome {
            select.and_where(Expr::col((TABLE, "outcome")).eq(outcome(wanted)));
        }
        select
    };
    let mut parts = spans.iter().enumerate().map(|(at, span)| one_of(at, *span));
    let Some(mut select) = parts.next() else {
        return Ok(Vec::new());
    };
    for part in parts {
        select.union(UnionType::All, part);
    }
    let rows = all(conn, &select, |row| {
        let span: i32 = row.try_get("", "span")?;
        Ok((span, unsigned(row, "n")?))
    })
    .await?;
    let mut counts = vec![0; spans.len()];
    for (span, n) in rows {
        if let Some(slot) = usize::try_from(span).ok().and_then(|i| counts.get_mut(i)) {
            *slot = n;
        }
    }
    Ok(counts)
}

/// Conditions that an index answers.
fn indexed(select: &mut SelectStatement, filter: &Filter) {
    let mut equal = |column: &'static str, value: Option<&str>| {
        if let Some(value) = value {
            select.and_where(Expr::col((TABLE, column)).eq(value));
        }
    };
    equal("actor_id", filter.actor.as_deref());
    equal("target_type", filter.target_type.as_deref());
    equal("target_id", filter.target_id.as_deref());
    equal("request_id", filter.request_id.as_deref());
    equal("action", filter.action.as_deref());
    if let Some(tenant) = filter.tenant {
        select.and_where(Expr::col((TABLE, "tenant_id")).eq(tenant));
    }
    if let Some(from) = filter.from {
        select.and_where(Expr::col((TABLE, "at")).gte(from));
    }
    if let Some(to) = filter.to {
        select.and_where(Expr::col((TABLE, "at")).lt(to));
    }
}

/// Conditions that each record is looked at for.
fn rest(select: &mut SelectStatement, filter: &Filter) {
    if let Some(wanted) = filter.outcome {
        select.and_where(Expr::col((TABLE, "outcome")).eq(outcome(wanted)));
    }
    if let Some(ip) = filter.ip {
        select.and_where(Expr::col((TABLE, "ip")).eq(ip.to_string()));
    }
    if let Some(path) = &filter.path {
        select.and_where(like((TABLE, "paths"), &format!("%\n{}\n%", escaped(path))));
    }
    if let Some(prefix) = &filter.action_prefix {
        select.and_where(like((TABLE, "action"), &format!("{}%", escaped(prefix))));
    }
}

fn bounded(select: &mut SelectStatement, after: Option<After>, down_to: Option<After>) {
    let key = || Expr::tuple([Expr::col((TABLE, "at")), Expr::col((TABLE, "id"))]);
    let place = |(at, id): After| Expr::tuple([Expr::value(at), Expr::value(id)]);
    if let Some(after) = after {
        select.and_where(key().lt(place(after)));
    }
    if let Some(down_to) = down_to {
        select.and_where(key().gte(place(down_to)));
    }
}

fn newest_first(select: &mut SelectStatement) {
    select
        .order_by((TABLE, "at"), Order::Desc)
        .order_by((TABLE, "id"), Order::Desc);
}

/// True when every condition is one that an index answers.
pub(crate) const fn is_indexed(filter: &Filter) -> bool {
    filter.outcome.is_none() && filter.ip.is_none() && filter.path.is_none()
}
