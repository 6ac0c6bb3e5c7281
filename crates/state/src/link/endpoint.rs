//! Where Redis is: one server, the master that Sentinels name, or a cluster.

use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisResult, TlsCertificates, TlsMode};
use tokio::sync::Mutex;
use url::Url;

use crate::error::StateError;
use crate::options::RedisOptions;

pub(super) enum Endpoint {
    One(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster {
        client: Box<ClusterClient>,
        /// Any node carries messages of the whole cluster.
        nodes: Vec<Client>,
    },
}

#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A URL with several hosts, which `url` cannot read: taken apart here.
struct Parts {
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    hosts: Vec<(String, u16)>,
    path: Vec<String>,
}

impl Endpoint {
    pub(super) fn parse(options: &RedisOptions) -> Result<Self, StateError> {
        let url = options.url.expose().trim();
        let scheme = url.split("://").next().unwrap_or_default();
        let certificates = options.ca_pem.as_ref().map(|pem| TlsCertificates {
            client_tls: None,
            root_cert: Some(pem.clone()),
        });
        match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => {
                if url.ends_with("#insecure") {
                    return Err(config("certificates of redis cannot be left unchecked"));
                }
                Ok(Self::One(Box::new(client(url, certificates.as_ref())?)))
            }
            "redis-sentinel" | "redis-sentinel+tls" => {
                sentinel(&Parts::parse(url, 26_379)?, certificates)
            }
            "redis-cluster" | "redis-cluster+tls" => {
                cluster(&Parts::parse(url, 6_379)?, options, certificates.as_ref())
            }
            other => Err(config(&format!(
                "`{other}` is none of redis, rediss, unix, redis-sentinel, redis-cluster"
            ))),
        }
    }

    /// True when it leads to another machine without encryption (SC-13).
    pub(super) fn is_plain(options: &RedisOptions) -> bool {
        let url = options.url.expose().trim();
        let Some((scheme, _)) = url.split_once("://") else {
            return false;
        };
        if scheme.ends_with("unix") || scheme == "rediss" || scheme.ends_with("+tls") {
            return false;
        }
        let here = |host: &str| {
            let address: Option<std::net::IpAddr> = host.parse().ok();
            host == "localhost" || address.is_some_and(|a| a.is_loopback())
        };
        Parts::parse(url, 0).is_ok_and(|parts| !parts.hosts.iter().all(|(host, _)| here(host)))
    }

    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    pub(super) async fn connect(
        &self,
        connect_timeout: Duration,
        command_timeout: Duration,
    ) -> RedisResult<Connection> {
        let how = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(Some(command_timeout));
        Ok(match self {
            Self::One(client) => Connection::One(
                client
                    .get_multiplexed_async_connection_with_config(&how)
                    .await?,
            ),
            Self::Sentinel(sentinel) => {
                let mut sentinel = sentinel.lock().await;
                Connection::One(sentinel.get_async_connection_with_config(&how).await?)
            }
            Self::Cluster { client, .. } => {
                Connection::Cluster(client.get_async_connection().await?)
            }
        })
    }

    pub(super) async fn pubsub(&self) -> RedisResult<PubSub> {
        match self {
            Self::One(client) => client.get_async_pubsub().await,
            Self::Sentinel(sentinel) => {
                let client = sentinel.lock().await.async_get_client().await?;
                client.get_async_pubsub().await
            }
            Self::Cluster { nodes, .. } => {
                let mut outcome = Err((redis::ErrorKind::Io, "no node of the cluster").into());
                for node in nodes {
                    outcome = node.get_async_pubsub().await;
                    if outcome.is_ok() {
                        break;
                    }
                }
                outcome
            }
        }
    }
}

