//! Keyset paging: the rows behind a key in a fixed order, without counting those before.

use sea_orm::Value;
use sea_orm::sea_query::{Cond, Expr, ExprTrait as _, IntoIden, Order, SelectStatement};

/// A column of the order with its direction. The columns together must be unique, and an index should
/// have them in this order.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    column: &'static str,
    descending: bool,
}

/// Rising by `column`.
#[must_use]
pub const fn asc(column: &'static str) -> Key {
    Key {
        column,
        descending: false,
    }
}

/// Falling by `column`.
#[must_use]
pub const fn desc(column: &'static str) -> Key {
    Key {
        column,
        descending: true,
    }
}

/// Orders a query by the keys, begins behind the row that has the values `after` in them, and reads one
/// row more than `limit`, so that the caller sees whether there is a next page. The columns must not be
/// null.
pub fn page<const N: usize>(
    select: &mut SelectStatement,
    keys: [Key; N],
    after: Option<[Value; N]>,
    limit: usize,
) {
    for key in keys {
        let order = if key.descending {
            Order::Desc
        } else {
            Order::Asc
        };
        select.order_by(key.column.into_iden(), order);
    }
    if let Some(after) = after {
        select.cond_where(behind(&keys, &after));
    }
    select.limit(limit as u64 + 1);
}

/// `a > x OR (a = x AND (b > y OR …))`, which both databases answer from an index because the first
/// column is bounded by itself as well.
fn behind(keys: &[Key], after: &[Value]) -> Cond {
    let Some(((key, rest), (value, values))) = keys.split_first().zip(after.split_first()) else {
        // Nothing is behind a row with the same unique key.
        return Cond::any();
    };
    let column = || Expr::col(key.column);
    let past = if key.descending {
        column().lt(value.clone())
    } else {
        column().gt(value.clone())
    };
    if rest.is_empty() {
        return Cond::all().add(past);
    }
    let bound = if key.descending {
        column().lte(value.clone())
    } else {
        column().gte(value.clone())
    };
    let tie = Cond::all()
        .add(column().eq(value.clone()))
        .add(behind(rest, values));
    Cond::all().add(bound).add(Cond::any().add(past).add(tie))
}
