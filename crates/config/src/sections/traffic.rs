//! Sections about traffic: server, listen, tls.

use std::path::PathBuf;

use crate::key::{choice, section};
use crate::net::{HostName, Listen, TrustedProxies};
use crate::types::Email;
use crate::urls::HttpUrl;

section! {
    /// Names of this installation and whom it trusts.
    pub struct Server {
        keys {
            /// Domain of the installation; auth., api., admin., static. and oss. below it are answered
            /// as well. With a domain `listen.http` is 0.0.0.0:80 and, with a certificate,
            /// `listen.https` 0.0.0.0:443 unless they are set.
            domain: Option<HostName> = "",
            /// Further host names that are answered; other names get 421.
            hosts: Vec<HostName> = [] as [&str; 0],
            /// Scheme, host and port under which clients reach an installation behind another proxy.
            public_url: Option<HttpUrl> = "",
            /// Networks of proxies whose X-Forwarded-*, Forwarded and X-Request-Id are believed; or `cloudflare`.
            trusted_proxies: TrustedProxies = [] as [&str; 0]; reload(),
            /// Read the PROXY protocol, from trusted proxies only.
            proxy_protocol: bool = false; later("PROXY protocol (GW-8)"),
            /// Open client connections of this process; more are answered with 503.
            max_connections: u32 = 20_000; range(1, 1_000_000),
            /// Directories below which routes may serve files; without one no route can.
            file_roots: Vec<PathBuf> = [] as [&str; 0],
        }
    }
}

section! {
    /// Addresses of the listeners: IP:PORT, :PORT for every address, port 0 for a free one, or off.
    pub struct Listeners {
        keys {
            /// The public listener.
            http: Listen = "127.0.0.1:8080"; flag("--listen"),
            /// The public listener with TLS.
            https: Listen = "off",
            /// A listener of its own for administration; when set, administration is not on the
            /// public listener; TLS beyond loopback where there is a certificate.
            console: Listen = "off",
            /// gRPC of the built-in services: in the clear on loopback, beyond it with the certificates of
            /// `tls`, or in the clear with `insecure`.
            grpc: Listen = "127.0.0.1:9090"; flag("--grpc-listen"),
            /// Tell gRPC clients which methods there are: on, off, or auto (while there is no domain).
            grpc_reflection: Reflection = "auto",
            /// The Consul-compatible API. On another address than loopback nobody is anonymous:
            /// set "registry.anonymous" = "off" in [settings], or `listen.insecure`.
            consul: Listen = "127.0.0.1:8500"; flag("--consul-listen"),
            /// Metrics and health; beyond loopback with `telemetry.metrics.token` or `insecure`.
            admin: Listen = "127.0.0.1:9100"; flag("--admin-listen"),
            /// DNS answers of the registry.
            dns: Listen = "off"; later("registry DNS (RG-48)"),
            /// RTMP for live streams.
            rtmp: Listen = "off"; later("video"),
            /// Service to service; beyond loopback only with `tls.internal` or `listen.insecure`.
            internal: Listen = "127.0.0.1:9091"; flag("--internal-listen"),
            /// Accept admin, Consul, gRPC and internal listeners beyond loopback without a token or
            /// mutual TLS: whoever reaches them reads metrics or changes the registry.
            insecure: bool = false; flag("--insecure-listen"),
        }
    }
}

choice! {
    /// Whether gRPC clients are told which services and methods there are.
    pub enum Reflection {
        /// While no domain is configured.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

choice! {
    /// Oldest TLS version that is spoken.
    pub enum TlsVersion {
        /// TLS 1.2, RFC 5246.
        V1_2 = "1.2",
        /// TLS 1.3, RFC 8446.
        V1_3 = "1.3",
    }
}

choice! {
    /// How a certificate authority is shown that a name is ours (RFC 8555).
    pub enum AcmeChallenge {
        /// A file below /.well-known/acme-challenge/ on port 80.
        Http01 = "http-01",
        /// A TLS handshake on port 443 (RFC 8737).
        TlsAlpn01 = "tls-alpn-01",
        /// A TXT record.
        Dns01 = "dns-01",
    }
}

section! {
    /// Certificates of the public listener.
    pub struct Tls {
        groups { acme: Acme, internal: InternalTls }
        keys {
            /// Certificate chain in PEM, leaf first. Read again when it changes.
            cert_file: Option<PathBuf> = ""; reload(),
            /// Private key of the certificate in PEM.
            key_file: Option<PathBuf> = ""; reload(),
            /// Folder of further certificates, NAME.crt or NAME.pem beside NAME.key; they may come and go.
            cert_dir: Option<PathBuf> = ""; reload(),
            /// Oldest TLS version.
            min_version: TlsVersion = "1.2",
        }
    }
}

section! {
    /// Certificates from an authority that speaks ACME.
    pub struct Acme {
        keys {
            /// Address for the authority's notices; setting it turns ACME on.
            email: Option<Email> = ""; later("ACME (GW-3)"),
            /// Directory of the authority.
            directory: HttpUrl = "https://acme-v02.api.letsencrypt.org/directory"; later("ACME (GW-3)"),
            /// How the authority checks the names.
            challenge: AcmeChallenge = "http-01"; later("ACME (GW-3)"),
        }
    }
}

section! {
    /// Mutual TLS of the internal listener.
    pub struct InternalTls {
        keys {
            /// Authority that signed the certificates of callers, PEM.
            ca_file: Option<PathBuf> = ""; reload(),
            /// This replica's certificate, PEM.
            cert_file: Option<PathBuf> = ""; reload(),
            /// Its private key, PEM.
            key_file: Option<PathBuf> = ""; reload(),
            /// A service mesh encrypts between replicas, so that plain connections are expected.
            mesh: bool = false,
        }
    }
}
