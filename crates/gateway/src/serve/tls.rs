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
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::authority::Authority;

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

/// Where certificates come from, and what is spoken with them.
#[derive(Clone, Debug, Default)]
pub struct CertSource {
    pub files: Vec<CertFiles>,
    /// A folder of further pairs, `NAME.crt` or `NAME.pem` with `NAME.key`, each for the names that
    /// it carries. Pairs may come and go while we run.
    pub folder: Option<PathBuf>,
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
    /// Clients must show a certificate of the authority in this file (PEM).
    pub client_ca: Option<PathBuf>,
}

/// Certificates in use by all TLS listeners.
pub struct CertStore {
    source: CertSource,
    resolver: Arc<Resolver>,
    acceptor: TlsAcceptor,
    /// Who vouches for clients.
    authority: Option<Arc<Authority>>,
    state: Mutex<Loaded>,
}

/// What was read, and what the files were like then.
#[derive(Default)]
struct Loaded {
    pairs: Vec<(CertFiles, Arc<CertifiedKey>)>,
    seen: Vec<(CertFiles, Stamp)>,
    authority: Option<(SystemTime, u64)>,
}

type Stamp = [Option<(SystemTime, u64)>; 2];

impl CertStore {
    /// Reads all files.
    ///
    /// # Errors
    /// The first file that cannot be read or does not fit its key, with its path.
    pub fn load(files: Vec<CertFiles>) -> io::Result<Arc<Self>> {
        Self::open(CertSource {
            files,
            ..CertSource::default()
        })
    }

    /// As [`CertStore::load`], with all that a source can say.
    ///
    /// # Errors
    /// As [`CertStore::load`]; also when the folder cannot be read.
    pub fn open(source: CertSource) -> io::Result<Arc<Self>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let ca = source.client_ca.as_deref();
        let mut state = Loaded {
            authority: ca.and_then(changed),
            ..Loaded::default()
        };
        let authority = ca
            .map(|file| Authority::open(file, &provider))
            .transpose()?;
        if let Some(error) = state.read(source.pairs()?, &provider) {
            return Err(error);
        }
        if let (true, Some(folder)) = (state.pairs.is_empty(), &source.folder) {
            let text = format!("{}: no certificate in it", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let resolver = Arc::new(Resolver {
            table: ArcSwap::from_pointee(Table::new(&state.pairs)),
        });
        let versions: &[_] = if source.only_tls13 {
            &[&rustls::version::TLS13]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?;
        let builder = match &authority {
            Some(authority) => builder
                .with_client_cert_verifier(Arc::clone(authority) as Arc<dyn ClientCertVerifier>),
            None => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Arc::new(Self {
            source,
            resolver,
            acceptor,
            authority,
            state: Mutex::new(state),
        }))
    }

    /// Each certificate's first name, or else its file's, with the end of its validity in Unix seconds.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, i64)> {
        let state = self.state.lock();
        let one = |(file, key): &(CertFiles, Arc<CertifiedKey>)| {
            let stem = || file.certificate.file_stem()?.to_str().map(str::to_owned);
            let name = file.names.first().cloned().or_else(stem)?;
            Some((name, super::expiry::not_after(key.cert.first()?)?))
        };
        state.pairs.iter().filter_map(one).collect()
    }

    /// What is spoken with these certificates, for listeners that are not the door's: a changed file changes
    /// theirs as well.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(self.acceptor.config())
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Looks at the files now and takes them when any has changed. A pair that cannot be read stays
    /// as it was; the others are taken all the same.
    ///
    /// # Errors
    /// As [`CertStore::open`].
    pub fn reload(&self) -> io::Result<bool> {
        let files = self.source.pairs()?;
        let mut state = self.state.lock();
        let renewed = self.renew_authority(&mut state)?;
        let unchanged = files.len() == state.seen.len()
            && files
                .iter()
                .zip(&state.seen)
                .all(|(file, (seen, at))| file == seen && stamp(file) == *at);
        if unchanged {
            return Ok(renewed);
        }
        let error = state.read(files, &rustls::crypto::aws_lc_rs::default_provider());
        self.resolver
            .table
            .store(Arc::new(Table::new(&state.pairs)));
        error.map_or(Ok(true), Err)
    }

    /// Reads the authority again when its file has changed.
    fn renew_authority(&self, state: &mut Loaded) -> io::Result<bool> {
        let (Some(authority), Some(file)) = (&self.authority, &self.source.client_ca) else {
            return Ok(false);
        };
        let now = changed(file);
        if now == state.authority {
            return Ok(false);
        }
        authority.reload()?;
        state.authority = now;
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
    fn new(pairs: &[(CertFiles, Arc<CertifiedKey>)]) -> Self {
        let (mut table, mut first) = (Self::default(), None);
        for (file, key) in pairs {
            for name in &file.names {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(parent) => table.wildcard.insert(parent.into(), Arc::clone(key)),
                    None => table.exact.insert(name.into(), Arc::clone(key)),
                };
            }
            if file.names.is_empty() {
                table.unnamed.push(Arc::clone(key));
            } else if first.is_none() {
                first = Some(Arc::clone(key));
            }
        }
        table.fallback = table.unnamed.first().cloned().or(first);
        table
    }

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

impl CertSource {
    /// All pairs there are now.
    fn pairs(&self) -> io::Result<Vec<CertFiles>> {
        let mut all = self.files.clone();
        let Some(folder) = &self.folder else {
            return Ok(all);
        };
        let in_folder =
            |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(in_folder)? {
            let certificate = entry.map_err(in_folder)?.path();
            let kind = certificate.extension().and_then(|e| e.to_str());
            if matches!(kind, Some("crt" | "pem")) {
                found.push(CertFiles {
                    key: certificate.with_extension("key"),
                    certificate,
                    names: Vec::new(),
                });
            }
        }
        // The first is for clients without SNI: it must not depend on the file system.
        found.sort_by(|a, b| a.certificate.cmp(&b.certificate));
        all.append(&mut found);
        Ok(all)
    }
}

impl Loaded {
    /// Reads all of `files`; one that cannot be read stays as it was, and is the answer.
    fn read(&mut self, files: Vec<CertFiles>, provider: &CryptoProvider) -> Option<io::Error> {
        let (mut pairs, mut seen, mut error) = (Vec::new(), Vec::new(), None);
        for file in files {
            // Looked at before it is read: what changes in between is read again.
            let at = stamp(&file);
            match read(&file, provider) {
                Ok(key) => {
                    pairs.push((file.clone(), Arc::new(key)));
                    seen.push((file, at));
                }
                Err(e) => {
                    pairs.extend(self.pairs.iter().find(|(old, _)| *old == file).cloned());
                    seen.push((file, [None, None]));
                    error = error.or(Some(e));
                }
            }
        }
        (self.pairs, self.seen) = (pairs, seen);
        error
    }
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
    [&file.certificate, &file.key].map(|path| changed(path))
}

fn changed(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}
