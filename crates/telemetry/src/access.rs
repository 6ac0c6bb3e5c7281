//! The access log (OB-33): a stream of its own, written per worker without waiting, with the last 10,000 records in memory.

mod record;
mod sampling;
mod stream;

pub use record::{AccessEntry, AccessRecord};
pub use sampling::AccessMode;
pub(crate) use stream::FAMILIES;
pub use stream::{AccessLog, AccessOptions, AccessWriter};
