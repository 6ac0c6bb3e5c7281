//! OpenAPI documents of registered services, gathered in the background (PL-8).

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

/// The newest document of one service.
#[derive(Debug, Clone)]
pub struct ApiDocument {
    /// Name of the service.
    pub service: Arc<str>,
    /// The tenant that owns the service; absent for a global one.
    pub tenant: Option<Uuid>,
    /// Version of the instance that it was fetched from.
    pub version: Arc<str>,
    /// The document as the service wrote it, at most 4 MiB.
    pub document: Arc<Value>,
}

/// Where the documents come from. Provided by the registry.
pub trait ApiDocuments: Send + Sync {
    /// All documents, in the order of the services' names.
    fn all(&self) -> Vec<ApiDocument>;
}
