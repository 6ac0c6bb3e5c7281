//! Apple as a provider of identities: its addresses, its keys, its statements, and our account with it (ID-65…70).

mod account;
mod client;
mod keys;
pub(crate) mod statement;

use std::sync::Arc;

use portico_base::Clock;
use portico_host::Spawner;

pub(crate) use account::{Account, account};
use client::Client;
pub(crate) use client::{Code, Failure};
use keys::Keys;

/// Where Apple is asked. Not read from Apple's discovery document, which has named an issuer before that no
/// token had, and never from a setting.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub authorize: String,
    pub token: String,
    pub revoke: String,
    pub keys: String,
}

impl Endpoints {
    /// Apple's own.
    pub(crate) fn apple() -> Self {
        Self::at("https://appleid.apple.com")
    }

    fn at(origin: &str) -> Self {
        Self {
            authorize: format!("{origin}/auth/authorize"),
            token: format!("{origin}/auth/token"),
            revoke: format!("{origin}/auth/revoke"),
            keys: format!("{origin}/auth/keys"),
        }
    }

    /// A stand-in's.
    #[cfg(test)]
    pub(crate) fn standin(origin: &str) -> Self {
        Self::at(origin)
    }
}

/// Apple, as one process knows it.
pub(crate) struct Apple {
    pub endpoints: Endpoints,
    pub client: Client,
    pub keys: Keys,
}

impl Apple {
    pub(crate) fn new(endpoints: Endpoints, spawner: &Spawner, clock: &Arc<dyn Clock>) -> Self {
        let client = Client::new();
        Self {
            keys: Keys::new(
                endpoints.keys.clone(),
                client.clone(),
                spawner.clone(),
                Arc::clone(clock),
            ),
            client,
            endpoints,
        }
    }
}
