//! The database crate against real SQLite files and a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod entities;
mod faults;
mod follow;
mod hostile;
mod leases;
mod migrations;
mod network;
mod paused;
mod replicas;
mod tls;
mod transactions;

use portico_db::schema::{big_integer, table, text};
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::{DbError, Migrations, Step};

/// One table for the tests: a word and a number.
fn words() -> Migrations {
    Migrations::new([words_step()])
}

fn words_step() -> Step {
    Step::new(
        "m0001_words",
        [table("words")
            .col(text("word").primary_key())
            .col(big_integer("number"))
            .into()],
    )
}

async fn put(conn: &impl ConnectionTrait, word: &str, number: i64) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table("words")
        .columns(["word", "number"])
        .values_panic([word.into(), number.into()]);
    conn.execute(&insert).await?;
    Ok(())
}

async fn get(conn: &impl ConnectionTrait, word: &str) -> Result<Option<i64>, DbError> {
    let mut select = Query::select();
    select
        .column("number")
        .from("words")
        .and_where(Expr::col("word").eq(word));
    match conn.query_one(&select).await? {
        Some(row) => Ok(Some(row.try_get("", "number")?)),
        None => Ok(None),
    }
}

async fn add(conn: &impl ConnectionTrait, word: &str, n: i64) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table("words")
        .value("number", Expr::col("number").add(n))
        .and_where(Expr::col("word").eq(word));
    conn.execute(&update).await?;
    Ok(())
}

async fn all_words(conn: &impl ConnectionTrait) -> Vec<String> {
    let mut select = Query::select();
    select.column("word").from("words");
    let rows = conn.query_all(&select).await.unwrap();
    rows.iter()
        .map(|row| row.try_get("", "word").unwrap())
        .collect()
}

/// A child process talks to its test by lines.
#[expect(
    clippy::print_stdout,
    reason = "standard output is what the parent reads"
)]
fn say(line: &str) {
    println!("{line}");
}
