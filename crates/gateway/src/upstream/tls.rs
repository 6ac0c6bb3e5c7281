//! TLS to instances: issuers of the system, own issuers, a pinned key, or nothing at all.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

use super::{SendErrorKind, TlsTarget};

/// Settings made once for each way of trusting.
#[derive(Default)]
pub(super) struct Connectors {
    made: RefCell<HashMap<(TlsTarget, bool), TlsConnector>>,
    system: RefCell<Option<Arc<RootCertStore>>>,
}

/// Ways of trusting remembered at most.
const MADE: usize = 1024;

impl Connectors {
    /// The settings for `tls` and the name to ask for.
    ///
    /// # Errors
    /// A name that is none, issuers that are no PEM.
    pub(super) async fn connector(
        &self,
        tls: &TlsTarget,
        http2: bool,
    ) -> Result<(TlsConnector, ServerName<'static>), SendErrorKind> {
        let name = ServerName::try_from(tls.server_name.to_string()).map_err(bad)?;
        let key = (tls.clone(), http2);
        if let Some(made) = self.made.borrow().get(&key) {
            return Ok((made.clone(), name));
        }
        let mut config = self.config(tls).await?;
        config.alpn_protocols = vec![if http2 {
            b"h2".to_vec()
        } else {
            b"http/1.1".to_vec()
        }];
        let connector = TlsConnector::from(Arc::new(config));
        let mut made = self.made.borrow_mut();
        if made.len() >= MADE {
            made.clear();
        }
        made.insert(key, connector.clone());
        Ok((connector, name))
    }

    async fn config(&self, tls: &TlsTarget) -> Result<ClientConfig, SendErrorKind> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(bad)?;
        if tls.insecure || tls.pin_sha256.is_some() {
            let verifier = Pinned {
                pin: tls.pin_sha256,
                provider,
            };
            return Ok(builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth());
        }
        let mut roots = (*self.system_roots().await?).clone();
        for root in tls
            .extra_roots
            .iter()
            .flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()))
        {
            roots.add(root.map_err(bad)?).map_err(bad)?;
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// Reads the system's issuers once a worker, away from the worker's thread.
    async fn system_roots(&self) -> Result<Arc<RootCertStore>, SendErrorKind> {
        if let Some(roots) = &*self.system.borrow() {
            return Ok(Arc::clone(roots));
        }
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
            .await
            .map_err(bad)?;
        let mut roots = RootCertStore::empty();
        let (_added, _ignored) = roots.add_parsable_certificates(loaded.certs);
        let roots = Arc::new(roots);
        *self.system.borrow_mut() = Some(Arc::clone(&roots));
        Ok(roots)
    }
}

fn bad(e: impl std::fmt::Display) -> SendErrorKind {
    SendErrorKind::Connect(io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))
}

/// Trusts one public key whatever the certificate says, or, without a pin, any (`insecure`).
#[derive(Debug)]
struct Pinned {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(pin) = self.pin else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = rustls::server::ParsedCertificate::try_from(end_entity)?;
        let key: [u8; 32] = Sha256::digest(certificate.subject_public_key_info()).into();
        if key == pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(
                "the instance's key is not the pinned one".to_owned(),
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
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
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
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
