//! Who hears of requests that were refused or failed, for the audit (CT-31, CT-32).

use std::sync::Arc;

use portico_base::Context;

/// A request that did not end well.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Who asked, when, from where.
    pub context: Context,
    /// Refused for lack of a right; else tried and failed.
    pub denied: bool,
    /// `POST /api/identity/users/{id}/disable`: the method and the path as it was declared.
    pub route: String,
    /// The path as it was asked for, without its query.
    pub path: String,
    /// Code of the answer.
    pub code: String,
}

/// Hears of failures. Provided by audit; it must be quick and never wait, because data threads call it.
pub trait Failures: Send + Sync {
    /// Takes note.
    fn note(&self, failed: Failed);
}

/// Who hears of the failures of one service's routes.
#[derive(Clone)]
pub struct Reporter {
    /// Name of the service, for paths.
    pub service: &'static str,
    /// Who hears.
    pub to: Arc<dyn Failures>,
}
