//! A registration as it arrives (PL-2): read field by field, all faults told by their path.

use std::net::IpAddr;
use std::sync::Arc;

use indexmap::IndexMap;
use portico_base::{FieldFault, Permission, Secret, name};
use portico_contract::directory::{DefaultAccess, Protocol};
use serde_json::Value;

use super::check::CheckSpec;
use super::endpoint::EndpointView;
use super::fields::{Faults, Reader, text};
use super::instance::ConsulPart;
use super::service::Contributions;

mod checks;
mod endpoints;

/// Longest metadata of an instance in bytes, keys and values together.
const METADATA_BYTES: usize = 8 * 1024;
const METADATA_PAIRS: usize = 64;
const TAGS: usize = 64;
const CHECKS: usize = 8;
/// Longest settings schema or console description in bytes.
const DOCUMENT_BYTES: usize = 64 * 1024;

/// Values that a registration takes when it does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub heartbeat_s: u32,
    pub check_interval_ms: u64,
    pub check_timeout_ms: u64,
    pub fall: u8,
    pub rise: u8,
}

/// Where the instance says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// At the address that the registration came from.
    Auto,
    /// At this name or address.
    Named(String),
}

/// What a registration says about the service as a whole. The last registration holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServicePart {
    /// Absent keeps what is known.
    pub display_name: Option<String>,
    /// Absent keeps what is known.
    pub description: Option<String>,
    pub default_access: DefaultAccess,
    pub forward_credentials: bool,
    pub identity_statement: bool,
    /// Endpoints of the registered version; absent keeps what is known.
    pub endpoints: Option<Vec<EndpointView>>,
    pub openapi_url: Option<String>,
    pub settings_schema: Option<Value>,
    pub console: Option<Value>,
    pub contributions: Contributions,
}

/// A registration whose form is right. Rights, addresses and tenants are checked by the use-case.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub name: String,
    /// Wished tenant, as written.
    pub tenant: Option<String>,
    /// Wished key within the service; absent: derived from the address.
    pub key: Option<String>,
    pub version: String,
    pub host: Host,
    pub port: u16,
    pub base_path: String,
    pub protocol: Protocol,
    pub tls_pin: Option<[u8; 32]>,
    pub zone: String,
    pub node: String,
    pub weight: u16,
    pub tags: Vec<String>,
    pub metadata: IndexMap<String, String>,
    /// Absent: owes no heartbeat.
    pub heartbeat_s: Option<u32>,
    pub checks: Vec<CheckSpec>,
    /// The secret that the instance was started with (`portico run`); absent: the registry makes one.
    pub secret: Option<Arc<Secret<String>>>,
    /// Absent keeps everything that is known of the service.
    pub service: Option<ServicePart>,
    pub consul: Option<Arc<ConsulPart>>,
}

/// Reads a registration.
///
/// # Errors
/// All faults found.
pub(crate) fn parse(body: &Value, defaults: Defaults) -> Result<Registration, Vec<FieldFault>> {
    let mut faults = Faults::default();
    let read = Reader::new("", body, &mut faults).and_then(|r| fields(r, defaults, &mut faults));
    match read {
        Some(registration) if faults.0.is_empty() => Ok(registration),
        _ => Err(faults.0),
    }
}

