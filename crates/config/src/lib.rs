//! Configuration: what a process must know before it starts, from defaults, a file, the environment
//! and flags (operations §1.2).
//!
//! [`load`] takes an [`Input`] and returns a typed [`Config`] with the [`Origins`] of its values, or
//! every [`Fault`] at once. Keys are declared in one place, [`sections`]; the default file, the
//! schema and the documentation are written from the same declarations.

mod check;
mod config;
mod diff;
mod docs;
mod env;
mod expand;
mod fault;
mod format;
mod free;
mod key;
mod layer;
mod load;
mod net;
mod origin;
mod raw;
mod render;
mod schema;
mod show;
mod types;
mod urls;

pub mod sections;

pub use check::parse_headers;
pub use diff::{Change, Changes, diff};
pub use docs::docs;
pub use fault::{EXIT_CODE, Fault, Faults, Warning};
pub use format::document;
pub use free::{FirstValue, FreeTable, SettingKey, TenantSettings};
pub use load::{AlsoCheck, Flag, Input, Loaded, MAX_FILE_BYTES, load, read_file, searched};
pub use net::{HostName, Listen, Name, TrustedProxies};
pub use origin::{Origin, Origins};
pub use raw::{Entry, Raw};
pub use render::render_default;
pub use schema::schema;
pub use sections::*;
pub use show::{Row, rows, show};
pub use types::{Auto, Email, MasterKey, Millis, Prefix, Seconds};
pub use urls::{DatabaseKind, DatabaseUrl, HttpUrl, RedisKind, RedisUrl, is_loopback_host};
