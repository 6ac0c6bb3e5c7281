//! Backups: one encrypted file with everything that an installation is, but the master key.
//!
//! A backup holds rows and not pages, so that it can be restored into either database. It is made from one
//! consistent view while everybody goes on writing, and it is read whole, every byte of it checked, before
//! anything is written from it.
//!
//! The file (all numbers little-endian):
//!
//! ```text
//! "PORTBK\r\n" ‖ u32 length ‖ header (JSON: format, key, salt)
//! frames:  u32 length ‖ AES-256-GCM( method ‖ u32 plain length ‖ up to 1 MiB, zstd or as it is ) ‖ tag
//! records: kind ‖ u32 length ‖ body      manifest, tables with their rows, objects, summary
//! ```
//!
//! Each file has a key of its own: HKDF-SHA256 of the master key and the salt, or of an X25519 agreement
//! with a recipient. The nonce of a frame is its number and whether it is the last; the header's hash is
//! associated data of every frame. So frames cannot be changed, swapped, left out or taken from another
//! file. The summary repeats counts and hashes of everything.

mod dump;
mod error;
mod insert;
mod keep;
mod key;
mod key_copy;
mod manifest;
mod pending;
mod read;
mod recipient;
mod record;
mod restore;
mod settle;
#[cfg(test)]
mod tests;
mod write;

pub use dump::{Dump, Made, file_name};
pub use error::{BackupError, Result};
pub use keep::Keep;
pub use key::{Lock, Unlock};
pub use key_copy::{CopyError, open_copy, seal_copy};
pub use manifest::{Manifest, ObjectEntry, ObjectsIn, ObjectsSummary, Summary, TableSummary};
pub use pending::{Outcome, Pending};
pub use read::Source;
pub use recipient::{Identity, Recipient};
pub use restore::{Checked, House, Report, Restore, check, peek};
