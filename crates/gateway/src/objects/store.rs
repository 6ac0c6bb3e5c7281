//! The table `gateway_objects`: every version of every object, one of them active.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::kind::Kind;

const TABLE: &str = "gateway_objects";
const COLUMNS: [&str; 10] = [
    "id",
    "kind",
    "name",
    "scope",
    "version",
    "doc",
    "author",
    "message",
    "created_at",
    "born_at",
];

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Version {
    #[serde(skip)]
    pub(crate) id: Uuid,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Whose object it is; absent for the installation's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<Uuid>,
    pub(crate) version: i64,
    /// The document; absent for a version that deletes the object.
    pub(crate) doc: Option<Value>,
    pub(crate) author: String,
    pub(crate) message: String,
    pub(crate) created_at: Timestamp,
    /// When the first version was made: age decides between equal routes.
    #[serde(skip)]
    pub(crate) born_at: Timestamp,
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Adds a version and makes it the active one.
pub(super) async fn add(conn: &impl ConnectionTrait, v: &Version) -> Result<(), DbError> {
    let mut retire = Query::update();
    retire
        .table(TABLE)
        .value("active", false)
        .and_where(Expr::col("kind").eq(v.kind.as_str()))
        .and_where(Expr::col("scope").eq(scope(v.tenant)))
        .and_where(Expr::col("name").eq(v.name.as_str()))
        .and_where(Expr::col("active").eq(true));
    conn.execute(&retire).await?;
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS.into_iter().chain(["active"]))
        .values_panic([
            v.id.into(),
            v.kind.as_str().into(),
            v.name.as_str().into(),
            scope(v.tenant).into(),
            v.version.into(),
            v.doc.clone().into(),
            v.author.as_str().into(),
            v.message.as_str().into(),
            v.created_at.into(),
            v.born_at.into(),
            true.into(),
        ]);
    conn.execute(&insert).await?;
    Ok(())
}

/// All active versions, deletions left out.
pub(super) async fn active(conn: &impl ConnectionTrait) -> Result<Vec<Version>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("active").eq(true))
        .order_by("born_at", Order::Asc)
        .order_by("id", Order::Asc);
    let rows = conn.query_all(&select).await?;
    let versions: Result<Vec<_>, _> = rows.iter().map(from_row).collect();
    Ok(versions?
        .into_iter()
        .flatten()
        .filter(|version| version.doc.is_some())
        .collect())
}

/// The active version of one object, which may be a deletion.
pub(super) async fn newest(
    conn: &impl ConnectionTrait,
    kind: Kind,
    tenant: Option<Uuid>,
    name: &str,
) -> Result<Option<Version>, DbError> {
    let mut select = of(kind, tenant, name);
    select.and_where(Expr::col("active").eq(true));
    one(conn, &select).await
}

/// One version of one object.
pub(super) async fn version(
    conn: &impl ConnectionTrait,
    kind: Kind,
    tenant: Option<Uuid>,
    name: &str,
    number: i64,
) -> Result<Option<Version>, DbError> {
    let mut select = of(kind, tenant, name);
    select.and_where(Expr::col("version").eq(number));
    one(conn, &select).await
}

/// Versions of one object, newest first, below `before`.
pub(super) async fn versions(
    conn: &impl ConnectionTrait,
    kind: Kind,
    tenant: Option<Uuid>,
    name: &str,
    before: Option<i64>,
    limit: u64,
) -> Result<Vec<Version>, DbError> {
    let mut select = of(kind, tenant, name);
    select.order_by("version", Order::Desc).limit(limit);
    if let Some(before) = before {
        select.and_where(Expr::col("version").lt(before));
    }
    let rows = conn.query_all(&select).await?;
    let versions: Result<Vec<_>, _> = rows.iter().map(from_row).collect();
    Ok(versions?.into_iter().flatten().collect())
}

fn select() -> SelectStatement {
    Query::select().columns(COLUMNS).from(TABLE).take()
}

fn of(kind: Kind, tenant: Option<Uuid>, name: &str) -> SelectStatement {
    select()
        .and_where(Expr::col("kind").eq(kind.as_str()))
        .and_where(Expr::col("scope").eq(scope(tenant)))
        .and_where(Expr::col("name").eq(name))
        .take()
}

async fn one(
    conn: &impl ConnectionTrait,
    select: &SelectStatement,
) -> Result<Option<Version>, DbError> {
    match conn.query_one(select).await? {
        Some(row) => from_row(&row),
        None => Ok(None),
    }
}

/// A row as a version; nothing for a kind that a newer release wrote.
fn from_row(row: &QueryResult) -> Result<Option<Version>, DbError> {
    let word: String = row.try_get("", "kind")?;
    let Some(kind) = Kind::of_word(&word) else {
        return Ok(None);
    };
    let scope: Uuid = row.try_get("", "scope")?;
    Ok(Some(Version {
        id: row.try_get("", "id")?,
        kind,
        name: row.try_get("", "name")?,
        tenant: (!scope.is_nil()).then_some(scope),
        version: row.try_get("", "version")?,
        doc: row.try_get("", "doc")?,
        author: row.try_get("", "author")?,
        message: row.try_get("", "message")?,
        created_at: row.try_get("", "created_at")?,
        born_at: row.try_get("", "born_at")?,
    }))
}

/// The tenant as a column without NULLs, because a unique key does not see them.
fn scope(tenant: Option<Uuid>) -> Uuid {
    tenant.unwrap_or(Uuid::nil())
}
