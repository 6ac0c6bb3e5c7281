//! The sections of the configuration; this is the only place where keys are declared.

mod process;
mod services;
mod storage;
mod telemetry;
mod traffic;

use crate::free::{FreeTable, TenantSettings};
use crate::key::section;

pub use process::{Limits, Node, Role, Shutdown};
pub use services::{Auth, Backup, BackupS3, Consul};
pub use storage::{
    Database, DatabaseTls, DatabaseTlsMode, Encryption, Keys, ObjectKind, Objects, Pooler, Redis,
};
pub use telemetry::{
    LocalTraces, Log, LogFilter, LogFormat, LogTarget, Metrics, OtlpProtocol, Telemetry, Traces,
};
pub use traffic::{
    Acme, AcmeChallenge, InternalTls, Listeners, Reflection, Server, Tls, TlsVersion,
};

section! {
    /// The whole configuration.
    pub struct Config {
        groups {
            node: Node,
            server: Server,
            listen: Listeners,
            tls: Tls,
            database: Database,
            redis: Redis,
            objects: Objects,
            keys: Keys,
            telemetry: Telemetry,
            shutdown: Shutdown,
            limits: Limits,
            backup: Backup,
            consul: Consul,
            auth: Auth,
            settings: FreeTable,
            settings_tenant: TenantSettings,
            agents: FreeTable,
        }
    }
}
