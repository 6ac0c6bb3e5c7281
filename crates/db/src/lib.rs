//! The only crate that names a database: connections, write transactions, migrations, outbox, leases.
//!
//! Services read through [`Db::reader`] and write through [`Db::begin`] or [`Db::begin_durable`] with
//! SeaORM; whatever needs SQL text lives here. One code base serves SQLite (single mode) and PostgreSQL
//! (scaled mode).

mod connect;
mod db;
mod durable;
mod error;
mod follower;
mod hold;
mod installation;
mod lease;
mod load;
pub mod metrics;
mod migrate;
mod migrations;
mod options;
mod outbox;
mod reader;
mod relay;
mod replica;
pub mod schema;
mod seq;
mod session;
mod shape;
mod slow;
mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod tx;
mod wake;

pub use db::Db;
pub use error::{DbError, ERROR_LABELS, Transient};
pub use follower::{Follower, News};
pub use hold::Held;
pub use installation::Installation;
pub use lease::{Lease, LeaseTiming, Leases};
pub use load::{JUMP, Load, RESTORE_PENDING};
pub use migrate::{
    Change, MigrationReport, MigrationStatus, Migrations, PlannedStep, Step, step_names, version,
};
pub use options::{Backend, DbOptions, Pooler, Tls, TlsMode};
pub use outbox::{KEPT, Outbox, OutboxRow};
pub use reader::Reader;
pub use replica::{
    HEARTBEAT, LOST_AFTER, NewReplica, Replica, ReplicaState, Replicas, replica_name,
};
pub use sea_orm;
pub use sea_orm::sea_query;
pub use shape::{Cell, CellKind, ColumnShape, TableShape};
pub use slow::{SlowStatement, SlowStatements};
pub use snapshot::Snapshot;
pub use tx::{Committed, WriteTx};
pub use wake::Subscription;
