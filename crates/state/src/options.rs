//! What the state is built from.

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Clock, Random, Secret};
use portico_telemetry::metrics::Registry;

/// Where Redis is. The URL may be `redis://` or `rediss://` (one server), `unix:///path`,
/// `redis-sentinel://[user:password@]host:26379,host2/master-name[/db]`, or
/// `redis-cluster://[user:password@]host,host2`; a `+tls` behind the latter two (`redis-cluster+tls://`)
/// asks for TLS.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The URL; a secret, because it may hold a password.
    pub url: Secret<String>,
    /// Begin of every key and channel.
    pub prefix: String,
    /// Connections per process (1 to 32); one is enough for most, more keep large values apart.
    pub pool: usize,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a command; no caller waits longer.
    pub command_timeout: Duration,
    /// Certificate authorities in PEM instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
}

impl RedisOptions {
    /// The defaults of `redis.*` for a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url.into()),
            prefix: "portico:".to_owned(),
            pool: 8,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_millis(500),
            ca_pem: None,
        }
    }
}

/// What the state takes from the process around it.
#[derive(Clone)]
pub struct Deps {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from (jitter, ids of messages).
    pub random: Arc<dyn Random>,
    /// Where figures go.
    pub registry: Registry,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").finish_non_exhaustive()
    }
}

impl Deps {
    /// System time and randomness.
    #[must_use]
    pub fn system(registry: &Registry) -> Self {
        Self {
            clock: Arc::new(portico_base::SystemClock),
            random: Arc::new(portico_base::SystemRandom),
            registry: registry.clone(),
        }
    }
}
