//! Envelopes in a column of a table, for the rotation of the master key (CT-21).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::Random;
use portico_base::envelope::{MasterKeys, Place, key_id};
use portico_contract::sealed::{SealedError, SealedRows, Step};
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use portico_db::{Db, DbError};
use uuid::Uuid;

/// Rows of one look while counting.
const PAGE: u64 = 1_000;

/// What names a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKey {
    /// A column with a UUID; the envelope's row is its text form.
    Uuid(&'static str),
    /// A column with text.
    Text(&'static str),
}

impl RowKey {
    const fn column(self) -> &'static str {
        match self {
            Self::Uuid(column) | Self::Text(column) => column,
        }
    }

    fn read(self, row: &QueryResult) -> Result<String, DbError> {
        match self {
            Self::Uuid(column) => Ok(row.try_get::<Uuid>("", column)?.to_string()),
            Self::Text(column) => Ok(row.try_get("", column)?),
        }
    }

    fn value(self, text: &str) -> Result<Expr, DbError> {
        match self {
            Self::Text(_) => Ok(text.into()),
            Self::Uuid(_) => Uuid::parse_str(text)
                .map(Into::into)
                .map_err(|_| DbError::Codec("the place of a rotation is not a UUID".to_owned())),
        }
    }
}

/// A column with envelopes that are bound to their table, row and column.
pub struct SealedColumn {
    /// `service.what`, as a rotation tells it.
    pub name: &'static str,
    /// The table, in the database and in the envelope.
    pub table: &'static str,
    /// What names a row, in the database and in the envelope.
    pub key: RowKey,
    /// The column, in the database and in the envelope.
    pub column: &'static str,
    /// The database.
    pub db: Db,
    /// The master keys.
    pub keys: Arc<MasterKeys>,
    /// For nonces.
    pub random: Arc<dyn Random>,
}

struct Row {
    key: String,
    sealed: String,
}

impl SealedColumn {
    /// Rows with an envelope behind a key, at most `limit`.
    async fn page(
        &self,
        conn: &impl ConnectionTrait,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Row>, DbError> {
        let mut select = Query::select();
        select
            .columns([self.key.column(), self.column])
            .from(self.table)
            .and_where(Expr::col(self.column).is_not_null())
            .and_where(Expr::col(self.column).ne(""))
            .order_by(self.key.column(), Order::Asc)
            .limit(limit);
        if let Some(after) = after {
            select.and_where(Expr::col(self.key.column()).gt(self.key.value(after)?));
        }
        let rows = conn.query_all(&select).await?;
        rows.iter()
            .map(|row| {
                Ok(Row {
                    key: self.key.read(row)?,
                    sealed: row.try_get("", self.column)?,
                })
            })
            .collect()
    }

    async fn counted(&self) -> Result<BTreeMap<String, u64>, DbError> {
        let mut counts = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let rows = self.page(self.db.reader(), after.as_deref(), PAGE).await?;
            for row in &rows {
                let kid = key_id(&row.sealed).unwrap_or_else(|| "unknown".to_owned());
                *counts.entry(kid).or_default() += 1;
            }
            match rows.into_iter().last() {
                Some(last) => after = Some(last.key),
                None => return Ok(counts),
            }
        }
    }

    async fn step(&self, after: Option<&str>, limit: u64) -> Result<Step, DbError> {
        let tx = self.db.begin_durable().await?;
        let rows = self.page(&tx, after, limit).await?;
        let mut step = Step::default();
        for row in &rows {
            if key_id(&row.sealed).as_deref() == Some(self.keys.current()) {
                continue;
            }
            let place = Place {
                table: self.table,
                row: &row.key,
                column: self.column,
            };
            let Ok(plain) = self.keys.open(place, &row.sealed) else {
                step.broken += 1;
                continue;
            };
            let new = self.keys.seal(place, plain.expose(), &*self.random);
            let mut update = Query::update();
            update
                .table(self.table)
                .value(self.column, new)
                .and_where(Expr::col(self.key.column()).eq(self.key.value(&row.key)?))
                // Whoever wrote another secret meanwhile sealed it with the current key.
                .and_where(Expr::col(self.column).eq(row.sealed.as_str()));
            step.done += tx.execute(&update).await?.rows_affected();
        }
        tx.commit().await?;
        if rows.len() as u64 == limit {
            step.next = rows.into_iter().last().map(|row| row.key);
        }
        Ok(step)
    }
}

impl SealedRows for SealedColumn {
    fn name(&self) -> &'static str {
        self.name
    }

    fn count(&self) -> BoxFuture<'_, Result<BTreeMap<String, u64>, SealedError>> {
        Box::pin(async move {
            let counted = self.counted().await;
            counted.map_err(|error| SealedError(Box::new(error)))
        })
    }

    fn reseal<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: u64,
    ) -> BoxFuture<'a, Result<Step, SealedError>> {
        Box::pin(async move {
            let step = self.db.retry(|| self.step(after, limit)).await;
            step.map_err(|error| SealedError(Box::new(error)))
        })
    }
}
