//! Where a request goes: an instance as its connection pool needs to know it.

use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderValue;

/// One instance. Built when the route table's snapshot is, shared by all workers.
#[derive(Debug)]
pub struct Target {
    /// For logs and errors.
    pub id: Box<str>,
    pub endpoint: Endpoint,
    pub protocol: Protocol,
    /// `Some` for `https` and `h2`.
    pub tls: Option<TlsTarget>,
    /// How long the instance keeps idle connections, when its registration says so.
    pub idle_life: Option<Duration>,
    leaving: Arc<AtomicBool>,
    key: u64,
}

/// The address of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A name or a literal address.
    Tcp { host: Box<str>, port: u16 },
    /// A socket of this machine.
    Unix(PathBuf),
}

/// What is spoken to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    /// With prior knowledge, or by ALPN on TLS.
    Http2,
}

/// How an instance proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsTarget {
    /// The name in its certificate; also sent as SNI.
    pub server_name: Box<str>,
    /// SHA-256 of its public key (SPKI); replaces the check of name and issuer.
    pub pin_sha256: Option<[u8; 32]>,
    /// No check at all: set by a super administrator only, shown red.
    pub insecure: bool,
    /// PEM of issuers to trust besides the system's.
    pub extra_roots: Option<Box<str>>,
}

impl Target {
    #[must_use]
    pub fn new(id: &str, endpoint: Endpoint, protocol: Protocol, tls: Option<TlsTarget>) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        (id, &endpoint, protocol, &tls).hash(&mut hasher);
        Self {
            id: id.into(),
            endpoint,
            protocol,
            tls,
            idle_life: None,
            leaving: Arc::default(),
            key: hasher.finish(),
        }
    }

    /// Sets how long the instance keeps idle connections.
    #[must_use]
    pub fn with_idle_life(mut self, idle_life: Option<Duration>) -> Self {
        self.idle_life = idle_life;
        self
    }

    /// Says where it is told that the instance leaves: the same in all snapshots.
    #[must_use]
    pub fn with_leaving(mut self, leaving: Arc<AtomicBool>) -> Self {
        self.leaving = leaving;
        self
    }

    /// Set once the instance drains or is gone.
    pub(super) fn leaving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.leaving)
    }

    /// `Host` for a request that has none.
    pub(super) fn authority(&self) -> HeaderValue {
        let text = match &self.endpoint {
            Endpoint::Tcp { host, port } if host.contains(':') && !host.starts_with('[') => {
                format!("[{host}]:{port}")
            }
            Endpoint::Tcp { host, port } => format!("{host}:{port}"),
            Endpoint::Unix(_) => "localhost".to_owned(),
        };
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("localhost"))
    }

    /// Tells pools apart; the same for the same instance at the same address in any snapshot.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }
}
