//! The border across which contracts take part in a database transaction without knowing the database.

use std::any::Any;

/// An open write transaction, as contracts see it. Implemented by the database crate.
pub trait Tx: Send + Sync {
    /// The concrete transaction, for the implementation behind a contract.
    fn as_any(&self) -> &dyn Any;

    /// Runs `f` once the transaction has been committed; never when it is rolled back.
    fn after_commit(&self, f: Box<dyn FnOnce() + Send>);
}
