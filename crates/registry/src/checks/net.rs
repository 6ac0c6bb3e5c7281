//! Where a check goes, and the connection to it: addresses are judged here, at the very connect (RG-10).

use std::fmt;
use std::sync::Arc;

use portico_contract::address::AddressGuard;
use portico_contract::directory::Protocol;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;

use super::Finding;
use crate::domain::instance::{Definition, authority};
use crate::resolve::resolve;

/// A byte stream to a target, whatever is below it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What connections are made with: the rules for addresses, and TLS settings read once.
pub(crate) struct Net {
    guard: Arc<dyn AddressGuard>,
    roots: OnceCell<Arc<RootCertStore>>,
}

impl Net {
    pub(crate) fn new(guard: Arc<dyn AddressGuard>) -> Self {
        Self {
            guard,
            roots: OnceCell::new(),
        }
    }

    async fn config(&self, kind: Tls, alpn: &[u8]) -> Result<ClientConfig, String> {
        let roots = match kind {
            Tls::No | Tls::Verified => {
                Arc::clone(self.roots.get_or_try_init(tls::system_roots).await?)
            }
            Tls::Pinned(_) | Tls::Unverified => Arc::new(RootCertStore::empty()),
        };
        let mut config = tls::config(kind, roots)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

/// How TLS to a target is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    No,
    /// The certificate must be valid for the host.
    Verified,
    /// The key must have this SHA-256.
    Pinned([u8; 32]),
    /// Nothing is checked (`tls_skip_verify`).
    Unverified,
}

/// Where a check goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    /// The socket's path, instead of host and port.
    pub socket: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => f.write_str(path),
            None => f.write_str(&authority(&self.host, self.port)),
        }
    }
}

impl Target {
    /// The instance itself.
    pub(crate) fn of(d: &Definition) -> Self {
        let tls = match (d.protocol, d.tls_pin) {
            (Protocol::Https | Protocol::H2, Some(pin)) => Tls::Pinned(pin),
            (Protocol::Https | Protocol::H2, None) => Tls::Verified,
            _ => Tls::No,
        };
        Self {
            host: d.host.to_string(),
            port: d.port,
            tls,
            socket: (d.protocol == Protocol::Unix).then(|| d.host.to_string()),
        }
    }

    pub(crate) fn with_tls(mut self, tls: bool) -> Self {
        if tls && self.tls == Tls::No {
            self.tls = Tls::Verified;
        }
        self
    }

    /// Connects, without TLS.
    ///
    /// # Errors
    /// A sentence for the check's output.
    pub(crate) async fn connect(&self, net: &Net) -> Result<Box<dyn Io>, String> {
        if let Some(path) = &self.socket {
            let stream = UnixStream::connect(path).await;
            return stream
                .map(|s| Box::new(s) as Box<dyn Io>)
                .map_err(|e| format!("connect {path}: {e}"));
        }
        let addresses = resolve(&*net.guard, &self.host, self.port)
            .await
            .map_err(|error| format!("{self}: address not allowed: {error}"))?;
        let mut last = String::new();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Small requests must not wait for more bytes; a socket without the option works too.
                    let _ = stream.set_nodelay(true);
                    return Ok(Box::new(stream));
                }
                Err(error) => last = format!("dial tcp {address}: connect: {error}"),
            }
        }
        Err(last)
    }

    /// Connects, with TLS when the target asks for it.
    ///
    /// # Errors
    /// A sentence for the check's output.
    pub(crate) async fn open(&self, net: &Net, alpn: &[u8]) -> Result<Box<dyn Io>, String> {
        let stream = self.connect(net).await?;
        if self.tls == Tls::No {
            return Ok(stream);
        }
        let config = net.config(self.tls, alpn).await?;
        let name = ServerName::try_from(self.host.clone()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|e| format!("TLS to {self}: {e}"))?;
        Ok(Box::new(stream))
    }
}

