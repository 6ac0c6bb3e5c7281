//! Plug-ins that get the caller's token itself: tokens name them in `aud`, so that they may verify it (ID-90).

use std::sync::{Arc, OnceLock};

use portico_contract::directory::DirectorySource;
use uuid::Uuid;

/// Most plug-ins that a token names; each costs its name.
const MOST: usize = 8;

/// Who asks for tokens, as the directory says.
#[derive(Default)]
pub(super) struct Audiences(OnceLock<Arc<dyn DirectorySource>>);

impl Audiences {
    pub(super) fn follow(&self, directory: Arc<dyn DirectorySource>) {
        let _first = self.0.set(directory);
    }

    /// Names of the services that a tenant's tokens are for besides the installation, sorted.
    pub(super) fn of(&self, tenant: Uuid) -> Vec<String> {
        let Some(source) = self.0.get() else {
            return Vec::new();
        };
        let directory = source.current();
        let asks = directory.services.values().filter(|service| {
            service.forward_credentials
                && !service.builtin
                && service.key.tenant.is_none_or(|owner| owner == tenant)
        });
        let mut names: Vec<String> = asks.map(|s| s.key.name.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(MOST);
        names
    }
}
