//! Types of keys that are URLs: web addresses, databases, Redis.

use std::fmt;
use std::net::IpAddr;

use portico_base::{Secret, mask};
use serde_json::json;
use url::Url;

use crate::key::{Class, Kind, Value};
use crate::raw::Raw;
use crate::types::{shown, text};

/// An `http` or `https` URL without user information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// True when it points to this machine by name or address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.0.host_str().is_some_and(is_loopback_host)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask::url(self.0.as_str()))
    }
}

impl Value for HttpUrl {
    fn kind() -> Kind {
        Kind::plain(
            "URL",
            "a URL that begins with http:// or https://, without user name and password",
            json!({ "type": "string", "pattern": "^https?://" }),
        )
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        // The text is not repeated: it may hold a password.
        let url = Url::parse(text(raw)?).map_err(|error| format!("not a URL ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("the scheme is {}", shown(url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL holds a user name or a password".to_owned());
        }
        Ok(Self(url))
    }
}

/// The database engine that a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file of this process.
    Sqlite,
    /// A server that replicas share.
    Postgres,
}

/// Address of a database; its text can hold a password and is printed without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    kind: DatabaseKind,
    url: Secret<String>,
}

impl DatabaseUrl {
    /// The engine.
    #[must_use]
    pub const fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// The whole URL, password included.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.url.expose()
    }

    /// The host of a server, none for a socket or a file.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        let url = Url::parse(self.url.expose()).ok()?;
        url.host_str()
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked_url(self.url.expose()))
    }
}

impl Value for DatabaseUrl {
    fn kind() -> Kind {
        let allowed = "sqlite://PATH or postgres://USER@HOST:PORT/DATABASE";
        let schema =
            json!({ "type": "string", "pattern": "^(sqlite:|postgres://|postgresql://|\\$\\{)" });
        Kind::plain("database URL", allowed, schema).class(Class::Url)
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        let written = text(raw)?;
        let kind = match scheme(written)? {
            "sqlite" => {
                let path = written
                    .trim_start_matches("sqlite:")
                    .trim_start_matches("//");
                if path.is_empty() || path.starts_with('?') {
                    return Err("the URL names no file".to_owned());
                }
                DatabaseKind::Sqlite
            }
            "postgres" | "postgresql" => {
                let url = Url::parse(written).map_err(|error| format!("not a URL ({error})"))?;
                if url.path().trim_matches('/').is_empty() && url.query().is_none() {
                    return Err("the URL names no database".to_owned());
                }
                DatabaseKind::Postgres
            }
            other => return Err(format!("the scheme is {}", shown(other))),
        };
        Ok(Self {
            kind,
            url: Secret::from(written),
        })
    }
}

/// How Redis is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisKind {
    /// One server, `redis://`, `rediss://`, or `unix://` and the path of its socket.
    Single,
    /// Sentinels that name the primary, `redis-sentinel://`.
    Sentinel,
    /// A cluster, `redis-cluster://`.
    Cluster,
}

/// Address of Redis; its text can hold a password and is printed without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    kind: RedisKind,
    tls: bool,
    hosts: Vec<String>,
    url: Secret<String>,
}

impl RedisUrl {
    /// How Redis is run.
    #[must_use]
    pub const fn kind(&self) -> RedisKind {
        self.kind
    }

    /// True for `rediss://` and for `?tls=true`.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// `host` or `host:port` of each server as written; none for a socket.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The whole URL, password included.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.url.expose()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked_url(self.url.expose()))
    }
}

impl Value for RedisUrl {
    fn kind() -> Kind {
        let allowed = "redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix:///PATH?db=DB, redis-sentinel://HOST,HOST/PRIMARY or redis-cluster://HOST,HOST";
        let schema = json!({ "type": "string", "pattern": "^(rediss?://|unix:///|redis-sentinel://|redis-cluster://|\\$\\{)" });
        Kind::plain("Redis URL", allowed, schema).class(Class::Url)
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        let written = text(raw)?;
        let kind = match scheme(written)? {
            "redis" | "rediss" | "unix" => RedisKind::Single,
            "redis-sentinel" => RedisKind::Sentinel,
            "redis-cluster" => RedisKind::Cluster,
            other => return Err(format!("the scheme is {}", shown(other))),
        };
        let (_, rest) = written
            .split_once("://")
            .ok_or("expected :// behind the scheme")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if written.starts_with("unix:") {
            socket(rest, query)?;
            return Ok(Self {
                kind,
                tls: false,
                hosts: Vec::new(),
                url: Secret::from(written),
            });
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts = authority
            .rsplit_once('@')
            .map_or(authority, |(_, hosts)| hosts);
        let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if !hosts.iter().all(|host| is_host_and_port(host)) {
            return Err("a host or port of the URL is not well formed".to_owned());
        }
        if kind == RedisKind::Single {
            if hosts.len() > 1 {
                return Err("several hosts need redis-sentinel:// or redis-cluster://".to_owned());
            }
            if !path.is_empty() && path.parse::<u16>().is_err() {
                return Err("the path of the URL is the number of a database".to_owned());
            }
        }
        if kind == RedisKind::Sentinel && path.split('/').next().is_none_or(str::is_empty) {
            return Err("the URL names no primary behind the hosts".to_owned());
        }
        let tls = written.starts_with("rediss:") || query.split('&').any(|pair| pair == "tls=true");
        Ok(Self {
            kind,
            tls,
            hosts,
            url: Secret::from(written),
        })
    }
}

/// Checks path and parameters of a socket's URL. The password's parameter is `pass`, as Redis clients have it.
fn socket(path: &str, query: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.len() < 2 {
        return Err("the URL names no absolute path of a socket".to_owned());
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("db", number)) if number.parse::<u16>().is_err() => {
                return Err("db is the number of a database".to_owned());
            }
            Some(("db" | "user" | "pass", _)) => {}
            _ => return Err("a socket's URL takes db, user and pass alone".to_owned()),
        }
    }
    Ok(())
}

