//! What a service does with its rows when they come out of a backup (CT-122, CT-123, BK-4).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::envelope::MasterKeys;
use portico_base::{Random, Timestamp, Tx};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A restore as the parts see it.
#[derive(Clone)]
pub struct Restoring {
    /// Now.
    pub now: Timestamp,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
    /// Keys of what is sealed in the rows.
    pub keys: Arc<MasterKeys>,
    /// The backup.
    pub backup: Uuid,
    /// When it was made: what was given out later is not in the rows.
    pub made_at: Timestamp,
    /// Whoever was logged in stays so, as far as the rows know of it.
    pub keep_sessions: bool,
}

/// Something that a part found or did, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The service.
    pub service: String,
    /// One sentence without a full stop.
    pub what: String,
    /// Something is wrong with the rows.
    pub fault: bool,
}

impl Finding {
    /// Something that was done, or is as it should be.
    #[must_use]
    pub fn note(service: &str, what: impl Into<String>) -> Self {
        Self {
            service: service.to_owned(),
            what: what.into(),
            fault: false,
        }
    }

    /// Something that is not as it should be.
    #[must_use]
    pub fn fault(service: &str, what: impl Into<String>) -> Self {
        Self {
            fault: true,
            ..Self::note(service, what)
        }
    }
}

/// A part could not do its work; the restore is not finished.
#[derive(Debug, thiserror::Error)]
#[error("restored rows could not be looked at or changed")]
pub struct PartFailed(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Findings of a part, or why there are none.
pub type Findings<'a> = BoxFuture<'a, Result<Vec<Finding>, PartFailed>>;

/// One service's part. It works on rows alone and must not need the running service: there is none when
/// the command line restores.
pub trait AfterRestore: Send + Sync {
    /// Name of the service.
    fn service(&self) -> &'static str;

    /// Looks for faults in the rows, without changing them. A verification does it in a scratch database.
    fn check<'a>(&'a self, tx: &'a dyn Tx, restoring: &'a Restoring) -> Findings<'a> {
        let _ = (tx, restoring);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Changes what must not hold any more (tokens, leases, positions of followers), once, in one
    /// transaction with all other parts.
    fn settle<'a>(&'a self, tx: &'a dyn Tx, restoring: &'a Restoring) -> Findings<'a>;
}