fn fields(mut r: Reader<'_>, defaults: Defaults, faults: &mut Faults) -> Option<Registration> {
    let service_name = service_name(&mut r, faults);
    let protocol = protocol(&mut r, faults);
    let host = host(&mut r, protocol, faults);
    let port = port(&mut r, protocol, faults);
    let version = r.text("version", 64, faults).unwrap_or("0.0.0");
    if version.is_empty()
        || !version
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b'@')
    {
        faults.add(
            "version",
            "form",
            "must be visible ASCII without `/` and `@`",
        );
    }
    let own = service_name.unwrap_or_default();
    let service = service_part(&mut r, own, faults);
    let id = r.text("id", 128, faults);
    let key = r.text("instance_key", 128, faults);
    if let (Some(a), Some(b)) = (id, key)
        && a != b
    {
        faults.add(
            "id",
            "conflict",
            "must equal `instance_key` when both are given",
        );
    }
    let registration = Registration {
        name: own.to_owned(),
        tenant: r
            .text("tenant", 64, faults)
            .filter(|t| !t.is_empty())
            .map(str::to_owned),
        key: key.or(id).filter(|k| !k.is_empty()).map(str::to_owned),
        version: version.to_owned(),
        host,
        port,
        base_path: base_path(&mut r, faults),
        protocol,
        tls_pin: tls_pin(&mut r, protocol, faults),
        zone: r.text("zone", 64, faults).unwrap_or_default().to_owned(),
        node: r.text("node", 128, faults).unwrap_or_default().to_owned(),
        weight: small(r.integer("weight", 0, 1000, faults), 100),
        tags: r.texts("tags", TAGS, 128, faults),
        metadata: metadata(&mut r, faults),
        heartbeat_s: Some(
            r.integer("heartbeat_s", 1, 300, faults)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(defaults.heartbeat_s),
        ),
        checks: checks::read(&mut r, defaults, CHECKS, faults),
        secret: secret(&mut r, faults),
        service: Some(service),
        consul: None,
    };
    r.finish(faults);
    Some(registration)
}

/// A secret of our own form that whoever starts the program made before it could register it.
fn secret(r: &mut Reader<'_>, faults: &mut Faults) -> Option<Arc<Secret<String>>> {
    let text = r.text("instance_secret", 64, faults)?;
    let good = text.len() == 47
        && text.starts_with("pis_")
        && text[4..]
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !good {
        faults.add(
            "instance_secret",
            "form",
            "must be `pis_` and 43 characters of base64url",
        );
        return None;
    }
    Some(Arc::new(Secret::from(text)))
}

/// A number whose bounds were checked already.
fn small(value: Option<i64>, default: u16) -> u16 {
    value.and_then(|n| u16::try_from(n).ok()).unwrap_or(default)
}

fn service_name<'a>(r: &mut Reader<'a>, faults: &mut Faults) -> Option<&'a str> {
    if r.value("name").is_none() {
        faults.add("name", "required", "is needed");
        return None;
    }
    let text = r.text("name", 256, faults)?;
    if !name::is_service_name(text) {
        faults.add(
            "name",
            "form",
            "must be 2 to 40 of a-z, 0-9 and `-`, a letter first",
        );
    } else if name::is_reserved(text) {
        faults.add(
            "name",
            "reserved",
            format!("`{text}` is reserved for the platform"),
        );
    }
    Some(text)
}

fn protocol(r: &mut Reader<'_>, faults: &mut Faults) -> Protocol {
    let Some(value) = r.value("protocol") else {
        return Protocol::default();
    };
    serde_json::from_value(value.clone()).unwrap_or_else(|_| {
        faults.add(
            "protocol",
            "choice",
            "must be one of http/1.1, h2c, https, h2, unix",
        );
        Protocol::default()
    })
}

fn host(r: &mut Reader<'_>, protocol: Protocol, faults: &mut Faults) -> Host {
    let Some(text) = r.text("host", 253, faults) else {
        return Host::Auto;
    };
    if protocol == Protocol::Unix {
        if !text.starts_with('/') || text.len() > 107 || text.contains("/../") {
            faults.add(
                "host",
                "form",
                "must be the absolute path of a socket, at most 107 bytes",
            );
        }
        return Host::Named(text.to_owned());
    }
    match text {
        "" | "auto" => Host::Auto,
        _ => match plain_host(text) {
            Some(host) => Host::Named(host),
            None => {
                faults.add(
                    "host",
                    "form",
                    "must be a host name, an IP address or `auto`",
                );
                Host::Auto
            }
        },
    }
}

/// A host name (RFC 1123, underscores allowed as Docker and Consul use them) or an address.
pub(crate) fn plain_host(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(ip.to_string());
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // `127.1` and `0x7f000001` would be read as addresses by a resolver: a last label of digits is no name.
    let digits = |l: &str| l.bytes().all(|b| b.is_ascii_digit()) || l.starts_with("0x");
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    let last = trimmed.rsplit('.').next().unwrap_or_default();
    let good = trimmed.len() <= 253 && trimmed.split('.').all(label) && !digits(last);
    good.then(|| trimmed.to_ascii_lowercase())
}

