//! Puts rows into a table, many with one statement.

use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Alias, Expr, Query, Value};
use portico_db::{Cell, CellKind, TableShape, WriteTx};

use crate::error::{BackupError, Result};

/// Values of one INSERT: below the limits of both databases.
const VALUES: usize = 24_000;
/// Rows of one INSERT.
const ROWS: usize = 500;

/// Adds rows that have a value for every column.
pub(crate) async fn rows(tx: &WriteTx, table: &TableShape, rows: Vec<Vec<Cell>>) -> Result<()> {
    let at_once = (VALUES / table.columns.len().max(1)).clamp(1, ROWS);
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut insert = Query::insert();
        insert
            .into_table(Alias::new(&*table.name))
            .columns(table.columns.iter().map(|column| Alias::new(&*column.name)));
        for row in rows.by_ref().take(at_once) {
            let cells = row.into_iter().zip(&table.columns);
            let values = cells.map(|(cell, column)| Ok(Expr::val(value(cell, column.kind)?)));
            insert
                .values(values.collect::<Result<Vec<_>>>()?)
                .map_err(|_| broken(table))?;
        }
        tx.execute(&insert)
            .await
            .map_err(portico_db::DbError::from)?;
    }
    Ok(())
}

/// A value as both drivers bind it; nothing has a type too, because PostgreSQL wants to know it.
fn value(cell: Cell, kind: CellKind) -> Result<Value> {
    Ok(match cell {
        Cell::Null => match kind {
            CellKind::Uuid => Value::Uuid(None),
            CellKind::Text => Value::String(None),
            CellKind::Json => Value::Json(None),
            CellKind::Bool => Value::Bool(None),
            CellKind::Int => Value::BigInt(None),
            CellKind::Real => Value::Double(None),
            CellKind::Time => Value::ChronoDateTimeUtc(None),
            CellKind::Bytes => Value::Bytes(None),
        },
        Cell::Uuid(uuid) => uuid.into(),
        Cell::Text(text) => text.into(),
        Cell::Json(text) => serde_json::from_str::<serde_json::Value>(&text)
            .map_err(|_| BackupError::damaged("a value is not the JSON that it says"))?
            .into(),
        Cell::Bool(is) => is.into(),
        Cell::Int(number) => number.into(),
        Cell::Real(number) => number.into(),
        Cell::Time(moment) => moment.into(),
        Cell::Bytes(bytes) => bytes.into(),
    })
}

fn broken(table: &TableShape) -> BackupError {
    BackupError::Damaged(format!("a row of {} has other columns", table.name))
}
