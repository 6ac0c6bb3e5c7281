//! TLS on both sides: certificates by name, reloading, ALPN, trust in instances.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, IsCa, Issuer, KeyPair,
    generate_simple_self_signed,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sha2::{Digest, Sha256};

use super::backend::Backend;
use super::client::eventually;
use super::rig::{Rig, Setup};
use crate::serve::{CertFiles, CertSource, CertStore, Listener};
use crate::upstream::{Endpoint, Protocol, Target, TlsTarget};

struct Cert {
    made: CertifiedKey<KeyPair>,
    files: CertFiles,
}

impl Cert {
    /// A certificate for `host`, written to `dir` under `file`.
    fn new(dir: &Path, file: &str, host: &str) -> Self {
        let made = generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let files = CertFiles {
            certificate: dir.join(format!("{file}.pem")),
            key: dir.join(format!("{file}.key")),
            names: vec![host.to_owned()],
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        Self { made, files }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.made.cert.der().clone()
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(
    address: SocketAddr,
    name: &str,
    trusted: &[CertificateDer<'static>],
    alpn: &[&str],
) -> std::io::Result<Tls> {
    connect_as(None, address, name, trusted, alpn)
}

/// The same with a certificate of the client's own.
fn connect_as(
    own: Option<&CertifiedKey<KeyPair>>,
    address: SocketAddr,
    name: &str,
    trusted: &[CertificateDer<'static>],
    alpn: &[&str],
) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    for root in trusted {
        roots.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
            let chain = vec![own.cert.der().clone()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(15)))?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

fn get(stream: &mut Tls) -> String {
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn rig(backend: &Backend, store: &Arc<CertStore>) -> Rig {
    let listener = Listener {
        tls: Some(Arc::clone(store)),
        ..Listener::plain("tls", ([127, 0, 0, 1], 0).into())
    };
    Rig::with(
        backend,
        Setup {
            listener,
            ..Setup::default()
        },
    )
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        Cert::new(dir.path(), "one", "one.example"),
        Cert::new(dir.path(), "two", "*.two.example"),
    );
    let store = CertStore::load(vec![one.files.clone(), two.files.clone()]).unwrap();
    let backend = Backend::echo();
    let rig = rig(&backend, &store);
    let answer = get(&mut connect(rig.address, "one.example", &[one.der()], &[]).unwrap());
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("GET /x HTTP/1.1"),
        "{answer}"
    );
    assert!(connect(rig.address, "a.two.example", &[two.der()], &[]).is_ok());
    assert!(
        connect(rig.address, "a.two.example", &[one.der()], &[]).is_err(),
        "not the other one"
    );
}

#[test]
fn certificates_without_configured_names_are_chosen_by_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut certs = [
        Cert::new(dir.path(), "one", "one.example"),
        Cert::new(dir.path(), "two", "*.two.example"),
    ];
    for cert in &mut certs {
        cert.files.names.clear();
    }
    let store = CertStore::load(certs.iter().map(|c| c.files.clone()).collect()).unwrap();
    let backend = Backend::echo();
    let rig = rig(&backend, &store);
    assert!(connect(rig.address, "one.example", &[certs[0].der()], &[]).is_ok());
    assert!(connect(rig.address, "a.two.example", &[certs[1].der()], &[]).is_ok());
    assert!(
        connect(rig.address, "other.example", &[certs[1].der()], &[]).is_err(),
        "the first is for all others"
    );
}

#[test]
fn alpn_chooses_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let cert = Cert::new(dir.path(), "one", "one.example");
    let store = CertStore::load(vec![cert.files.clone()]).unwrap();
    let backend = Backend::echo();
    let rig = rig(&backend, &store);
    let mut stream = connect(
        rig.address,
        "one.example",
        &[cert.der()],
        &["h2", "http/1.1"],
    )
    .unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame");
    let stream = connect(rig.address, "one.example", &[cert.der()], &["http/1.1"]).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn changed_files_are_used_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let old = Cert::new(dir.path(), "one", "one.example");
    let store = CertStore::load(vec![old.files.clone()]).unwrap();
    let backend = Backend::echo();
    let rig = rig(&backend, &store);
    let _watching = rig.runtime.spawn(Arc::clone(&store).watch());
    let mut before = connect(rig.address, "one.example", &[old.der()], &[]).unwrap();
    let new = Cert::new(dir.path(), "one", "one.example");
    eventually(|| connect(rig.address, "one.example", &[new.der()], &[]).ok());
    assert!(
        get(&mut before).starts_with("HTTP/1.1 200 "),
        "open connections go on"
    );
}

#[test]
fn broken_files_leave_the_old_certificate_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let cert = Cert::new(dir.path(), "one", "one.example");
    let store = CertStore::load(vec![cert.files.clone()]).unwrap();
    std::fs::write(&cert.files.certificate, "no certificate").unwrap();
    let error = store.reload().unwrap_err();
    assert!(error.to_string().contains("one.pem"), "{error}");
    let backend = Backend::echo();
    let rig = rig(&backend, &store);
    assert!(connect(rig.address, "one.example", &[cert.der()], &[]).is_ok());
    let missing = CertFiles {
        certificate: dir.path().join("none"),
        ..cert.files.clone()
    };
    assert!(CertStore::load(vec![missing]).is_err());
}

/// A gateway in front of a TLS gateway: the second plays the instance.
fn to_tls(instance: &Rig, tls: TlsTarget, protocol: Protocol) -> u16 {
    let endpoint = Endpoint::Tcp {
        host: "127.0.0.1".into(),
        port: instance.address.port(),
    };
    let target = Arc::new(Target::new("tls", endpoint, protocol, Some(tls)));
    let rig = Rig::start(Setup {
        target: Some(target),
        ..Setup::default()
    });
    let mut client = rig.client();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.answer().status()
}

#[test]
fn an_instance_is_trusted_by_issuer_by_key_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let cert = Cert::new(dir.path(), "one", "one.example");
    let store = CertStore::load(vec![cert.files.clone()]).unwrap();
    let backend = Backend::echo();
    let instance = rig(&backend, &store);
    let plain = TlsTarget {
        server_name: "one.example".into(),
        pin_sha256: None,
        insecure: false,
        extra_roots: None,
    };
    let trusting = TlsTarget {
        extra_roots: Some(cert.made.cert.pem().into()),
        ..plain.clone()
    };
    let key = rustls::server::ParsedCertificate::try_from(cert.made.cert.der())
        .unwrap()
        .subject_public_key_info()
        .to_vec();
    let pinned = TlsTarget {
        pin_sha256: Some(Sha256::digest(&key).into()),
        server_name: "other.example".into(),
        ..plain.clone()
    };
    let mispinned = TlsTarget {
        pin_sha256: Some([7; 32]),
        ..plain.clone()
    };
    let misnamed = TlsTarget {
        server_name: "other.example".into(),
        ..trusting.clone()
    };
    let insecure = TlsTarget {
        insecure: true,
        ..plain.clone()
    };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert_eq!(
            to_tls(&instance, plain.clone(), protocol),
            502,
            "an unknown issuer"
        );
        assert_eq!(to_tls(&instance, trusting.clone(), protocol), 200);
        assert_eq!(
            to_tls(&instance, misnamed.clone(), protocol),
            502,
            "another name"
        );
        assert_eq!(to_tls(&instance, pinned.clone(), protocol), 200);
        assert_eq!(
            to_tls(&instance, mispinned.clone(), protocol),
            502,
            "another key"
        );
        assert_eq!(to_tls(&instance, insecure.clone(), protocol), 200);
    }
}

