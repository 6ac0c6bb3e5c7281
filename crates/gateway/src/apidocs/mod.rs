//! One API document for all services, ours and strangers', and a page that shows it without a network.

mod merge;
mod page;

use std::sync::Arc;

use portico_base::Principal;
use portico_contract::documents::ApiDocuments;
use serde_json::Value;

pub use merge::merge;
pub(crate) use page::router;

/// Where the merged document comes from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiDocs {
    /// JSON texts: the merged document takes megabytes, and somebody asks for it once a week.
    own: Arc<[(&'static str, Arc<str>)]>,
    others: Option<Arc<dyn ApiDocuments>>,
}

impl ApiDocs {
    /// Our own services' documents by name, and the source of the others'.
    pub(crate) fn new(
        own: Vec<(&'static str, Arc<str>)>,
        others: Option<Arc<dyn ApiDocuments>>,
    ) -> Self {
        Self {
            own: own.into(),
            others,
        }
    }

    /// The document that a principal may see: its tenant's services and the global ones. Computes for
    /// milliseconds.
    pub(crate) fn document(&self, principal: &Principal) -> Value {
        let part = |(name, text): &(_, Arc<str>)| Some((*name, serde_json::from_str(text).ok()?));
        let mut document = merge::of_parts(self.own.iter().filter_map(part));
        for other in self.others.iter().flat_map(|source| source.all()) {
            if other.tenant.is_none_or(|tenant| tenant == principal.tenant) {
                merge::add_stranger(&mut document, &other.service, &other.document);
            }
        }
        document
    }
}
