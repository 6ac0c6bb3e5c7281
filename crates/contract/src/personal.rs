//! A person's data: every service that keeps some gives it out and erases it (ID-150…152).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::Context;
use serde_json::Value;
use uuid::Uuid;

/// Why a part could not be given out or erased; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("personal data cannot be reached now")]
pub struct PersonalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// One service's part of a person's data.
pub trait PersonalData: Send + Sync {
    /// Name of the service, and of its file in an export.
    fn service(&self) -> &'static str;

    /// Everything that the service keeps about a user, readable by the user; nothing when it keeps none.
    fn export<'a>(
        &'a self,
        context: &'a Context,
        tenant: Uuid,
        user: Uuid,
    ) -> BoxFuture<'a, Result<Option<Value>, PersonalError>>;

    /// Removes it. Done twice it does the same as once.
    fn erase<'a>(
        &'a self,
        context: &'a Context,
        tenant: Uuid,
        user: Uuid,
    ) -> BoxFuture<'a, Result<(), PersonalError>>;
}

/// The parts of all services; clones share them.
#[derive(Clone, Default)]
pub struct PersonalParts(Arc<parking_lot::RwLock<Vec<Arc<dyn PersonalData>>>>);

impl PersonalParts {
    /// Adds a service's part.
    pub fn add(&self, part: Arc<dyn PersonalData>) {
        self.0.write().push(part);
    }

    /// All parts, in the order in which they were added.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<dyn PersonalData>> {
        self.0.read().clone()
    }
}
