//! The processes of the installation, known to each other through the database (OP-3). Their coming and
//! going is told by `system.replica_{joined,ready,draining,lost}` in the outbox.

use std::time::Duration;

use portico_base::{Random, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, QueryResult};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::db::Db;
use crate::error::DbError;
use crate::time;
use crate::tx::WriteTx;

const TABLE: &str = "replicas";
const COLUMNS: [&str; 10] = [
    "id",
    "name",
    "version",
    "roles",
    "zone",
    "internal_url",
    "started_at",
    "heartbeat_at",
    "state",
    "numbers",
];

/// A replica says that it lives as often.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// Without a word for so long it counts as lost.
pub const LOST_AFTER: Duration = Duration::from_secs(20);
/// A lost one is forgotten after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// What a replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Not ready yet.
    Starting,
    /// Answers.
    Ready,
    /// Ends what it has begun.
    Draining,
    /// Not heard of for [`LOST_AFTER`].
    Lost,
}

impl ReplicaState {
    /// The word in the table, in events and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }

    fn parse(text: &str) -> Result<Self, DbError> {
        [Self::Starting, Self::Ready, Self::Draining, Self::Lost]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| DbError::Codec(format!("`{text}` is no state of a replica")))
    }
}

/// A process of the installation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replica {
    /// Made anew at each start.
    pub id: Uuid,
    /// Host name and four letters, or what the configuration says.
    pub name: String,
    /// Release that it runs.
    pub version: String,
    /// Process roles.
    pub roles: Vec<String>,
    /// Zone of the configuration, may be empty.
    pub zone: String,
    /// Where other replicas reach it.
    pub internal_url: Option<String>,
    /// Start of the process, by the database's time.
    pub started_at: Timestamp,
    /// Last sign of life, by the database's time.
    pub heartbeat_at: Timestamp,
    /// What it is doing.
    pub state: ReplicaState,
    /// Figures for the system page; unknown ones are passed on.
    pub numbers: serde_json::Value,
}

/// What a process says of itself at its start.
#[derive(Debug, Clone)]
pub struct NewReplica {
    /// Made anew at each start.
    pub id: Uuid,
    /// Host name and four letters, or what the configuration says.
    pub name: String,
    /// Release that it runs.
    pub version: String,
    /// Process roles.
    pub roles: Vec<String>,
    /// Zone of the configuration, may be empty.
    pub zone: String,
    /// Where other replicas reach it.
    pub internal_url: Option<String>,
}

/// A name for a replica without a configured one: the host's name and four random letters.
#[must_use]
pub fn replica_name(host: &str, random: &dyn Random) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    let tail: String = (0..4)
        .map(|_| {
            let i = usize::try_from(random.below(LETTERS.len() as u64)).unwrap_or(0);
            char::from(LETTERS[i])
        })
        .collect();
    format!("{host}-{tail}")
}

/// The replicas of the installation.
#[derive(Clone)]
pub struct Replicas(pub(crate) Db);

