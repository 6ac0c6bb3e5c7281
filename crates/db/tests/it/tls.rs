//! Encryption of the way to PostgreSQL (SC-13): which certificates are taken, and that nothing falls back silently.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portico_base::SystemClock;
use portico_db::testing::{PrivateServer, ServerTls};
use portico_db::{Db, DbError, DbOptions, TlsMode};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority that makes certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate and its key.
    fn issue(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A server whose certificate this authority has made out to these names.
    fn server(&self, names: &[&str]) -> Option<PrivateServer> {
        let (certificate, key) = self.issue(names, |_| {});
        PrivateServer::start_tcp(Some(&ServerTls {
            certificate,
            key,
            client_authority: None,
        }))
    }
}

fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn options(url: String, mode: Option<TlsMode>, authority: Option<PathBuf>) -> DbOptions {
    let mut options = DbOptions::new(url);
    options.acquire_timeout = Duration::from_secs(5);
    options.min_connections = 0;
    options.tls.mode = mode;
    options.tls.ca_file = authority;
    options
}

/// Whether the connection is encrypted, or why there is none.
async fn connect(options: &DbOptions) -> Result<Option<bool>, DbError> {
    let db = Db::connect(options, Arc::new(SystemClock)).await?;
    let encrypted = db.is_encrypted().await;
    db.close().await;
    encrypted
}

#[tokio::test]
async fn a_certificate_is_checked_once_an_authority_is_given() {
    let (ours, theirs, dir) = (
        Authority::new("ours"),
        Authority::new("theirs"),
        tempfile::tempdir().unwrap(),
    );
    let Some(server) = ours.server(&["localhost", "127.0.0.1"]) else {
        return;
    };
    let (right, wrong) = (
        file(&dir, "ca.pem", &ours.pem),
        file(&dir, "other.pem", &theirs.pem),
    );
    for host in ["localhost", "127.0.0.1"] {
        let options = options(server.tcp_url(host), None, Some(right.clone()));
        assert_eq!(connect(&options).await.unwrap(), Some(true), "{host}");
    }
    let full = Some(TlsMode::VerifyFull);
    for mode in [None, full] {
        let options = options(server.tcp_url("localhost"), mode, Some(wrong.clone()));
        let error = connect(&options).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(
            error.to_string().to_lowercase().contains("certificate"),
            "{error}"
        );
    }
    // The system's authorities have never heard of ours.
    let error = connect(&options(server.tcp_url("localhost"), full, None)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    // Encryption without a look at who is there, when that is what is asked for, or nothing is.
    for mode in [Some(TlsMode::Require), Some(TlsMode::Prefer), None] {
        let options = options(server.tcp_url("localhost"), mode, None);
        assert_eq!(connect(&options).await.unwrap(), Some(true), "{mode:?}");
    }
    // The URL's own word holds where the configuration has none.
    let asked = format!("{}?sslmode=verify-full", server.tcp_url("localhost"));
    assert!(connect(&options(asked, None, None)).await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_name_or_time_is_refused() {
    let (ours, dir) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let ca = file(&dir, "ca.pem", &ours.pem);
    let Some(server) = ours.server(&["db.example.com"]) else {
        return;
    };
    let error = connect(&options(
        server.tcp_url("localhost"),
        None,
        Some(ca.clone()),
    ))
    .await;
    let error = error.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    drop(server);
    let (certificate, key) = ours.issue(&["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let expired = ServerTls {
        certificate,
        key,
        client_authority: None,
    };
    let server = PrivateServer::start_tcp(Some(&expired)).unwrap();
    let error = connect(&options(server.tcp_url("localhost"), None, Some(ca))).await;
    let error = error.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("expired"), "{error}");
}

#[tokio::test]
async fn a_server_without_encryption_is_no_silent_fall_back() {
    let (ours, dir) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let Some(server) = PrivateServer::start_tcp(None) else {
        return;
    };
    let url = server.tcp_url("localhost");
    let ca = file(&dir, "ca.pem", &ours.pem);
    for (mode, ca) in [
        (Some(TlsMode::Require), None),
        (Some(TlsMode::VerifyFull), Some(ca.clone())),
        (None, Some(ca)),
    ] {
        let error = connect(&options(url.clone(), mode, ca)).await.unwrap_err();
        let text = error.to_string().to_lowercase();
        assert!(text.contains("tls") || text.contains("ssl"), "{text}");
    }
    let plain = connect(&options(url, None, None)).await.unwrap();
    assert_eq!(plain, Some(false), "`prefer` is what nobody asked more of");
}

#[tokio::test]
async fn our_own_certificate_is_shown_where_the_server_asks_for_one() {
    let (ours, dir) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let (certificate, key) = ours.issue(&["localhost"], |_| {});
    let Some(server) = PrivateServer::start_tcp(Some(&ServerTls {
        certificate,
        key,
        client_authority: Some(ours.pem.clone()),
    })) else {
        return;
    };
    let ca = file(&dir, "ca.pem", &ours.pem);
    let mut options = options(server.tcp_url("localhost"), None, Some(ca));
    assert!(connect(&options).await.is_err(), "without a certificate");
    let (certificate, key) = ours.issue(&[], |params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "postgres");
    });
    options.tls.cert_file = Some(file(&dir, "client.pem", &certificate));
    options.tls.key_file = Some(file(&dir, "client.key", &key));
    assert_eq!(connect(&options).await.unwrap(), Some(true));
}
