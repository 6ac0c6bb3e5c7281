//! Client certificates: whoever connects must show one of an authority, whose file may change while we run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

/// Verifies clients by the authority of a file.
#[derive(Debug)]
pub(super) struct Authority {
    file: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Inner>,
}

/// A thin pointer, for the swap.
#[derive(Debug)]
struct Inner(Arc<dyn ClientCertVerifier>);

impl Authority {
    /// Reads the authority's certificates.
    ///
    /// # Errors
    /// When the file cannot be read or holds none, with its path.
    pub(super) fn open(file: &Path, provider: &Arc<CryptoProvider>) -> io::Result<Arc<Self>> {
        let first = read(file, provider)?;
        Ok(Arc::new(Self {
            file: file.to_owned(),
            provider: Arc::clone(provider),
            current: ArcSwap::from_pointee(Inner(first)),
        }))
    }

    /// Reads the file again; what was known stays when it cannot be read.
    ///
    /// # Errors
    /// As [`Authority::open`].
    pub(super) fn reload(&self) -> io::Result<()> {
        let next = read(&self.file, &self.provider)?;
        self.current.store(Arc::new(Inner(next)));
        Ok(())
    }

    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.current.load().0)
    }
}

fn read(file: &Path, provider: &Arc<CryptoProvider>) -> io::Result<Arc<dyn ClientCertVerifier>> {
    let bad = |e: &dyn std::fmt::Display| {
        let text = format!("{}: {e}", file.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(&e))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|e| bad(&e))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    built.build().map_err(|e| bad(&e))
}

impl ClientCertVerifier for Authority {
    /// No hints: they would have to outlive a change of the file, and our clients have one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.now()
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}
