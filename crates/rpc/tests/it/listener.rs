//! The listener below the chain: TLS and nothing but it, names that are ours, connections that only take room.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use portico_rpc::{Hosts, from_status};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::house::{House, ask, with};

const OPEN: &str = "/test.v1.Doer/Open";
const PATIENCE: Duration = Duration::from_secs(20);

/// Speaks TLS to an address, whatever the URL says.
#[derive(Clone)]
struct Connector {
    address: SocketAddr,
    tls: TlsConnector,
}

type Connecting =
    Pin<Box<dyn Future<Output = std::io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        let this = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(this.address).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok(TokioIo::new(this.tls.connect(name, stream).await?))
        })
    }
}

fn certificate() -> CertifiedKey<rcgen::KeyPair> {
    generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

/// As the door has it: for both versions of HTTP.
fn server(made: &CertifiedKey<rcgen::KeyPair>) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn client(trusted: &CertifiedKey<rcgen::KeyPair>, protocols: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

fn channel(house: &House, tls: TlsConnector) -> Channel {
    let address = house.address;
    Endpoint::from_static("http://localhost")
        .connect_with_connector_lazy(Connector { address, tls })
}

#[tokio::test]
async fn tls_where_there_is_a_certificate_and_nothing_else() {
    let (ours, other) = (certificate(), certificate());
    let config = server(&ours);
    let house = House::with(|options| options.tls = Some(config)).await;
    let call = async |tls| ask(channel(&house, tls), OPEN, with("who", &[])).await;
    assert!(call(client(&ours, &["h2"])).await.is_ok());
    let stranger = call(client(&other, &["h2"])).await;
    assert_eq!(
        stranger.unwrap_err().code(),
        Code::Unavailable,
        "not trusted"
    );
    // Another protocol is not spoken here, though the certificates are the door's.
    let old = call(client(&ours, &["http/1.1"])).await;
    assert_eq!(old.unwrap_err().code(), Code::Unavailable);
    // In the clear nothing is answered.
    let plain = ask(house.channel(), OPEN, with("who", &[])).await;
    assert!(plain.is_err(), "{plain:?}");
    let reached = || house.doer.reached.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(reached(), 1);
    assert!(call(client(&ours, &["h2"])).await.is_ok(), "and it goes on");
    assert_eq!(reached(), 2);
    assert_eq!(house.stop().await, 0);
}

#[tokio::test]
async fn calls_for_somebody_elses_name_are_refused() {
    let hosts = Hosts::new(Some("example.com"), ["box.lan".to_owned()]);
    let house = House::with(|options| options.chain.hosts = hosts).await;
    let call = async |origin: &str| {
        let origin: Uri = format!("http://{origin}").parse().unwrap();
        let endpoint = Endpoint::from_shared(house.url()).unwrap().origin(origin);
        ask(endpoint.connect_lazy(), OPEN, with("who", &[])).await
    };
    for ours in [
        "127.0.0.1:9090",
        "localhost",
        "grpc.example.com",
        "box.lan:9090",
        "[::1]:1",
    ] {
        assert!(call(ours).await.is_ok(), "{ours}");
    }
    for foreign in ["evil.example", "notexample.com", "box.lan.evil.example"] {
        let status = call(foreign).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{foreign}");
        assert_eq!(from_status(&status).unwrap().code, "gateway.unknown_host");
    }
    house.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_calls_nothing_makes_room() {
    let config = server(&certificate());
    for (tls, bytes) in [
        (None, &b""[..]),
        (None, b"PRI * HTTP/2.0\r\n"),
        (
            None,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
        (Some(config), b""),
    ] {
        let house = House::with(|options| options.tls = tls).await;
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // The clock jumps when everybody waits.
        let ended = tokio::time::timeout(PATIENCE * 10, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is closed: {bytes:?}");
        assert_eq!(house.stop().await, 0);
    }
}

#[tokio::test]
async fn connections_are_counted_and_further_ones_closed() {
    let house = House::with(|options| options.connections = 1).await;
    let kept = house.channel();
    assert!(ask(kept.clone(), OPEN, with("who", &[])).await.is_ok());
    let mut second = TcpStream::connect(house.address).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, second.read_to_end(&mut rest)).await;
    assert!(closed.is_ok() && rest.is_empty(), "{rest:?}");
    assert!(
        ask(kept, OPEN, with("who", &[])).await.is_ok(),
        "the first one stays"
    );
    house.stop().await;
}
