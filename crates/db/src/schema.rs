//! Columns and tables of migrations in the types that both databases share.

use sea_orm::sea_query::{
    ColumnDef, Expr, ExprTrait as _, ForeignKey, ForeignKeyAction, ForeignKeyCreateStatement,
    Index, IndexCreateStatement, Table, TableCreateStatement,
};

/// A new table; add columns with `.col(..)`.
#[must_use]
pub fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).take()
}

/// A UUID: `uuid` on PostgreSQL, 16 bytes on SQLite.
#[must_use]
pub fn uuid(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).uuid().not_null().take()
}

/// A UUID or nothing.
#[must_use]
pub fn uuid_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).uuid().take()
}

/// Text of any length.
#[must_use]
pub fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().take()
}

/// Text or nothing.
#[must_use]
pub fn text_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().take()
}

/// Text that is one of a few words, checked by the database.
#[must_use]
pub fn one_of(name: &'static str, words: &[&'static str]) -> ColumnDef {
    ColumnDef::new(name)
        .text()
        .not_null()
        .check(Expr::col(name).is_in(words.iter().copied()))
        .take()
}

/// True or false.
#[must_use]
pub fn boolean(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).boolean().not_null().take()
}

/// A 32-bit number.
#[must_use]
pub fn integer(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).integer().not_null().take()
}

/// A 64-bit number.
#[must_use]
pub fn big_integer(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

/// A 64-bit number or nothing.
#[must_use]
pub fn big_integer_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().take()
}

/// A floating-point number.
#[must_use]
pub fn double(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).double().not_null().take()
}

/// A moment in UTC with microseconds. On SQLite it is RFC 3339 text, whose order is the order of time.
#[must_use]
pub fn timestamp(name: &'static str) -> ColumnDef {
    ColumnDef::new(name)
        .timestamp_with_time_zone()
        .not_null()
        .take()
}

/// A moment in UTC or nothing.
#[must_use]
pub fn timestamp_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).timestamp_with_time_zone().take()
}

/// JSON: `jsonb` on PostgreSQL, text on SQLite. What is filtered on gets a column of its own.
#[must_use]
pub fn json(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).json_binary().not_null().take()
}

/// JSON or nothing.
#[must_use]
pub fn json_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).json_binary().take()
}

/// Bytes of any length.
#[must_use]
pub fn bytes(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).blob().not_null().take()
}

/// Bytes or nothing.
#[must_use]
pub fn bytes_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).blob().take()
}

/// A primary key over several columns, for `.primary_key(&mut key(..))`.
#[must_use]
pub fn key<const N: usize>(columns: [&'static str; N]) -> IndexCreateStatement {
    let mut key = Index::create();
    for column in columns {
        key.col(column);
    }
    key.take()
}

/// An index; add `.unique()` or `.and_where(..)`.
#[must_use]
pub fn index<const N: usize>(
    name: &'static str,
    table: &'static str,
    columns: [&'static str; N],
) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table(table);
    for column in columns {
        index.col(column);
    }
    index.take()
}

/// A reference to another table, for `.foreign_key(&mut references(..))`; rows go with what they refer to.
#[must_use]
pub fn references(
    table: &'static str,
    column: &'static str,
    to_table: &'static str,
    to_column: &'static str,
) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .from(table, column)
        .to(to_table, to_column)
        .on_delete(ForeignKeyAction::Cascade)
        .take()
}
