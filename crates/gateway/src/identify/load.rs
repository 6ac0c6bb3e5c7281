//! Credentials that are not in memory: read off the data threads, few at a time, within a time limit (ID-132).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portico_base::Secret;
use portico_contract::credentials::CredentialSource;
use portico_host::Spawner;
use tokio::sync::{Semaphore, oneshot};

/// Credentials that are read at the same time by one process; further ones are refused.
const AT_ONCE: usize = 64;
/// The longest wait for one.
const PATIENCE: Duration = Duration::from_secs(2);

/// A credential that its source has to read.
pub struct Unloaded {
    source: Arc<dyn CredentialSource>,
    token: Secret<String>,
}

impl Unloaded {
    pub(super) fn new(source: &Arc<dyn CredentialSource>, token: &str) -> Self {
        Self {
            source: Arc::clone(source),
            token: Secret::from(token),
        }
    }
}

impl fmt::Debug for Unloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unloaded")
            .field(&self.source.prefix())
            .finish()
    }
}

/// Too many credentials are being read, or reading takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Has credentials read by the shared runtime. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    spawner: Spawner,
    seats: Arc<Semaphore>,
}

impl Loader {
    #[must_use]
    pub fn new(spawner: Spawner) -> Self {
        Self {
            spawner,
            seats: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Waits until a credential was looked for. Afterwards its source answers from memory, whatever was found.
    ///
    /// # Errors
    /// When it cannot be looked for now.
    pub async fn load(&self, wanted: Unloaded) -> Result<(), Busy> {
        let seat = Arc::clone(&self.seats)
            .try_acquire_owned()
            .map_err(|_| Busy)?;
        let (done, ended) = oneshot::channel();
        self.spawner.spawn("gateway-credential", async move {
            // The seat is kept until the reading has really ended, also when nobody waits any more.
            let _seat = seat;
            if let Some(reading) = wanted.source.load(wanted.token.expose())
                && tokio::time::timeout(PATIENCE, reading).await.is_ok()
            {
                // Nobody waits any more when the client has gone.
                let _gone = done.send(());
            }
        });
        ended.await.map_err(|_| Busy)
    }
}