impl Replicas {
    /// Enters a process as starting.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn register(&self, new: &NewReplica) -> Result<(), DbError> {
        let now = self.now();
        let mut insert = Query::insert();
        insert.into_table(TABLE).columns(COLUMNS).values_panic([
            new.id.into(),
            new.name.as_str().into(),
            new.version.as_str().into(),
            serde_json::to_value(&new.roles)?.into(),
            new.zone.as_str().into(),
            new.internal_url.clone().into(),
            now.clone(),
            now,
            ReplicaState::Starting.as_str().into(),
            serde_json::json!({}).into(),
        ]);
        insert.on_conflict(
            OnConflict::column("id")
                .update_columns(COLUMNS.into_iter().filter(|c| *c != "id"))
                .to_owned(),
        );
        let tx = self.0.begin().await?;
        tx.execute(&insert).await?;
        tell(&tx, "system.replica_joined", new.id, &new.name)?;
        tx.commit().await?;
        Ok(())
    }

    /// A sign of life. False when the row is gone (the process was away for long): register again.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn heartbeat(
        &self,
        id: Uuid,
        state: ReplicaState,
        numbers: &serde_json::Value,
    ) -> Result<bool, DbError> {
        let tx = self.0.begin().await?;
        let mut change = Query::update();
        change
            .table(TABLE)
            .value("state", state.as_str())
            .and_where(Expr::col("id").eq(id))
            .and_where(Expr::col("state").ne(state.as_str()))
            .returning(Query::returning().columns(COLUMNS));
        if let Some(row) = tx.query_one(&change).await? {
            let topic = format!("system.replica_{}", state.as_str());
            tell(&tx, &topic, id, &from_row(&row)?.name)?;
        }
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("heartbeat_at", self.now())
            .value("numbers", numbers.clone())
            .and_where(Expr::col("id").eq(id));
        let known = tx.execute(&update).await?.rows_affected() > 0;
        tx.commit().await?;
        Ok(known)
    }

    /// Marks those that were not heard of as lost and gives them, each once; forgets old ones.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn sweep(&self) -> Result<Vec<Replica>, DbError> {
        let tx = self.0.begin().await?;
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("state", ReplicaState::Lost.as_str())
            .and_where(Expr::col("heartbeat_at").lt(self.ago(LOST_AFTER)))
            .and_where(Expr::col("state").ne(ReplicaState::Lost.as_str()))
            .returning(Query::returning().columns(COLUMNS));
        let rows = tx.query_all(&update).await?;
        let lost: Vec<Replica> = rows.iter().map(from_row).collect::<Result<_, _>>()?;
        for replica in &lost {
            tell(&tx, "system.replica_lost", replica.id, &replica.name)?;
        }
        let mut delete = Query::delete();
        delete
            .from_table(TABLE)
            .and_where(Expr::col("heartbeat_at").lt(self.ago(FORGOTTEN_AFTER)));
        tx.execute(&delete).await?;
        tx.commit().await?;
        Ok(lost)
    }

    /// All replicas by name; those not heard of show as lost whether or not somebody has swept.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list(&self) -> Result<Vec<Replica>, DbError> {
        let now = self.0.time().await?;
        let mut select = Query::select();
        select
            .columns(COLUMNS)
            .from(TABLE)
            .order_by("name", Order::Asc)
            .order_by("id", Order::Asc);
        let rows = self.0.reader().query_all(&select).await?;
        rows.iter()
            .map(|row| {
                let mut replica = from_row(row)?;
                if (now - replica.heartbeat_at).to_std().unwrap_or_default() > LOST_AFTER {
                    replica.state = ReplicaState::Lost;
                }
                Ok(replica)
            })
            .collect()
    }

    /// Takes a process out that ends in order.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn leave(&self, id: Uuid) -> Result<(), DbError> {
        let mut delete = Query::delete();
        delete.from_table(TABLE).and_where(Expr::col("id").eq(id));
        let tx = self.0.begin().await?;
        tx.execute(&delete).await?;
        tx.commit().await?;
        Ok(())
    }

    fn now(&self) -> Expr {
        time::now_expr(self.0.inner().sea_backend(), self.0.clock())
    }

    fn ago(&self, back: Duration) -> Expr {
        time::back_expr(self.0.inner().sea_backend(), self.0.clock(), back)
    }
}

/// Publishes what happened to a replica.
fn tell(tx: &WriteTx, topic: &str, id: Uuid, name: &str) -> Result<(), DbError> {
    let payload = serde_json::json!({ "id": id, "name": name });
    tx.publish(topic, &id.to_string(), &payload)
}

fn from_row(row: &QueryResult) -> Result<Replica, DbError> {
    let roles: serde_json::Value = row.try_get("", "roles")?;
    let state: String = row.try_get("", "state")?;
    Ok(Replica {
        id: row.try_get("", "id")?,
        name: row.try_get("", "name")?,
        version: row.try_get("", "version")?,
        roles: serde_json::from_value(roles)?,
        zone: row.try_get("", "zone")?,
        internal_url: row.try_get("", "internal_url")?,
        started_at: row.try_get("", "started_at")?,
        heartbeat_at: row.try_get("", "heartbeat_at")?,
        state: ReplicaState::parse(&state)?,
        numbers: row.try_get("", "numbers")?,
    })
}
