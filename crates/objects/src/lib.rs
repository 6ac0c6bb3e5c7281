//! Object storage: bytes under a name, in files of this machine or in a bucket that speaks S3.
//!
//! One handle, [`Objects`], serves both. An object appears whole or not at all, has a size and a
//! content type, and is listed by folder. Names ([`Key`]) are chosen by our code and never by a user.
//! Nothing here is transactional: whoever keeps a row about an object writes the object first and
//! the row after it, and removes them the other way round.

mod backend;
mod error;
mod key;
mod local;
mod metrics;
mod objects;
mod s3;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::{Body, Meta, Object, Page};
pub use error::ObjectError;
pub use key::Key;
pub use objects::{Objects, Stored, Writer};
pub use s3::{Encryption, S3Options};

/// Declares what this crate exports, for the documentation.
pub fn declare_metrics(registry: &portico_telemetry::metrics::Registry) {
    registry.declare(&metrics::FAMILIES);
}
