//! The one row that tells what this installation is: its age, schema, key check and agreed configuration.

use portico_base::Timestamp;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use serde::Serialize;

use crate::db::Db;
use crate::error::DbError;

const TABLE: &str = "installation";
const ID: i32 = 1;

/// The installation as its row says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installation {
    /// Name for people.
    pub name: String,
    /// First start.
    pub created_at: Timestamp,
    /// Steps of all migrations applied so far.
    pub schema_version: i32,
    /// Oldest release that may use the schema; empty means any.
    pub min_binary: String,
    /// Proof of the master key without telling it (CF-6).
    pub key_check: Option<String>,
    /// Hash of the configuration that all replicas must share (CF-7).
    pub config_fingerprint: Option<String>,
    /// Raised by a fail-over between regions.
    pub term: i64,
    /// Region that may write.
    pub region: String,
}

impl Db {
    /// Reads the installation's row.
    ///
    /// # Errors
    /// When the database cannot be reached or was not migrated yet.
    pub async fn installation(&self) -> Result<Installation, DbError> {
        let mut select = Query::select();
        select
            .columns([
                "name",
                "created_at",
                "schema_version",
                "min_binary",
                "key_check",
                "config_fingerprint",
                "term",
                "region",
            ])
            .from(TABLE)
            .and_where(Expr::col("id").eq(ID));
        let row = self
            .reader()
            .query_one(&select)
            .await?
            .ok_or_else(|| DbError::Other("the installation has no row".to_owned()))?;
        Ok(Installation {
            name: row.try_get("", "name")?,
            created_at: row.try_get("", "created_at")?,
            schema_version: row.try_get("", "schema_version")?,
            min_binary: row.try_get("", "min_binary")?,
            key_check: row.try_get("", "key_check")?,
            config_fingerprint: row.try_get("", "config_fingerprint")?,
            term: row.try_get("", "term")?,
            region: row.try_get("", "region")?,
        })
    }

    /// Stores the master key's check value if there is none yet, and gives the one that counts: the
    /// caller compares it with its own. Of several first starts at once one wins.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn claim_key_check(&self, value: &str) -> Result<String, DbError> {
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("key_check", value)
            .and_where(Expr::col("id").eq(ID))
            .and_where(Expr::col("key_check").is_null());
        let tx = self.begin_durable().await?;
        tx.execute(&update).await?;
        tx.commit().await?;
        let key_check = self.installation().await?.key_check;
        key_check.ok_or_else(|| DbError::Other("the installation has no key check".to_owned()))
    }
}

impl Db {
    /// Puts the check value of a new master key in the place of the former one's, which whoever calls has
    /// shown to hold; nothing happens when somebody was there before.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn replace_key_check(&self, former: &str, value: &str) -> Result<(), DbError> {
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("key_check", value)
            .and_where(Expr::col("id").eq(ID))
            .and_where(Expr::col("key_check").eq(former));
        let tx = self.begin_durable().await?;
        tx.execute(&update).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Makes the row at the first start, and notes the schema afterwards.
pub(crate) async fn ensure(db: &Db, schema_version: u32, min_binary: &str) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(["id", "name", "created_at", "schema_version", "min_binary"])
        .values_panic([
            ID.into(),
            "portico".into(),
            db.clock().now().into(),
            i32::try_from(schema_version).unwrap_or(i32::MAX).into(),
            min_binary.into(),
        ])
        .on_conflict(
            OnConflict::column("id")
                .update_columns(["schema_version", "min_binary"])
                .to_owned(),
        );
    let tx = db.begin().await?;
    tx.execute(&insert).await?;
    tx.commit().await?;
    Ok(())
}
