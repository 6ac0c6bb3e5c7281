//! Rows of the key-value store.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Condition, Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{to_i64, to_u64, upsert};

const ENTRIES: &str = "kv_entries";
const TOMBSTONES: &str = "kv_tombstones";
const USAGE: &str = "kv_usage";
const COLUMNS: [&str; 10] = [
    "tenant_id",
    "key",
    "value",
    "size",
    "flags",
    "create_index",
    "modify_index",
    "lock_index",
    "session_id",
    "locked_until",
];

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    pub flags: u64,
    pub create_index: u64,
    pub modify_index: u64,
    pub lock_index: u64,
    pub session: Option<Uuid>,
    /// Until then nobody may lock it: its last holder ended without releasing it.
    pub locked_until: Option<Timestamp>,
}

impl Entry {
    /// What it counts for in the tenant's usage.
    pub(crate) fn size(&self) -> i64 {
        i64::try_from(self.key.len() + self.value.len()).unwrap_or(i64::MAX)
    }
}

/// What a tenant uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub keys: i64,
    pub bytes: i64,
    /// Highest index of any change of the tenant's keys.
    pub index: u64,
    /// Highest index of a deletion whose tombstone was swept.
    pub floor: u64,
    /// Index of the last change of the tenant's sessions.
    pub sessions: u64,
}

/// One key.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    key: &str,
) -> Result<Option<Entry>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(ENTRIES)
        .cond_where(exactly(tenant, key));
    conn.query_one(&select)
        .await?
        .as_ref()
        .map(entry)
        .transpose()
}

/// All keys that begin with a prefix, in their order.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    prefix: &str,
) -> Result<Vec<Entry>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(ENTRIES)
        .cond_where(below(tenant, prefix))
        .order_by("key", Order::Asc);
    super::all(conn, &select, entry).await
}

/// Names and indexes of the keys that begin with a prefix, in their order.
pub(crate) async fn keys(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    prefix: &str,
) -> Result<Vec<(String, u64)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["key", "modify_index"])
        .from(ENTRIES)
        .cond_where(below(tenant, prefix))
        .order_by("key", Order::Asc);
    super::all(conn, &select, |row| {
        Ok((text(row, "key")?, to_u64(row, "modify_index")?))
    })
    .await
}

/// Keys and bytes below a prefix.
pub(crate) async fn size(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    prefix: &str,
) -> Result<Vec<(String, i64)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["key", "size"])
        .from(ENTRIES)
        .cond_where(below(tenant, prefix));
    super::all(conn, &select, |row| {
        Ok((text(row, "key")?, row.try_get("", "size")?))
    })
    .await
}

/// Keys that a session holds, in their order.
pub(crate) async fn held(
    conn: &impl ConnectionTrait,
    session: Uuid,
) -> Result<Vec<(Uuid, Entry)>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(ENTRIES)
        .and_where(Expr::col("session_id").eq(session))
        .order_by("key", Order::Asc);
    super::all(conn, &select, |row| {
        Ok((row.try_get("", "tenant_id")?, entry(row)?))
    })
    .await
}

