//! The objects that operators write: documents, versions, history; compiled into the route table.

mod book;
pub mod doc;
mod faults;
mod kind;
mod ops;
mod store;

pub use book::Book;
pub use doc::{Object, Objects, Validate};
pub use faults::ROOTS;
pub use kind::Kind;
pub(crate) use ops::{Amendment, Ops, Saved, Wish};
pub(crate) use store::Version;
