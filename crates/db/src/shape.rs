//! Tables and values in words that both databases share, for copies of the whole database.

use portico_base::Timestamp;
use sea_orm::DbBackend;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::DbError;

/// What a column holds, in either database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellKind {
    /// 16 bytes.
    Uuid,
    /// UTF-8.
    Text,
    /// True or false.
    Bool,
    /// A number of at most 64 bits.
    Int,
    /// A floating-point number.
    Real,
    /// A moment in UTC.
    Time,
    /// JSON, as text.
    Json,
    /// Bytes.
    Bytes,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: CellKind,
}

/// A table as a copy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableShape {
    /// Its name.
    pub name: String,
    /// Its columns in the order of their making.
    pub columns: Vec<ColumnShape>,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A UUID.
    Uuid(Uuid),
    /// Text.
    Text(String),
    /// True or false.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A floating-point number.
    Real(f64),
    /// A moment.
    Time(Timestamp),
    /// JSON as text.
    Json(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl CellKind {
    /// The kind of a column by the type that the catalogue names.
    fn of(backend: DbBackend, declared: &str) -> Option<Self> {
        let declared = declared.to_ascii_lowercase();
        let word = declared.split('(').next().unwrap_or_default().trim();
        Some(match (backend, word) {
            (DbBackend::Sqlite, "uuid_text") | (DbBackend::Postgres, "uuid") => Self::Uuid,
            (_, "text" | "varchar" | "character varying") => Self::Text,
            (_, "boolean") => Self::Bool,
            (_, "integer" | "bigint" | "smallint" | "tinyint") => Self::Int,
            (_, "double" | "double precision" | "float" | "real") => Self::Real,
            (DbBackend::Sqlite, "timestamp_with_timezone_text")
            | (DbBackend::Postgres, "timestamp with time zone") => Self::Time,
            (DbBackend::Sqlite, "jsonb_text" | "json_text")
            | (DbBackend::Postgres, "jsonb" | "json") => Self::Json,
            (DbBackend::Sqlite, "blob") | (DbBackend::Postgres, "bytea") => Self::Bytes,
            _ => return None,
        })
    }
}

/// The shapes of tables from rows of the catalogue: table, column, type, in their order.
pub(crate) fn tables(
    backend: DbBackend,
    catalogue: Vec<[String; 3]>,
) -> Result<Vec<TableShape>, DbError> {
    let mut tables: Vec<TableShape> = Vec::new();
    for [table, name, declared] in catalogue {
        let kind = CellKind::of(backend, &declared).ok_or_else(|| {
            DbError::Other(format!(
                "the column {table}.{name} has the type {declared}, which cannot be copied"
            ))
        })?;
        let column = ColumnShape { name, kind };
        match tables.last_mut() {
            Some(last) if last.name == table => last.columns.push(column),
            _ => tables.push(TableShape {
                name: table,
                columns: vec![column],
            }),
        }
    }
    Ok(tables)
}

/// The query of the catalogue that [`tables`] reads. Tables of PostgreSQL's extensions are not ours.
pub(crate) const fn catalogue(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => {
            "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL)::text \
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
             WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' \
             AND a.attnum > 0 AND NOT a.attisdropped \
             AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') \
             ORDER BY c.relname, a.attnum"
        }
        _ => {
            "SELECT m.name, c.name, c.type FROM sqlite_schema m, pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY m.name, c.cid"
        }
    }
}

/// A name as SQL text.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