fn port(r: &mut Reader<'_>, protocol: Protocol, faults: &mut Faults) -> u16 {
    let given = r.value("port").is_some();
    match (protocol, given) {
        (Protocol::Unix, false) => 0,
        (_, false) => {
            faults.add("port", "required", "is needed");
            0
        }
        (Protocol::Unix, true) => small(r.integer("port", 0, 0, faults), 0),
        (_, true) => small(r.integer("port", 1, 65_535, faults), 0),
    }
}

fn base_path(r: &mut Reader<'_>, faults: &mut Faults) -> String {
    let text = r.text("base_path", 256, faults).unwrap_or("/");
    match plain_base_path(text) {
        Some(path) => path,
        None => {
            faults.add(
                "base_path",
                "form",
                "must be a path that begins with `/`, without `.`, `..`, `?`, `#` and `//`",
            );
            "/".to_owned()
        }
    }
}

/// A prefix of paths without a final slash; `/` alone for none.
pub(crate) fn plain_base_path(text: &str) -> Option<String> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.is_empty() {
        return Some("/".to_owned());
    }
    let segments_fine = trimmed.strip_prefix('/')?.split('/').all(|s| {
        !s.is_empty()
            && s != "."
            && s != ".."
            && s.bytes()
                .all(|b| b.is_ascii_graphic() && !b"?#\\%<>\"`{}|^".contains(&b))
    });
    segments_fine.then(|| trimmed.to_owned())
}

fn tls_pin(r: &mut Reader<'_>, protocol: Protocol, faults: &mut Faults) -> Option<[u8; 32]> {
    let text = r.text("tls_pin", 64, faults)?;
    let mut pin = [0; 32];
    if hex::decode_to_slice(text, &mut pin).is_err() {
        faults.add("tls_pin", "form", "must be a SHA-256 in 64 hex digits");
        return None;
    }
    if !matches!(protocol, Protocol::Https | Protocol::H2) {
        faults.add("tls_pin", "conflict", "needs protocol https or h2");
    }
    Some(pin)
}

fn metadata(r: &mut Reader<'_>, faults: &mut Faults) -> IndexMap<String, String> {
    let Some(value) = r.value("metadata") else {
        return IndexMap::new();
    };
    let Some(map) = value.as_object() else {
        faults.add("metadata", "type", "must be an object");
        return IndexMap::new();
    };
    if map.len() > METADATA_PAIRS {
        faults.add(
            "metadata",
            "too_many",
            format!(
                "must have at most {METADATA_PAIRS} pairs, not {}",
                map.len()
            ),
        );
    }
    let mut out = IndexMap::new();
    let mut bytes = 0;
    for (key, value) in map.iter().take(METADATA_PAIRS) {
        let shown: String = key.chars().take(64).collect();
        let path = format!("metadata.{shown}");
        let good_key = !key.is_empty()
            && key.len() <= 128
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
        if !good_key {
            faults.add(
                &path,
                "form",
                "a key must be 1 to 128 letters, digits, `.`, `_`, `-`, `/`",
            );
        }
        let plain = match value {
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => Some(number.to_string()),
            _ => text(&path, value, METADATA_BYTES, faults).map(str::to_owned),
        };
        if let Some(plain) = plain {
            bytes += key.len() + plain.len();
            out.insert(key.clone(), plain);
        }
    }
    if bytes > METADATA_BYTES {
        faults.add(
            "metadata",
            "too_long",
            format!("must be at most {METADATA_BYTES} bytes, not {bytes}"),
        );
    }
    out
}

