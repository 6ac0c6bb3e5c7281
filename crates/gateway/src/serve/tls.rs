//! Certificates of the listening side: from files, chosen by SNI, reloaded when the files change.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// How often the files are looked at; a change is used at most twice this later.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Names it is for, exact or `*.example.com`. Empty: those that it carries itself. The first of
    /// these is also for clients without SNI and for names that no other has.
    pub names: Vec<String>,
}

/// Certificates in use by all TLS listeners.
pub struct CertStore {
    files: Vec<CertFiles>,
    resolver: Arc<Resolver>,
    acceptor: TlsAcceptor,
    seen: Mutex<Vec<Stamp>>,
}

type Stamp = [Option<(SystemTime, u64)>; 2];

impl CertStore {
    /// Reads all files.
    ///
    /// # Errors
    /// The first file that cannot be read or does not fit its key, with its path.
    pub fn load(files: Vec<CertFiles>) -> io::Result<Arc<Self>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen = files.iter().map(stamp).collect();
        let resolver = Arc::new(Resolver {
            table: ArcSwap::from_pointee(read_all(&files, &provider)?),
        });
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(io::Error::other)?;
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Arc::new(Self {
            files,
            resolver,
            acceptor,
            seen: Mutex::new(seen),
        }))
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Looks at the files now and takes them when any has changed. What cannot be read leaves the
    /// certificates in use as they are.
    ///
    /// # Errors
    /// As [`CertStore::load`].
    pub fn reload(&self) -> io::Result<bool> {
        let now: Vec<Stamp> = self.files.iter().map(stamp).collect();
        if *self.seen.lock() == now {
            return Ok(false);
        }
        let table = read_all(&self.files, &rustls::crypto::aws_lc_rs::default_provider())?;
        self.resolver.table.store(Arc::new(table));
        *self.seen.lock() = now;
        Ok(true)
    }

    /// Reloads for ever; to be spawned on the shared runtime.
    pub async fn watch(self: Arc<Self>) {
        let mut broken = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let store = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || store.reload()).await {
                Ok(Ok(true)) => {
                    broken = false;
                    info!("certificates were reloaded");
                }
                Ok(Ok(false)) => {}
                // Files are often replaced one after the other: said once, tried again.
                Ok(Err(e)) if !broken => {
                    broken = true;
                    warn!(error = %e, "changed certificates cannot be used; the old ones stay");
                }
                Ok(Err(_)) => {}
                Err(e) => warn!(error = %e, "certificates cannot be looked at"),
            }
        }
    }
}

#[derive(Default)]
struct Table {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Chosen by the names in the certificate.
    unnamed: Vec<Arc<CertifiedKey>>,
    fallback: Option<Arc<CertifiedKey>>,
}

struct Resolver {
    table: ArcSwap<Table>,
}

impl Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.table.load().find(hello.server_name())
    }
}

impl Table {
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let by_name = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = || {
                name.split_once('.')
                    .and_then(|(_, parent)| self.wildcard.get(parent))
            };
            let own = || self.unnamed.iter().find(|key| carries(key, &name));
            self.exact.get(name.as_str()).or_else(parent).or_else(own)
        });
        by_name.or(self.fallback.as_ref()).cloned()
    }
}

/// True when the certificate itself is for `name`.
fn carries(key: &CertifiedKey, name: &str) -> bool {
    let Some(certificate) = key
        .cert
        .first()
        .and_then(|c| ParsedCertificate::try_from(c).ok())
    else {
        return false;
    };
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
}

fn read_all(files: &[CertFiles], provider: &CryptoProvider) -> io::Result<Table> {
    let (mut table, mut first) = (Table::default(), None);
    for file in files {
        let key = Arc::new(read(file, provider)?);
        for name in &file.names {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => table.wildcard.insert(parent.into(), Arc::clone(&key)),
                None => table.exact.insert(name.into(), Arc::clone(&key)),
            };
        }
        if file.names.is_empty() {
            table.unnamed.push(key);
        } else if first.is_none() {
            first = Some(key);
        }
    }
    table.fallback = table.unnamed.first().cloned().or(first);
    Ok(table)
}

fn read(file: &CertFiles, provider: &CryptoProvider) -> io::Result<CertifiedKey> {
    let in_file = |path: &Path, e: &dyn std::fmt::Display| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {e}", path.display()),
        )
    };
    let chain = CertificateDer::pem_file_iter(&file.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| in_file(&file.certificate, &e))?;
    if chain.is_empty() {
        return Err(in_file(&file.certificate, &"no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&file.key).map_err(|e| in_file(&file.key, &e))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|e| in_file(&file.key, &e))
}

fn stamp(file: &CertFiles) -> Stamp {
    [&file.certificate, &file.key].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}