/// Writes a key.
pub(crate) async fn put(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    e: &Entry,
) -> Result<(), DbError> {
    let values = [
        tenant.into(),
        e.key.as_bytes().to_vec().into(),
        e.value.clone().into(),
        e.size().into(),
        e.flags.cast_signed().into(),
        to_i64(e.create_index).into(),
        to_i64(e.modify_index).into(),
        to_i64(e.lock_index).into(),
        e.session.into(),
        e.locked_until.into(),
    ];
    let mut insert = Query::insert();
    insert
        .into_table(ENTRIES)
        .columns(COLUMNS)
        .values_panic(values)
        .on_conflict(
            portico_db::sea_query::OnConflict::columns(["tenant_id", "key"])
                .update_columns(COLUMNS.into_iter().skip(2))
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// Removes a key and remembers that it was there.
pub(crate) async fn delete(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    key: &str,
    index: u64,
    at: Timestamp,
    locked_until: Option<Timestamp>,
) -> Result<(), DbError> {
    let mut delete = Query::delete();
    delete.from_table(ENTRIES).cond_where(exactly(tenant, key));
    conn.execute(&delete).await?;
    bury(conn, tenant, key, index, at, locked_until).await
}

/// Removes everything below a prefix and remembers the keys.
pub(crate) async fn delete_below(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    prefix: &str,
    index: u64,
    at: Timestamp,
) -> Result<Vec<(String, i64)>, DbError> {
    let gone = size(conn, tenant, prefix).await?;
    if gone.is_empty() {
        return Ok(gone);
    }
    let mut delete = Query::delete();
    delete.from_table(ENTRIES).cond_where(below(tenant, prefix));
    conn.execute(&delete).await?;
    for chunk in gone.chunks(super::CHUNK) {
        let mut insert = Query::insert();
        insert
            .into_table(TOMBSTONES)
            .columns(["tenant_id", "key", "index", "at", "locked_until"]);
        for (key, _) in chunk {
            insert.values_panic([
                tenant.into(),
                key.as_bytes().to_vec().into(),
                to_i64(index).into(),
                at.into(),
                None::<Timestamp>.into(),
            ]);
        }
        insert.on_conflict(
            portico_db::sea_query::OnConflict::columns(["tenant_id", "key"])
                .update_columns(["index", "at", "locked_until"])
                .to_owned(),
        );
        conn.execute(&insert).await?;
    }
    Ok(gone)
}

async fn bury(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    key: &str,
    index: u64,
    at: Timestamp,
    locked_until: Option<Timestamp>,
) -> Result<(), DbError> {
    upsert(
        conn,
        TOMBSTONES,
        &["tenant_id", "key"],
        ["tenant_id", "key", "index", "at", "locked_until"],
        [
            tenant.into(),
            key.as_bytes().to_vec().into(),
            to_i64(index).into(),
            at.into(),
            locked_until.into(),
        ],
    )
    .await
}

/// Until when a key that is gone must not be locked again.
pub(crate) async fn buried_lock(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    key: &str,
) -> Result<Option<Timestamp>, DbError> {
    let mut select = Query::select();
    select
        .column("locked_until")
        .from(TOMBSTONES)
        .cond_where(exactly(tenant, key));
    match conn.query_one(&select).await? {
        Some(row) => Ok(row.try_get("", "locked_until")?),
        None => Ok(None),
    }
}

/// Highest index of a deletion of exactly this key.
pub(crate) async fn buried(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    key: &str,
) -> Result<u64, DbError> {
    highest(conn, exactly(tenant, key)).await
}

/// Highest index of a deletion below a prefix.
pub(crate) async fn buried_below(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    prefix: &str,
) -> Result<u64, DbError> {
    highest(conn, below(tenant, prefix)).await
}

async fn highest(conn: &impl ConnectionTrait, condition: Condition) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("index").max(), "highest")
        .from(TOMBSTONES)
        .cond_where(condition);
    let Some(row) = conn.query_one(&select).await? else {
        return Ok(0);
    };
    let highest: Option<i64> = row.try_get("", "highest")?;
    Ok(highest.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// What a tenant uses.
pub(crate) async fn usage(conn: &impl ConnectionTrait, tenant: Uuid) -> Result<Usage, DbError> {
    let mut select = Query::select();
    select
        .columns(["keys", "bytes", "index", "floor", "sessions"])
        .from(USAGE)
        .and_where(Expr::col("tenant_id").eq(tenant));
    let Some(row) = conn.query_one(&select).await? else {
        return Ok(Usage::default());
    };
    Ok(Usage {
        keys: row.try_get("", "keys")?,
        bytes: row.try_get("", "bytes")?,
        index: to_u64(&row, "index")?,
        floor: to_u64(&row, "floor")?,
        sessions: to_u64(&row, "sessions")?,
    })
}

/// Writes what a tenant uses.
pub(crate) async fn put_usage(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    usage: Usage,
) -> Result<(), DbError> {
    upsert(
        conn,
        USAGE,
        &["tenant_id"],
        ["tenant_id", "keys", "bytes", "index", "floor", "sessions"],
        [
            tenant.into(),
            usage.keys.into(),
            usage.bytes.into(),
            to_i64(usage.index).into(),
            to_i64(usage.floor).into(),
            to_i64(usage.sessions).into(),
        ],
    )
    .await
}

/// Keys of all tenants together, for the gauge.
pub(crate) async fn count(conn: &impl ConnectionTrait) -> Result<i64, DbError> {
    let mut select = Query::select();
    select.columns(["keys"]).from(USAGE);
    let all: Vec<i64> = super::all(conn, &select, |row| Ok(row.try_get("", "keys")?)).await?;
    Ok(all.into_iter().sum())
}

/// Tenants with tombstones from before a moment, and the highest index among those of each.
pub(crate) async fn sweepable(
    conn: &impl ConnectionTrait,
    before: Timestamp,
) -> Result<Vec<(Uuid, u64)>, DbError> {
    let mut select = Query::select();
    select
        .column("tenant_id")
        .expr_as(Expr::col("index").max(), "highest")
        .from(TOMBSTONES)
        .and_where(Expr::col("at").lt(before))
        .group_by_columns(["tenant_id"]);
    super::all(conn, &select, |row| {
        Ok((row.try_get("", "tenant_id")?, to_u64(row, "highest")?))
    })
    .await
}

/// Removes tombstones from before a moment.
pub(crate) async fn sweep(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TOMBSTONES)
        .and_where(Expr::col("at").lt(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn exactly(tenant: Uuid, key: &str) -> Condition {
    Condition::all()
        .add(Expr::col("tenant_id").eq(tenant))
        .add(Expr::col("key").eq(key.as_bytes().to_vec()))
}

/// Keys from the prefix on, up to the first byte string that does not begin with it.
fn below(tenant: Uuid, prefix: &str) -> Condition {
    let condition = Condition::all().add(Expr::col("tenant_id").eq(tenant));
    if prefix.is_empty() {
        return condition;
    }
    let mut end = prefix.as_bytes().to_vec();
    // UTF-8 has no byte 255, so that the last one can always be raised.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    condition
        .add(Expr::col("key").gte(prefix.as_bytes().to_vec()))
        .add(Expr::col("key").lt(end))
}

fn text(row: &QueryResult, column: &str) -> Result<String, DbError> {
    let bytes: Vec<u8> = row.try_get("", column)?;
    String::from_utf8(bytes).map_err(|_| super::broken("key"))
}

fn entry(row: &QueryResult) -> Result<Entry, DbError> {
    let flags: i64 = row.try_get("", "flags")?;
    Ok(Entry {
        key: text(row, "key")?,
        value: row.try_get("", "value")?,
        flags: flags.cast_unsigned(),
        create_index: to_u64(row, "create_index")?,
        modify_index: to_u64(row, "modify_index")?,
        lock_index: to_u64(row, "lock_index")?,
        session: row.try_get("", "session_id")?,
        locked_until: row.try_get("", "locked_until")?,
    })
}