fn is_host_and_port(written: &str) -> bool {
    let (host, port) = match written
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((v6, "")) => (v6, None),
        Some((v6, rest)) => (v6, rest.strip_prefix(':').or(Some("none"))),
        None => written
            .split_once(':')
            .map_or((written, None), |(host, port)| (host, Some(port))),
    };
    let good = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    !host.is_empty()
        && good
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn scheme(written: &str) -> Result<&str, String> {
    let (scheme, _) = written.split_once(':').ok_or("the URL has no scheme")?;
    let good = scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if good && !scheme.is_empty() {
        Ok(scheme)
    } else {
        Err("the URL has no scheme".to_owned())
    }
}

/// True for names and addresses that never leave this machine.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A URL of a database or of Redis without its secrets. The last `@` before the query ends the user
/// information, also when the password was not encoded as RFC 3986 wants it.
pub(crate) fn masked_url(url: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(base, query)| (base, Some(query)));
    let base = base
        .split_once("://")
        .and_then(|(scheme, rest)| {
            let (user, host) = rest.rsplit_once('@')?;
            let (name, _) = user.split_once(':')?;
            Some(format!("{scheme}://{name}:{}@{host}", mask::MASKED))
        })
        .unwrap_or_else(|| base.to_owned());
    let Some(query) = query else { return base };
    let mut query = mask::url(&format!("?{query}"));
    // Sockets of Redis name their password so; elsewhere the word says nothing.
    if url.starts_with("unix:") {
        let pairs = query[1..]
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some(("pass", _)) => format!("pass={}", mask::MASKED),
                _ => pair.to_owned(),
            });
        query = format!("?{}", pairs.collect::<Vec<_>>().join("&"));
    }
    base + &query
}

pub(crate) fn holds_password(url: &str) -> bool {
    masked_url(url).contains(mask::MASKED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redis(text: &str) -> Result<RedisUrl, String> {
        RedisUrl::parse(&Raw::from(text))
    }

    #[test]
    fn schemes_of_redis() {
        for (text, kind, hosts) in [
            ("redis://localhost", RedisKind::Single, 1),
            ("rediss://me:pw@cache.example:6380/3", RedisKind::Single, 1),
            (
                "redis-sentinel://:p@ss@a:26379,[::1]:26379/main/0",
                RedisKind::Sentinel,
                2,
            ),
            (
                "unix:///run/redis.sock?db=2&user=u&pass=pw",
                RedisKind::Single,
                0,
            ),
            (
                "redis-cluster://a:7000,b:7001,c?tls=true",
                RedisKind::Cluster,
                3,
            ),
        ] {
            let url = redis(text).unwrap();
            assert_eq!((url.kind(), url.hosts().len()), (kind, hosts), "{text}");
        }
        assert!(redis("redis-cluster://a?tls=true").unwrap().tls());
        for bad in [
            "",
            "redis",
            "redis:localhost",
            "redis://",
            "redis://a:x",
            "redis://a,b",
            "redis://a/main",
            "redis-sentinel://a",
            "http://a",
            "redis://a b",
            "unix://run/redis.sock",
            "unix:///",
            "unix:///s?db=x",
            "unix:///s?tls=true",
        ] {
            assert!(redis(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_masked() {
        for (url, want) in [
            (
                "postgres://me:pw@h:5432/d?sslmode=require",
                "postgres://me:«masked»@h:5432/d?sslmode=require",
            ),
            ("postgres://me@h/d", "postgres://me@h/d"),
            (
                "postgres://h/d?user=a&password=pw",
                "postgres://h/d?user=a&password=«masked»",
            ),
            ("redis://:p@s:s@h", "redis://:«masked»@h"),
            ("sqlite:///a:b/c@d.db", "sqlite:///a:«masked»@d.db"),
            ("sqlite://data/p.db", "sqlite://data/p.db"),
            (
                "unix:///r.sock?db=1&pass=pw",
                "unix:///r.sock?db=1&pass=«masked»",
            ),
        ] {
            assert_eq!(masked_url(url), want);
        }
    }

    proptest! {
        #[test]
        fn no_password_survives(password in "[A-Z]{6,20}[@:/]{0,2}[A-Z]{3}", host in "[a-z]{1,9}") {
            for url in [format!("redis://u:{password}@{host}"), format!("postgres://{host}/d?password={password}")] {
                prop_assert!(!masked_url(&url).contains(&password));
            }
            if let Err(problem) = redis(&format!("redis://u:{password}@{host}/x")) {
                prop_assert!(!problem.contains(&password));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            for text in [text.clone(), format!("redis://{text}"), format!("postgres://{text}"), format!("sqlite:{text}")] {
                let _ = (redis(&text), masked_url(&text));
                let _ = DatabaseUrl::parse(&Raw::from(text.as_str()));
                let _ = HttpUrl::parse(&Raw::from(text.as_str()));
            }
        }
    }
}
