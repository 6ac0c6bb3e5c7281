//! Sealed rows: every service that keeps envelopes can count them by master key and seal them anew (CT-21).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;

/// Why rows could not be counted or sealed anew; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("sealed rows cannot be reached now")]
pub struct SealedError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What one step of a rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Rows sealed anew.
    pub done: u64,
    /// Rows that cannot be opened with any key of this process; they stay as they are.
    pub broken: u64,
    /// Where to go on; nothing at the end.
    pub next: Option<String>,
}

/// The sealed rows of one table.
pub trait SealedRows: Send + Sync {
    /// `service.what` (`settings.value`, `identity.totp`).
    fn name(&self) -> &'static str;

    /// Number of envelopes by the id of their master key.
    fn count(&self) -> BoxFuture<'_, Result<BTreeMap<String, u64>, SealedError>>;

    /// Seals at most `limit` rows behind `after` anew, those that are not sealed with the current key, in
    /// one transaction.
    fn reseal<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: u64,
    ) -> BoxFuture<'a, Result<Step, SealedError>>;
}

/// The sealed rows of all services; clones share them.
#[derive(Clone, Default)]
pub struct SealedParts(Arc<RwLock<Vec<Arc<dyn SealedRows>>>>);

impl SealedParts {
    /// Adds a table.
    pub fn add(&self, part: Arc<dyn SealedRows>) {
        self.0.write().push(part);
    }

    /// All tables, in the order in which they were added.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<dyn SealedRows>> {
        self.0.read().clone()
    }
}
