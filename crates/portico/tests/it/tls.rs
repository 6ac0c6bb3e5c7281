//! TLS with the real binary: certificates by name, changed while we run, versions, ALPN, HTTPS instances.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, PublicKeyData as _, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::house::{House, until};
use crate::raw::{RawServer, answer_always};

type Client = StreamOwned<ClientConnection, std::net::TcpStream>;
type Versions = &'static [&'static rustls::SupportedProtocolVersion];

const BOTH: Versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
const OLD: Versions = &[&rustls::version::TLS12];
const NEW: Versions = &[&rustls::version::TLS13];

struct Cert(CertifiedKey<KeyPair>);

impl Cert {
    fn new(host: &str) -> Self {
        Self(generate_simple_self_signed(vec![host.to_owned()]).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.cert.der().clone()
    }

    /// Writes the pair, the key first, as a careful tool would.
    fn write(&self, folder: &Path, name: &str) {
        std::fs::write(
            folder.join(format!("{name}.key")),
            self.0.signing_key.serialize_pem(),
        )
        .unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), self.0.cert.pem()).unwrap();
    }
}

/// As pins have it, by the provider that does TLS anyway.
fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suites = default_provider().cipher_suites;
    let hash = suites.iter().find_map(|suite| {
        let hash = suite.tls13()?.common.hash_provider;
        (hash.output_len() == 32).then_some(hash)
    });
    hash.unwrap().hash(bytes).as_ref().to_vec()
}

/// A house with HTTPS; the certificates lie in `folder/certs`, the first is `main`.
struct Secure {
    house: House,
    folder: Arc<TempDir>,
    address: String,
}

impl Secure {
    fn start(certs: &[(&str, &Cert)], more: &str) -> Self {
        let _ = default_provider().install_default();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let certs_dir = folder.path().join("certs");
        std::fs::create_dir(&certs_dir).unwrap();
        for (name, cert) in certs {
            cert.write(&certs_dir, name);
        }
        let text =
            format!("[listen]\nhttps = \"127.0.0.1:0\"\n[tls]\ncert_dir = {certs_dir:?}\n{more}");
        std::fs::write(folder.path().join("portico.toml"), text).unwrap();
        let house = House::at(folder.clone(), &[]);
        let ready = std::fs::read_to_string(house.data_dir().join("ready.json")).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let address = ready["https"]
            .as_str()
            .unwrap()
            .trim_start_matches("https://")
            .to_owned();
        Self {
            house,
            folder,
            address,
        }
    }

    fn certs(&self) -> std::path::PathBuf {
        self.folder.path().join("certs")
    }

    fn connect(&self, name: &str, trusted: &[&Cert]) -> std::io::Result<Client> {
        self.connect_with(name, trusted, BOTH, &[])
    }

    fn connect_with(
        &self,
        name: &str,
        trusted: &[&Cert],
        versions: Versions,
        alpn: &[&str],
    ) -> std::io::Result<Client> {
        let mut roots = RootCertStore::empty();
        for cert in trusted {
            roots.add(cert.der()).unwrap();
        }
        let mut config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection =
            ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        let tcp = std::net::TcpStream::connect(&self.address)?;
        tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut stream = StreamOwned::new(connection, tcp);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(stream)
    }

    /// The certificate that a client is shown, whatever it is.
    fn shown(&self, name: &str, candidates: &[&Cert]) -> Option<usize> {
        candidates
            .iter()
            .position(|cert| self.connect(name, &[cert]).is_ok())
    }
}

fn ask(stream: &mut Client, path: &str) -> String {
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
        .unwrap();
    let mut out = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = stream.read(&mut piece).unwrap_or(0);
        out.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&out).into_owned();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|l| {
                l.to_lowercase()
                    .strip_prefix("content-length:")
                    .map(|v| v.trim().parse::<usize>().unwrap())
            });
            body.len() >= length.unwrap_or(0)
        });
        if n == 0 || whole {
            return text;
        }
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_versions_by_configuration() {
    let (one, two, three) = (
        Cert::new("one.example"),
        Cert::new("two.example"),
        Cert::new("*.three.example"),
    );
    let secure = Secure::start(&[("1", &one), ("2", &two), ("3", &three)], "");
    let all = [&one, &two, &three];
    assert_eq!(secure.shown("one.example", &all), Some(0));
    assert_eq!(secure.shown("two.example", &all), Some(1));
    assert_eq!(secure.shown("a.three.example", &all), Some(2));
    assert_eq!(
        secure.shown("four.example", &all),
        None,
        "nobody is somebody else"
    );
    assert!(
        ask(
            &mut secure.connect("one.example", &[&one]).unwrap(),
            "/healthz"
        )
        .starts_with("HTTP/1.1 200")
    );

    // Both versions, both protocols; the client's order of preference is not asked.
    for versions in [OLD, NEW] {
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], "h2"),
            (&["http/1.1"], "http/1.1"),
            (&["http/1.1", "h2"], "h2"),
        ] {
            let stream = secure
                .connect_with("two.example", &[&two], versions, offered)
                .unwrap();
            assert_eq!(
                stream.conn.alpn_protocol(),
                Some(chosen.as_bytes()),
                "{offered:?}"
            );
            assert_eq!(stream.conn.protocol_version(), Some(versions[0].version));
        }
    }
    assert!(
        secure
            .connect_with("two.example", &[&two], BOTH, &["spdy/3"])
            .is_err(),
        "a protocol that we do not speak"
    );
    for version in [0_u8, 1, 2] {
        let answer = hello(&secure.address, version);
        assert!(
            answer.is_empty() || answer[0] == 0x15,
            "TLS 1.{} was answered with {answer:?}",
            version.saturating_sub(1)
        );
    }
    let modern = Secure::start(&[("1", &one)], "min_version = \"1.3\"\n");
    assert!(
        modern
            .connect_with("one.example", &[&one], OLD, &[])
            .is_err()
    );
    assert!(
        modern
            .connect_with("one.example", &[&one], NEW, &[])
            .is_ok()
    );
}