/// An authority of clients, written to a file.
struct Vouching(Issuer<'static, KeyPair>);

impl Vouching {
    fn new(file: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(file, cert.pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    fn client(&self) -> CertifiedKey<KeyPair> {
        let signing_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["shop".to_owned()]).unwrap();
        let cert = params.signed_by(&signing_key, &self.0).unwrap();
        CertifiedKey { cert, signing_key }
    }
}

#[test]
fn clients_show_a_certificate_of_the_authority_that_is_named_now() {
    let dir = tempfile::tempdir().unwrap();
    let cert = Cert::new(dir.path(), "one", "one.example");
    let file = dir.path().join("clients.pem");
    let first = Vouching::new(&file);
    let source = CertSource {
        files: vec![cert.files.clone()],
        client_ca: Some(file.clone()),
        ..CertSource::default()
    };
    let store = CertStore::open(source.clone()).unwrap();
    let backend = Backend::echo();
    let rig = rig(&backend, &store);
    // With TLS 1.3 a client learns with its first read that it was refused.
    let served = |own: Option<&CertifiedKey<KeyPair>>| {
        let Ok(mut stream) = connect_as(own, rig.address, "one.example", &[cert.der()], &[]) else {
            return false;
        };
        let asked = stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        read.is_ok() && answer.starts_with("HTTP/1.1 200 ")
    };
    let known = first.client();
    assert!(served(Some(&known)));
    assert!(!served(None), "without a certificate");
    let strange = Vouching::new(&dir.path().join("others.pem")).client();
    assert!(!served(Some(&strange)), "of another authority");
    std::fs::write(&file, "no certificate").unwrap();
    assert!(store.reload().is_err());
    assert!(served(Some(&known)), "what was known holds");
    let second = Vouching::new(&file);
    assert!(store.reload().unwrap());
    assert!(served(Some(&second.client())));
    assert!(!served(Some(&known)), "the old authority is gone");
    std::fs::remove_file(&file).unwrap();
    assert!(CertStore::open(source).is_err());
}