impl Parts {
    fn parse(text: &str, port: u16) -> Result<Self, StateError> {
        let wrong = || {
            config(
                "the URL of redis cannot be read: scheme://[user:password@]host[:port],host…/path",
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let hosts: Option<Vec<(String, u16)>> = hosts
            .split(',')
            .map(|host| {
                // One host at a time is a URL again, brackets of IPv6 included.
                let url = Url::parse(&format!("redis://{host}")).ok()?;
                let name = url.host_str()?.trim_matches(['[', ']']).to_owned();
                Some((name, url.port().unwrap_or(port)))
            })
            .collect();
        let (user, password) = match user.map(|u| u.split_once(':').unwrap_or((u, ""))) {
            Some((user, password)) => (Some(decode(user)), Some(decode(password))),
            None => (None, None),
        };
        Ok(Self {
            scheme: scheme.to_owned(),
            user: user.filter(|u| !u.is_empty()),
            password: password.filter(|p| !p.is_empty()),
            hosts: hosts.filter(|h| !h.is_empty()).ok_or_else(wrong)?,
            path: path
                .split('/')
                .filter(|p| !p.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }

    fn tls(&self) -> bool {
        self.scheme.ends_with("+tls")
    }

    fn addresses(&self) -> Vec<ConnectionAddr> {
        let address = |(host, port): &(String, u16)| {
            if self.tls() {
                ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: false,
                    tls_params: None,
                }
            } else {
                ConnectionAddr::Tcp(host.clone(), *port)
            }
        };
        self.hosts.iter().map(address).collect()
    }
}

fn sentinel(parts: &Parts, certificates: Option<TlsCertificates>) -> Result<Endpoint, StateError> {
    let Some(master) = parts.path.first() else {
        return Err(config("a sentinel URL ends with the name of the master"));
    };
    let mut builder =
        SentinelClientBuilder::new(parts.addresses(), master, SentinelServerType::Master)
            .map_err(|e| config(&e.to_string()))?;
    if let Some(db) = parts.path.get(1) {
        let db = db
            .parse()
            .map_err(|_| config("the database of a sentinel URL is a number"))?;
        builder = builder.set_client_to_redis_db(db);
    }
    if let Some(user) = &parts.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &parts.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if parts.tls() {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    let client = builder.build().map_err(|e| config(&e.to_string()))?;
    Ok(Endpoint::Sentinel(Box::new(Mutex::new(client))))
}

fn cluster(
    parts: &Parts,
    options: &RedisOptions,
    certificates: Option<&TlsCertificates>,
) -> Result<Endpoint, StateError> {
    let mut builder = ClusterClientBuilder::new(parts.addresses())
        .connection_timeout(options.connect_timeout)
        .response_timeout(options.command_timeout)
        .retries(1);
    if let Some(user) = &parts.user {
        builder = builder.username(user);
    }
    if let Some(password) = &parts.password {
        builder = builder.password(password);
    }
    if parts.tls() {
        builder = builder.tls(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates.clone());
    }
    let nodes: Result<Vec<Client>, StateError> = parts
        .hosts
        .iter()
        .map(|(host, port)| {
            let scheme = if parts.tls() { "rediss" } else { "redis" };
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            let mut url = Url::parse(&format!("{scheme}://{host}:{port}"))
                .map_err(|e| config(&e.to_string()))?;
            // Both are refused only by URLs without a host.
            let _ = url.set_username(parts.user.as_deref().unwrap_or_default());
            let _ = url.set_password(parts.password.as_deref());
            client(url.as_str(), certificates)
        })
        .collect();
    Ok(Endpoint::Cluster {
        client: Box::new(builder.build().map_err(|e| config(&e.to_string()))?),
        nodes: nodes?,
    })
}

fn client(url: &str, certificates: Option<&TlsCertificates>) -> Result<Client, StateError> {
    let made = match certificates {
        Some(certificates) if url.starts_with("rediss://") => {
            Client::build_with_tls(url, certificates.clone())
        }
        _ => Client::open(url),
    };
    made.map_err(|e| config(&e.to_string()))
}

fn config(text: &str) -> StateError {
    StateError::Config(format!("redis.url: {text}"))
}

/// Percent-decoding of user and password.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .filter(|_| bytes[i] == b'%')
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(hex.unwrap_or(bytes[i]));
        i += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, StateError> {
        Endpoint::parse(&RedisOptions::new(url))
    }

    #[test]
    fn every_form_is_read() {
        for url in [
            "redis://127.0.0.1:1/3",
            "rediss://u:p@host",
            "unix:///tmp/x.sock",
            "redis+unix:///tmp/x.sock",
        ] {
            assert!(matches!(parse(url), Ok(Endpoint::One(_))), "{url}");
        }
        for url in [
            "redis-sentinel://a,b:2/mymaster",
            "redis-sentinel+tls://u:p%40@[::1]:1/mymaster/2",
        ] {
            assert!(matches!(parse(url), Ok(Endpoint::Sentinel(_))), "{url}");
        }
        for url in [
            "redis-cluster://a,b:7000",
            "redis-cluster+tls://:pw@[::1],h",
        ] {
            assert!(matches!(parse(url), Ok(Endpoint::Cluster { .. })), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in [
            "",
            "http://x",
            "redis-sentinel://a",
            "redis-sentinel://a/m/x",
            "redis-cluster://",
            "rediss://u:hunter2@h/#insecure",
            "redis://u:hunter2@h/x",
        ] {
            let Err(error) = parse(url) else {
                panic!("{url}")
            };
            let text = error.to_string();
            assert!(
                text.starts_with("redis.url: ") && !text.contains("hunter2"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_open_way_to_another_machine_is_noticed() {
        let plain = |url: &str| Endpoint::is_plain(&RedisOptions::new(url));
        for url in [
            "redis://cache:6379/0",
            "redis://:pw@10.0.0.1",
            "redis-cluster://127.0.0.1,10.0.0.2",
        ] {
            assert!(plain(url), "{url}");
        }
        for url in [
            "redis://127.0.0.1:1",
            "redis://u:p@[::1]",
            "redis://localhost",
            "rediss://cache",
            "unix:///x",
            "redis+unix:///x",
            "redis-sentinel+tls://a/m",
        ] {
            assert!(!plain(url), "{url}");
        }
    }

    #[test]
    fn parts_of_a_url_with_several_hosts() {
        let parts = Parts::parse("redis-cluster://me:p%40ss@a,[::1]:7001,b:2/x/1", 6379).unwrap();
        assert_eq!(parts.user.as_deref(), Some("me"));
        assert_eq!(parts.password.as_deref(), Some("p@ss"));
        let hosts = [
            ("a".to_owned(), 6379),
            ("::1".to_owned(), 7001),
            ("b".to_owned(), 2),
        ];
        assert_eq!(parts.hosts, hosts);
        assert_eq!(parts.path, ["x", "1"]);
    }
}
