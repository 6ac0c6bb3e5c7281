//! The host: what a service is, how a process starts, serves, drains and stops.
//!
//! Start: everything is parsed, all faults are reported at once, then lock → connect → migrate →
//! build in order → ready → listeners last. Stop: unready → drain with a deadline → workers in
//! reverse → flush.

mod admin;
mod audit_log;
mod audit_switch;
mod background;
mod build;
pub mod datadir;
mod degraded;
mod disk;
mod error;
mod evict;
mod figures;
pub mod health;
mod numbers;
mod objects;
mod operator;
pub mod own;
pub mod process;
mod provided;
mod rpc;
mod sealed;
mod service;
mod settings_file;
mod settings_layers;
mod skew;
pub mod spawn;
mod surface;
mod telemetry;

pub use audit_switch::AuditSwitch;
pub use build::{
    after_restore, check_settings, db_options, existing_master_keys, migration_error, migrations,
};
pub use disk::{Disk, disk_space};
pub use error::{StartError, exit};
pub use evict::evict_by_events;
pub use figures::declare_metrics;
pub use health::{Check, CheckResult, Health};
pub use numbers::ReplicaNumbers;
pub use objects::of as objects_of;
pub use own::OwnAddresses;
pub use portico_telemetry::Runtimes;
pub use process::{Composition, Entry, Options, Process, Ready};
pub use provided::Provided;
pub use rpc::ListenerTls;
pub use sealed::{RowKey, SealedColumn};
pub use service::{BuildCx, BuiltService, NodeInfo, Running, Service, Worker};
pub use settings_file::FileSettings;
pub use settings_layers::SettingsLayers;
pub use spawn::Spawner;
pub use surface::{Drained, HttpSurface, Open, Surface};
pub use telemetry::Telemetry;
