//! One moment of the whole database, read on a connection of its own while everybody goes on writing.

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt as _};
use sea_orm::DbBackend;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _, SqliteConnection,
};

use crate::db::{Db, Inner, Pools};
use crate::error::DbError;
use crate::shape::{self, Cell, CellKind, TableShape};

/// A consistent view: SQLite's read transaction in WAL mode, PostgreSQL's repeatable read. It keeps no
/// writer waiting, but on SQLite the write-ahead log grows until it is closed.
pub struct Snapshot {
    inner: Arc<Inner>,
    conn: Own,
}

/// A connection outside of the pools, whose statements may run for long.
enum Own {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
}

impl Db {
    /// Begins to read the whole database as it is now.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        let inner = Arc::clone(self.inner());
        let open = async {
            let conn = match &inner.pools {
                Pools::Sqlite { readers, .. } => {
                    // Whoever reads everything once needs no cache.
                    let options = (*readers.connect_options()).clone();
                    let mut conn = options.pragma("cache_size", "-1000").connect().await?;
                    // The view is that of the first read, not of the beginning.
                    let begin = sqlx::raw_sql("BEGIN; SELECT 1 FROM sqlite_schema");
                    begin.execute(&mut conn).await?;
                    Own::Sqlite(Box::new(conn))
                }
                Pools::Postgres(pool) => {
                    let mut conn = (*pool.connect_options()).clone().connect().await?;
                    sqlx::raw_sql(
                        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                         SET LOCAL statement_timeout = 0; \
                         SET LOCAL idle_in_transaction_session_timeout = '15min'; \
                         SELECT 1",
                    )
                    .execute(&mut conn)
                    .await?;
                    Own::Postgres(Box::new(conn))
                }
            };
            Ok::<_, sqlx::Error>(conn)
        };
        let conn = tokio::time::timeout(self.inner().acquire_timeout, Box::pin(open))
            .await
            .map_err(|_| DbError::Unavailable("no connection for a snapshot in time".to_owned()))?
            .map_err(DbError::from)?;
        Ok(Snapshot { inner, conn })
    }

    /// All tables, sorted by name.
    ///
    /// # Errors
    /// As [`Db::snapshot`] and [`Snapshot::tables`].
    pub async fn tables(&self) -> Result<Vec<TableShape>, DbError> {
        self.snapshot().await?.tables().await
    }
}

impl Snapshot {
    /// All tables, sorted by name.
    ///
    /// # Errors
    /// When the database cannot be reached, or a column has a type that no copy knows.
    pub async fn tables(&mut self) -> Result<Vec<TableShape>, DbError> {
        let backend = self.inner.sea_backend();
        shape::tables(backend, self.texts(shape::catalogue(backend)).await?)
    }

    /// The migration steps that the database has (`service/step`), sorted, each with the oldest release
    /// that can work with the schema after it; empty means any.
    ///
    /// # Errors
    /// When the database cannot be reached or was never migrated.
    pub async fn steps(&mut self) -> Result<Vec<[String; 2]>, DbError> {
        self.texts("SELECT name, coalesce(min_binary, '') FROM schema_migrations ORDER BY name")
            .await
    }

    /// Rows of nothing but texts.
    async fn texts<const N: usize>(
        &mut self,
        sql: &'static str,
    ) -> Result<Vec<[String; N]>, DbError> {
        let mut all = Vec::new();
        let mut texts = std::array::from_fn(|_| String::new());
        macro_rules! read {
            ($conn:expr) => {
                for row in sqlx::query(sql)
                    .persistent(false)
                    .fetch_all(&mut **$conn)
                    .await?
                {
                    for (i, text) in texts.iter_mut().enumerate() {
                        *text = row.try_get(i)?;
                    }
                    all.push(texts.clone());
                }
            };
        }
        match &mut self.conn {
            Own::Sqlite(conn) => read!(conn),
            Own::Postgres(conn) => read!(conn),
        }
        Ok(all)
    }

    /// The rows of a table, one by one; what is not asked for is not read.
    pub fn rows<'a>(
        &'a mut self,
        table: &'a TableShape,
    ) -> BoxStream<'a, Result<Vec<Cell>, DbError>> {
        let sql = AssertSqlSafe(select(self.inner.sea_backend(), table));
        match &mut self.conn {
            Own::Sqlite(conn) => sqlx::query(sql)
                .persistent(false)
                .fetch(&mut **conn)
                .map(|row| Ok(of_sqlite(&row?, table)?))
                .boxed(),
            Own::Postgres(conn) => sqlx::query(sql)
                .persistent(false)
                .fetch(&mut **conn)
                .map(|row| Ok(of_postgres(&row?, table)?))
                .boxed(),
        }
    }

    /// Ends the view. Dropping it does the same.
    ///
    /// # Errors
    /// When the database cannot be reached any more; the view has ended as well then.
    pub async fn close(self) -> Result<(), DbError> {
        match self.conn {
            Own::Sqlite(conn) => conn.close().await?,
            Own::Postgres(conn) => conn.close().await?,
        }
        Ok(())
    }
}

fn select(backend: DbBackend, table: &TableShape) -> String {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let name = shape::quoted(&column.name);
            match (backend, column.kind) {
                (DbBackend::Postgres, CellKind::Json) => format!("{name}::text"),
                (DbBackend::Postgres, CellKind::Int) => format!("{name}::int8"),
                (DbBackend::Postgres, CellKind::Real) => format!("{name}::float8"),
                _ => name,
            }
        })
        .collect();
    format!(
        "SELECT {} FROM {}",
        columns.join(", "),
        shape::quoted(&table.name)
    )
}

macro_rules! cells {
    ($name:ident, $row:ty) => {
        fn $name(row: &$row, table: &TableShape) -> Result<Vec<Cell>, sqlx::Error> {
            let mut cells = Vec::with_capacity(table.columns.len());
            for (i, column) in table.columns.iter().enumerate() {
                macro_rules! get {
                    ($kind:ident) => {
                        row.try_get_unchecked::<Option<_>, _>(i)?.map(Cell::$kind)
                    };
                }
                let cell = match column.kind {
                    CellKind::Uuid => get!(Uuid),
                    CellKind::Text => get!(Text),
                    CellKind::Bool => get!(Bool),
                    CellKind::Int => get!(Int),
                    CellKind::Real => get!(Real),
                    CellKind::Time => get!(Time),
                    CellKind::Json => get!(Json),
                    CellKind::Bytes => get!(Bytes),
                };
                cells.push(cell.unwrap_or(Cell::Null));
            }
            Ok(cells)
        }
    };
}

cells!(of_sqlite, SqliteRow);
cells!(of_postgres, PgRow);