fn service_part(r: &mut Reader<'_>, own: &str, faults: &mut Faults) -> ServicePart {
    let default_access = match r.text("default_access", 32, faults) {
        None | Some("authenticated") => DefaultAccess::Authenticated,
        Some("public") => DefaultAccess::Public,
        Some(_) => {
            faults.add(
                "default_access",
                "choice",
                "must be authenticated or public",
            );
            DefaultAccess::Authenticated
        }
    };
    let permissions = r.texts("permissions", 200, 122, faults);
    for (i, text) in permissions.iter().enumerate() {
        let mine = Permission::parse(text).is_ok()
            && text.split(':').next() == Some(own)
            && !text.contains('*');
        if !mine {
            faults.add(
                format!("permissions[{i}]"),
                "form",
                format!("must be of the form {own}:resource:action"),
            );
        }
    }
    let events = r.texts("events", 200, 128, faults);
    for (i, text) in events.iter().enumerate() {
        let mine = text.strip_prefix(own).is_some_and(|rest| {
            rest.strip_prefix('.').is_some_and(|tail| {
                !tail.is_empty()
                    && tail
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b))
            })
        });
        if !mine {
            faults.add(
                format!("events[{i}]"),
                "form",
                format!("must begin with `{own}.`"),
            );
        }
    }
    ServicePart {
        display_name: r.text("display_name", 128, faults).map(str::to_owned),
        description: r.text("description", 1024, faults).map(str::to_owned),
        default_access,
        forward_credentials: r.flag("forward_credentials", faults),
        identity_statement: r.flag("identity_statement", faults),
        endpoints: Some(endpoints::read(r, faults)),
        openapi_url: openapi_url(r, faults),
        settings_schema: r.object("settings_schema", DOCUMENT_BYTES, faults).cloned(),
        console: r.object("console", DOCUMENT_BYTES, faults).cloned(),
        contributions: Contributions {
            permissions,
            events,
        },
    }
}