/// Sends a ClientHello of SSL 3.0 (0), TLS 1.0 (1) or 1.1 (2), and reads what comes back.
fn hello(address: &str, minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![0x16, 3, minor.min(1), 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(&record).unwrap();
    let mut out = Vec::new();
    let _ = stream.read_to_end(&mut out);
    out
}

#[tokio::test]
async fn changed_certificates_are_used_within_seconds_and_broken_ones_are_not() {
    let (old, new) = (Cert::new("one.example"), Cert::new("one.example"));
    let (other, late) = (Cert::new("two.example"), Cert::new("late.example"));
    let secure = Secure::start(&[("1", &old), ("2", &other)], "");
    let mut kept = secure.connect("one.example", &[&old]).unwrap();
    assert!(ask(&mut kept, "/healthz").starts_with("HTTP/1.1 200"));

    new.write(&secure.certs(), "1");
    until("the new certificate is shown", || async {
        secure.shown("one.example", &[&old, &new]) == Some(1)
    })
    .await;
    assert!(
        ask(&mut kept, "/healthz").starts_with("HTTP/1.1 200"),
        "old connections stay"
    );

    // A broken one: the others may still change, and the log says what is wrong.
    std::fs::write(
        secure.certs().join("1.crt"),
        "-----BEGIN CERTIFICATE-----\nnonsense\n",
    )
    .unwrap();
    until("it is said", || async {
        let log = secure.house.log();
        log.contains("changed certificates cannot be used") && log.contains("1.crt")
    })
    .await;
    assert_eq!(
        secure.shown("one.example", &[&old, &new]),
        Some(1),
        "what worked is kept"
    );
    late.write(&secure.certs(), "late");
    until("a further pair is taken all the same", || async {
        secure.shown("late.example", &[&late]) == Some(0)
    })
    .await;
    assert_eq!(secure.shown("two.example", &[&other]), Some(0));

    // A key that does not fit is as bad as no certificate.
    old.write(&secure.certs(), "1");
    until("the mended one is shown", || async {
        secure.shown("one.example", &[&old, &new]) == Some(0)
    })
    .await;
    let said = secure
        .house
        .log()
        .matches("changed certificates cannot be used")
        .count();
    std::fs::write(
        secure.certs().join("1.key"),
        new.0.signing_key.serialize_pem(),
    )
    .unwrap();
    until("it is said again", || async {
        secure
            .house
            .log()
            .matches("changed certificates cannot be used")
            .count()
            > said
    })
    .await;
    assert_eq!(secure.shown("one.example", &[&old, &new]), Some(0));
    std::fs::remove_file(secure.certs().join("late.crt")).unwrap();
    until("a pair that went is forgotten", || async {
        secure.shown("late.example", &[&late]).is_none()
    })
    .await;
    assert!(ask(&mut kept, "/healthz").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn instances_behind_tls_are_checked_by_their_key() {
    let house = House::start(&[]);
    let (right, wrong) = (Cert::new("localhost"), Cert::new("localhost"));
    let key = PrivateKeyDer::try_from(right.0.signing_key.serialize_der()).unwrap();
    let _ = default_provider().install_default();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![right.der()], key)
        .unwrap();
    let config = Arc::new(config);
    let upstream = RawServer::start(move |tcp, _| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        let mut got = Vec::new();
        let mut piece = [0; 1024];
        while let Ok(n) = stream.read(&mut piece) {
            got.extend_from_slice(&piece[..n]);
            if n == 0 {
                return;
            }
            if got.ends_with(b"\r\n\r\n") {
                got.clear();
                if stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
                    .is_err()
                {
                    return;
                }
            }
        }
    });
    let pin = |cert: &Cert| {
        let hash = sha256(&cert.0.signing_key.subject_public_key_info());
        hash.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let more = |pin: Option<String>| json!({ "protocol": "https", "tls_pin": pin });
    house
        .register("pinned", upstream.port(), more(Some(pin(&right))))
        .await;
    house
        .register("mispinned", upstream.port(), more(Some(pin(&wrong))))
        .await;
    house
        .register("unknown", upstream.port(), json!({ "protocol": "https" }))
        .await;
    let plain = RawServer::start(|stream, _| answer_always(stream, "plain"));
    house
        .register("plain", plain.port(), more(Some(pin(&right))))
        .await;
    assert_eq!(house.get("/api/pinned/").await.text, "secret");
    for name in ["mispinned", "unknown", "plain"] {
        let answer = house.get(&format!("/api/{name}/")).await;
        assert!(
            matches!(answer.status, 502..=504),
            "{name}: {} {}",
            answer.status,
            answer.text
        );
        assert!(!answer.text.contains("secret"), "{name}");
    }
}