fn not_allowed() -> Finding {
    Finding::critical("address not allowed")
}

/// The target and the path of an HTTP check: a path of the instance, or a whole URL.
pub(super) fn url_target(
    text: &str,
    of: Option<&Definition>,
    foreign: bool,
) -> Result<(Target, String), Finding> {
    if text.starts_with('/') {
        let of = of.ok_or_else(|| Finding::critical("a path needs an instance"))?;
        return Ok((Target::of(of), text.to_owned()));
    }
    let url = url::Url::parse(text).map_err(|e| Finding::critical(e.to_string()))?;
    let host = match url.host() {
        Some(url::Host::Ipv6(ip)) => ip.to_string(),
        Some(host) => host.to_string(),
        None => return Err(Finding::critical("the URL has no host")),
    };
    let tls = if url.scheme() == "https" {
        Tls::Verified
    } else {
        Tls::No
    };
    let port = url.port_or_known_default().unwrap_or(80);
    if !foreign && !is_own(&host, of) {
        return Err(not_allowed());
    }
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Ok((
        Target {
            host,
            port,
            tls,
            socket: None,
        },
        path,
    ))
}

/// The target of a TCP or gRPC check: `host:port`, or the instance.
pub(super) fn plain_target(
    text: Option<&str>,
    of: Option<&Definition>,
    foreign: bool,
) -> Result<Target, Finding> {
    let Some(text) = text else {
        return of
            .map(Target::of)
            .ok_or_else(|| Finding::critical("the check has no target"));
    };
    let (host, port) = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        .ok_or_else(|| {
            Finding::critical(format!("dial tcp: address {text}: missing port in address"))
        })?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    if !foreign && !is_own(&host, of) {
        return Err(not_allowed());
    }
    Ok(Target {
        host,
        port,
        tls: Tls::No,
        socket: None,
    })
}

/// A check may look at its own instance's host; every loopback name is the same machine.
fn is_own(host: &str, of: Option<&Definition>) -> bool {
    let loopback =
        |h: &str| h == "localhost" || h.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match of {
        Some(d) => *d.host == *host || (loopback(host) && loopback(&d.host)),
        // A check of the agent's node: the machine that we run on.
        None => loopback(host),
    }
}

mod tls {
    //! Client configurations by kind of verification.

    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{
        CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    };
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

    use super::Tls;

    /// The system's issuers, read away from the async threads.
    pub(super) async fn system_roots() -> Result<Arc<RootCertStore>, String> {
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
            .await
            .map_err(|e| e.to_string())?;
        let mut roots = RootCertStore::empty();
        let (_added, _ignored) = roots.add_parsable_certificates(loaded.certs);
        Ok(Arc::new(roots))
    }

    pub(super) fn config(kind: Tls, roots: Arc<RootCertStore>) -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        Ok(match kind {
            Tls::No | Tls::Verified => builder.with_root_certificates(roots).with_no_client_auth(),
            Tls::Pinned(_) | Tls::Unverified => {
                let pin = if let Tls::Pinned(pin) = kind {
                    Some(pin)
                } else {
                    None
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(ByKey { pin, provider }))
                    .with_no_client_auth()
            }
        })
    }

    /// Takes any certificate whose key has the pinned hash; without a pin, any at all.
    #[derive(Debug)]
    struct ByKey {
        pin: Option<[u8; 32]>,
        provider: Arc<CryptoProvider>,
    }

    impl ServerCertVerifier for ByKey {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            use sha2::Digest as _;
            let Some(pin) = self.pin else {
                return Ok(ServerCertVerified::assertion());
            };
            let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
            let key = parsed.subject_public_key_info();
            let hash: [u8; 32] = sha2::Sha256::digest(&key).into();
            if portico_base::secret::constant_time_eq(&hash, &pin) {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(Error::General("the key is not the pinned one".to_owned()))
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(
                message,
                cert,
                dss,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                cert,
                dss,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
}