fn openapi_url(r: &mut Reader<'_>, faults: &mut Faults) -> Option<String> {
    let text = r.text("openapi_url", 1024, faults)?;
    if !checks::is_target(text) {
        faults.add(
            "openapi_url",
            "form",
            "must be a path that begins with `/`, or a URL with http or https",
        );
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::check::Probe;
    use super::*;

    const DEFAULTS: Defaults = Defaults {
        heartbeat_s: 30,
        check_interval_ms: 10_000,
        check_timeout_ms: 2_000,
        fall: 2,
        rise: 2,
    };

    fn faults(body: &Value) -> Vec<(String, String)> {
        match parse(body, DEFAULTS) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|f| (f.field, f.code)).collect(),
        }
    }

    #[test]
    fn the_smallest_and_the_fullest() {
        let r = parse(&json!({"name": "hello", "port": 9000}), DEFAULTS).unwrap();
        assert_eq!(
            (r.host, r.port, r.base_path.as_str()),
            (Host::Auto, 9000, "/")
        );
        assert_eq!(
            (r.heartbeat_s, r.weight, r.version.as_str()),
            (Some(30), 100, "0.0.0")
        );
        assert!(r.checks.is_empty());
        let full = json!({
            "id": "a", "instance_key": "a", "tenant": "default", "name": "hello", "display_name": "Hello",
            "description": "greets", "version": "1.2.3", "host": "127.0.0.1", "port": 9000, "base_path": "/v2/",
            "protocol": "http/1.1", "zone": "z1", "node": "n1", "weight": 10, "heartbeat_s": 5,
            "tags": ["a", "b"], "metadata": {"team": "x", "n": 3}, "default_access": "public",
            "forward_credentials": true, "permissions": ["hello:note:write"], "events": ["hello.note.added"],
            "settings_schema": {}, "openapi_url": "/openapi.json", "console": {"menu": []},
            "health_check_url": "/healthz",
            "endpoints": [{"path": "/notes/{id}", "method": "get", "description": "one", "is_public": true,
                "required_roles": ["r"], "required_permissions": ["hello:note:read"],
                "rate_limit": {"per_s": 5, "burst": 10}, "timeout_ms": 100, "cache": {"ttl_s": 5}}],
        });
        let r = parse(&full, DEFAULTS).unwrap();
        assert_eq!(r.base_path, "/v2");
        let service = r.service.unwrap();
        assert_eq!(service.endpoints.unwrap()[0].method.as_deref(), Some("GET"));
        assert_eq!(r.metadata["n"], "3");
        assert!(matches!(&r.checks[0].probe, Probe::Http { target, .. } if target == "/healthz"));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body = json!({
            "name": "Hello", "port": 70_000, "host": "a b", "base_path": "x/../y", "weight": 1001,
            "tags": "no", "metadata": {"a b": 1, "c": []}, "heartbeat_s": 0, "protocol": "ftp",
            "default_access": "all", "forward_credentials": "yes", "bogus": 1,
            "endpoints": [{"path": "no-slash"}, {"path": "/a", "method": "G T", "nope": 1}, 5],
            "health_check_url": "ftp://x/", "openapi_url": "nope", "permissions": ["other:a:b"],
            "events": ["other.thing"], "tls_pin": "zz",
        });
        let found = faults(&body);
        let fields: Vec<&str> = found.iter().map(|(f, _)| f.as_str()).collect();
        for want in [
            "name",
            "port",
            "host",
            "base_path",
            "weight",
            "tags",
            "metadata.a b",
            "metadata.c",
            "heartbeat_s",
            "protocol",
            "default_access",
            "forward_credentials",
            "bogus",
            "endpoints[0].path",
            "endpoints[1].method",
            "endpoints[1].nope",
            "endpoints[2]",
            "health_check_url",
            "openapi_url",
            "permissions[0]",
            "events[0]",
            "tls_pin",
        ] {
            assert!(fields.contains(&want), "{want} is missing in {fields:?}");
        }
        assert_eq!(faults(&json!([]))[0].0, "body");
        assert_eq!(
            faults(&json!({}))[0],
            ("name".to_owned(), "required".to_owned())
        );
        assert_eq!(
            faults(&json!({"name": "gateway", "port": 1}))[0].1,
            "reserved"
        );
    }

    #[test]
    fn sizes_are_bounded() {
        let with = |field: &str, value: Value| {
            let mut body = json!({"name": "hello", "port": 9000});
            body[field] = value;
            faults(&body)
        };
        let pairs: serde_json::Map<String, Value> =
            (0..65).map(|i| (format!("k{i}"), json!("v"))).collect();
        assert_eq!(with("metadata", Value::Object(pairs))[0].1, "too_many");
        assert_eq!(
            with("metadata", json!({"k": "v".repeat(9_000)}))[0].1,
            "too_long"
        );
        assert_eq!(with("tags", json!(vec!["t"; 65]))[0].1, "too_many");
        let endpoints: Vec<Value> = (0..501).map(|i| json!({"path": format!("/{i}")})).collect();
        assert_eq!(with("endpoints", json!(endpoints))[0].1, "too_many");
        assert!(with("x", json!(1))[0].0 == "x");
        assert_eq!(with("console", json!({"a": ["\0"]}))[0].1, "control");
        assert_eq!(with("settings_schema", json!({"\0": 1}))[0].1, "control");
        assert_eq!(with("zone", json!("a\0b"))[0].1, "control");
    }

    #[test]
    fn hosts() {
        for (text, want) in [
            ("127.0.0.1", Some("127.0.0.1")),
            ("[::1]", Some("::1")),
            ("::1", Some("::1")),
            ("My-Host.local", Some("my-host.local")),
            ("a_b", Some("a_b")),
            ("127.1", None),
            ("2130706433", None),
            ("0x7f000001", None),
            ("a..b", None),
            ("-a", None),
            ("a b", None),
            ("a/b", None),
        ] {
            assert_eq!(plain_host(text).as_deref(), want, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
            "[a-z/:.@*{}]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z_]{1,12}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_panics_and_faults_name_fields(values in proptest::collection::vec(any_json(), 8), pick in proptest::collection::vec(0..24usize, 8)) {
            const FIELDS: [&str; 24] = [
                "name", "port", "host", "version", "base_path", "protocol", "tags", "metadata", "endpoints",
                "health_check_url", "check", "checks", "weight", "heartbeat_s", "default_access", "permissions",
                "events", "settings_schema", "console", "openapi_url", "tls_pin", "tenant", "id", "bogus",
            ];
            let mut body = json!({"name": "hello", "port": 9000});
            for (value, i) in values.into_iter().zip(pick) {
                body[FIELDS[i]] = value;
            }
            if let Err(faults) = parse(&body, DEFAULTS) {
                prop_assert!(!faults.is_empty());
                prop_assert!(faults.iter().all(|f| !f.field.is_empty()));
            }
        }
    }
}
