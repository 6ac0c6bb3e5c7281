//! What a backup says about itself: at its beginning what it is, at its end what is in it.

use portico_base::Timestamp;
use portico_db::TableShape;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// First record of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its id.
    pub id: Uuid,
    /// When its view of the database began.
    pub made_at: Timestamp,
    /// Release that made it.
    pub version: String,
    /// Database that it was made from; it can be restored into another one.
    pub backend: String,
    /// Name of the installation.
    pub installation: String,
    /// Proof of the master key that secrets in the rows are sealed with; never the key.
    pub key_check: Option<String>,
    /// Migration steps that the rows fit, `service/step`, sorted.
    pub steps: Vec<String>,
    /// Oldest release that can work with those steps; empty means any.
    pub min_binary: String,
    /// What is there of the object store.
    pub objects: ObjectsIn,
    /// All tables, sorted by name.
    pub tables: Vec<TableShape>,
}

/// What a backup holds of the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectsIn {
    /// Nothing.
    None,
    /// Names and sizes, and hashes of one in a hundred.
    Names,
    /// The objects themselves.
    Whole,
}

/// Last record of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// SHA-256 of the first record, hex.
    pub manifest_sha256: String,
    /// What is in each table.
    pub tables: Vec<TableSummary>,
    /// What is there of the object store.
    pub objects: ObjectsSummary,
}

/// What is in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSummary {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 of its rows as they are written, hex.
    pub sha256: String,
}

/// What is there of the object store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectsSummary {
    /// Objects that are there, or are named.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// SHA-256 over their records, hex.
    pub sha256: String,
}

/// An object as a backup names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectEntry {
    /// Its name.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Content type; empty where only names are kept.
    pub content_type: String,
    /// SHA-256, hex, where the object was read: always behind its bytes, else for one in a hundred.
    pub sha256: Option<String>,
}

impl Summary {
    /// Rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// Whether an object is one of the one in a hundred whose bytes are compared. The same ones every time,
/// so that a backup and its verification look at the same.
pub(crate) fn is_sampled(key: &str) -> bool {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let number = hash
        .as_ref()
        .iter()
        .take(2)
        .fold(0_u32, |n, byte| (n << 8) | u32::from(*byte));
    number.is_multiple_of(100)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}
