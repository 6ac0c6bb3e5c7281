//! Rows named by id and fencing number, many in one statement.

use portico_db::sea_query::{CaseStatement, Expr, ExprTrait as _};
use uuid::Uuid;

use super::TABLE;

/// A job and the number under which it was taken.
pub(crate) type Pair = (Uuid, i64);

/// Most pairs of one statement.
pub(crate) const MOST: usize = 128;

/// True for rows that are one of the pairs. The key finds them by their ids; the numbers come by a CASE,
/// because lists of row values are not written alike on both databases. The last pair is repeated up to
/// the next power of two, so that few different statements have to be prepared.
pub(crate) fn among(pairs: &[Pair]) -> Expr {
    let size = pairs.len().next_power_of_two();
    let last = pairs.last().copied();
    let fill = last.into_iter().cycle().take(size - pairs.len());
    let padded: Vec<Pair> = pairs.iter().copied().chain(fill).collect();
    let mut number = CaseStatement::new();
    for (id, fencing) in &padded {
        number = number.case(Expr::col((TABLE, "id")).eq(*id), Expr::value(*fencing));
    }
    Expr::col((TABLE, "id"))
        .is_in(padded.iter().map(|(id, _)| *id))
        .and(Expr::col((TABLE, "fencing")).eq(Expr::Case(Box::new(number))))
}

#[cfg(test)]
mod tests {
    use portico_db::sea_query::{Query, SqliteQueryBuilder};

    use super::*;

    #[test]
    fn three_pairs_are_written_as_four() {
        let pairs: Vec<Pair> = (1..=3).map(|n| (Uuid::from_u128(n), 1)).collect();
        let mut select = Query::select();
        select.column("id").from(TABLE).and_where(among(&pairs));
        let (sql, values) = select.build(SqliteQueryBuilder);
        assert_eq!(values.0.len(), 4 + 8, "{sql}");
    }
}
