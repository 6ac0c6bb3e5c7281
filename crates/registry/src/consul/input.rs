//! Registrations of services and checks as Consul's clients send them (C§4, C§5).

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use portico_contract::directory::{DefaultAccess, Protocol};
use serde_json::{Value, json};

use super::decode::{Fault, Fields};
use crate::domain::check::{CheckSpec, Expect, Probe, Status};
use crate::domain::instance::ConsulPart;
use crate::domain::registration::{Host, Registration, ServicePart, plain_base_path, plain_host};
use crate::domain::service::Contributions;
use crate::ops::register::NewCheck;

/// Text of a refused script or Docker check (RG-47).
pub(crate) const NO_SCRIPTS: &str = "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true";
/// Text of a wrong initial status.
pub(crate) const BAD_STATUS: &str = "Status for checks must 'passing', 'warning', 'critical'";
/// Time that an active check may take.
const TIMEOUT_MS: u64 = 10_000;
/// Shortest interval of an active check.
const MIN_INTERVAL_MS: u64 = 1_000;
/// Tags, checks and tagged addresses of an instance.
const MOST: usize = 64;
/// Longest name, id or tag in bytes.
const LONGEST: usize = 512;

/// A check as it arrives.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckInput {
    pub id: String,
    pub name: String,
    pub notes: String,
    pub service_id: String,
    pub status: String,
    pub output: String,
    pub http: String,
    pub method: String,
    pub header: IndexMap<String, Vec<String>>,
    pub body: String,
    pub tls_skip_verify: bool,
    pub tcp: String,
    pub grpc: String,
    pub grpc_tls: bool,
    pub alias_service: String,
    pub alias_node: String,
    pub script: bool,
    pub interval_ns: i64,
    pub timeout_ns: i64,
    pub ttl_ns: i64,
    pub deregister_ns: i64,
    pub rise: i64,
    pub fall: i64,
}

/// Why an input is refused: status and sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong(pub u16, pub String);

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self(400, format!("Request decode failed: {fault}"))
    }
}

impl CheckInput {
    /// Reads a check. `strict` refuses unknown members.
    pub(crate) fn read(value: &Value, strict: bool) -> Result<Self, Fault> {
        let mut f = Fields::new(value)?;
        let (id, other) = (f.text("CheckID")?, f.text("ID")?);
        let mut header = IndexMap::new();
        if let Some(map) = f.map("Header")? {
            for (name, values) in map {
                let list = match values {
                    Value::String(text) => vec![text.clone()],
                    Value::Array(items) => items
                        .iter()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect(),
                    _ => {
                        return Err(format!(
                            "json: cannot unmarshal into Go struct field .Header.{name} of type []string"
                        ));
                    }
                };
                header.insert(name.clone(), list);
            }
        }
        let scripts = [f.texts("Args")?, f.texts("ScriptArgs")?];
        let script = f.text("Script")?;
        let docker = f.text("DockerContainerID")?;
        let shell = f.text("Shell")?;
        let read = Self {
            id: if id.is_empty() { other } else { id },
            name: f.text("Name")?,
            notes: f.text("Notes")?,
            service_id: f.text("ServiceID")?,
            status: f.text("Status")?,
            output: f.text("Output")?,
            http: f.text("HTTP")?,
            method: f.text("Method")?,
            header,
            body: f.text("Body")?,
            tls_skip_verify: f.flag("TLSSkipVerify")?,
            tcp: f.text("TCP")?,
            grpc: f.text("GRPC")?,
            grpc_tls: f.flag("GRPCUseTLS")?,
            alias_service: f.text("AliasService")?,
            alias_node: f.text("AliasNode")?,
            script: scripts.iter().flatten().any(|s| !s.is_empty())
                || !(script.is_empty() && docker.is_empty() && shell.is_empty()),
            interval_ns: f.duration("Interval")?,
            timeout_ns: f.duration("Timeout")?,
            ttl_ns: f.duration("TTL")?,
            deregister_ns: f.duration("DeregisterCriticalServiceAfter")?,
            rise: f.integer("SuccessBeforePassing")?.unwrap_or(0),
            fall: f.integer("FailuresBeforeCritical")?.unwrap_or(0),
        };
        for known in [
            "Token",
            "Namespace",
            "OutputMaxSize",
            "Node",
            "ServiceName",
            "ServiceTags",
            "Type",
            "Definition",
        ] {
            let _ = f.value(known);
        }
        if strict {
            f.finish()?;
        }
        Ok(read)
    }

    /// True for `{}`: no check at all.
    fn is_empty(&self) -> bool {
        !self.is_active()
            && !self.is_alias()
            && !self.script
            && self.ttl_ns == 0
            && self.interval_ns == 0
            && self.id.is_empty()
            && self.name.is_empty()
    }

    fn is_active(&self) -> bool {
        !(self.http.is_empty() && self.tcp.is_empty() && self.grpc.is_empty())
    }

    fn is_alias(&self) -> bool {
        !(self.alias_service.is_empty() && self.alias_node.is_empty())
    }

    /// The initial status.
    pub(crate) fn initial(&self) -> Result<Status, Wrong> {
        match self.status.as_str() {
            "" => Ok(Status::Critical),
            text => Status::parse(text).ok_or_else(|| Wrong(400, BAD_STATUS.to_owned())),
        }
    }

    /// Exactly one kind (C§5).
    pub(crate) fn spec(&self, deregister_min_ms: u64) -> Result<CheckSpec, Wrong> {
        let wrong = |text: &str| Err(Wrong(400, format!("Invalid check: {text}")));
        if self.interval_ns > 0 && self.ttl_ns > 0 {
            return wrong("Interval and TTL cannot both be specified");
        }
        if self.script {
            return if self.interval_ns > 0 {
                Err(Wrong(500, NO_SCRIPTS.to_owned()))
            } else {
                wrong("Interval must be > 0 for Script, HTTP, or TCP checks")
            };
        }
        if self.is_active() && self.interval_ns <= 0 {
            return wrong("Interval must be > 0 for Script, HTTP, or TCP checks");
        }
        if self.is_active() && self.is_alias() {
            return wrong("Interval cannot be set for Alias checks");
        }
        if self.is_alias() && self.ttl_ns > 0 {
            return wrong("TTL must be not be set for Alias checks");
        }
        if !self.is_active() && !self.is_alias() && self.ttl_ns <= 0 {
            return wrong("TTL must be > 0 for TTL checks");
        }
        let probe = self.probe()?;
        let timeout = ms(self.timeout_ns);
        let count = |n: i64| u8::try_from(n.clamp(1, 200)).unwrap_or(1);
        Ok(CheckSpec {
            interval_ms: if self.is_active() {
                ms(self.interval_ns).max(MIN_INTERVAL_MS)
            } else {
                ms(self.ttl_ns)
            },
            timeout_ms: if timeout == 0 { TIMEOUT_MS } else { timeout },
            fall: count(self.fall),
            rise: count(self.rise),
            deregister_after_ms: if self.deregister_ns > 0 {
                ms(self.deregister_ns).max(deregister_min_ms)
            } else {
                0
            },
            foreign: false,
            probe,
        })
    }

    fn probe(&self) -> Result<Probe, Wrong> {
        let wrong = |text: String| Err(Wrong(400, format!("Invalid check: {text}")));
        if !self.http.is_empty() {
            let good = url::Url::parse(&self.http)
                .is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.host().is_some());
            if !good {
                return wrong(format!(
                    "{} is not a URL with http or https",
                    super::duration::quoted(&self.http)
                ));
            }
            let method = if self.method.is_empty() {
                "GET".to_owned()
            } else {
                self.method.to_ascii_uppercase()
            };
            let fine = http::Method::from_bytes(method.as_bytes()).is_ok()
                && self.header.iter().all(|(name, values)| {
                    http::HeaderName::try_from(name.as_str()).is_ok()
                        && values
                            .iter()
                            .all(|v| http::HeaderValue::try_from(v.as_str()).is_ok())
                });
            if !fine {
                return wrong("the method or a header cannot be sent".to_owned());
            }
            return Ok(Probe::Http {
                target: self.http.clone(),
                method,
                headers: self.header.clone(),
                body: self.body.clone(),
                expect: Expect {
                    status: Vec::new(),
                    warn: vec![429],
                    body: None,
                },
                tls_skip_verify: self.tls_skip_verify,
            });
        }
        if !self.tcp.is_empty() {
            return match authority(&self.tcp) {
                Some(target) => Ok(Probe::Tcp {
                    target: Some(target),
                }),
                None => wrong(format!(
                    "{} is not host:port",
                    super::duration::quoted(&self.tcp)
                )),
            };
        }
        if !self.grpc.is_empty() {
            let (target, service) = self.grpc.split_once('/').unwrap_or((&self.grpc, ""));
            return match authority(target) {
                Some(target) => Ok(Probe::Grpc {
                    target: Some(target),
                    service: service.to_owned(),
                    tls: self.grpc_tls,
                }),
                None => wrong(format!(
                    "{} is not host:port",
                    super::duration::quoted(target)
                )),
            };
        }
        if self.is_alias() {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            return Ok(Probe::Alias {
                service: some(&self.alias_service),
                node: some(&self.alias_node),
            });
        }
        Ok(Probe::Ttl {
            ttl_ms: ms(self.ttl_ns).max(1),
        })
    }

    /// A check whose status is told, not looked for (`catalog/register`).
    pub(crate) const fn stated() -> CheckSpec {
        CheckSpec {
            probe: Probe::Stated,
            interval_ms: 0,
            timeout_ms: 0,
            fall: 1,
            rise: 1,
            deregister_after_ms: 0,
            foreign: false,
        }
    }
}

/// `host:port` of something that can be connected to.
fn authority(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|p| *p > 0)?;
    let host = plain_host(host)?;
    Some(crate::domain::instance::authority(&host, port))
}

fn ms(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0).div_ceil(1_000_000)
}

/// A service as it arrives.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceInput {
    pub id: String,
    pub name: String,
    pub tags: Vec<String>,
    pub address: String,
    pub port: i64,
    pub meta: Option<IndexMap<String, String>>,
    pub tagged: BTreeMap<String, (String, i64)>,
    pub weights: (i64, i64),
    pub enable_tag_override: bool,
    pub mesh: Option<Value>,
    pub checks: Vec<CheckInput>,
}

impl ServiceInput {
    /// Reads a service. In the catalogue its name is `Service`.
    pub(crate) fn read(value: &Value, name: &str, strict: bool) -> Result<Self, Fault> {
        let mut f = Fields::new(value)?;
        let id = f.text("ID")?;
        let named = f.text(name)?;
        let mut checks = Vec::new();
        if let Some(check) = f.value("Check") {
            checks.push(CheckInput::read(check, strict)?);
        }
        for check in f.list("Checks")? {
            checks.push(CheckInput::read(check, strict)?);
        }
        checks.retain(|c| !c.is_empty());
        let read = Self {
            id: if id.is_empty() { named.clone() } else { id },
            name: named,
            tags: f.texts("Tags")?.unwrap_or_default(),
            address: f.text("Address")?,
            port: f.integer("Port")?.unwrap_or(0),
            meta: f.text_map("Meta")?,
            tagged: tagged(&mut f)?,
            weights: weights(&mut f)?,
            enable_tag_override: f.flag("EnableTagOverride")?,
            mesh: mesh(&mut f)?,
            checks,
        };
        for known in ["Token", "Namespace", "CreateIndex", "ModifyIndex"] {
            let _ = f.value(known);
        }
        if strict {
            f.finish()?;
        }
        Ok(read)
    }

    /// What is wrong with it beyond its form.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        let wrong = |text: String| Err(Wrong(400, text));
        if self.name.is_empty() {
            return wrong("Missing service name".to_owned());
        }
        if self.name.len() > LONGEST
            || self.id.len() > LONGEST
            || self.tags.iter().any(|t| t.len() > LONGEST)
        {
            return wrong(format!(
                "Invalid service: names, ids and tags are at most {LONGEST} bytes"
            ));
        }
        if self.tags.len() > MOST || self.checks.len() > MOST || self.tagged.len() > MOST {
            return wrong(format!(
                "Invalid service: at most {MOST} tags, checks and tagged addresses"
            ));
        }
        if matches!(self.address.as_str(), "0.0.0.0" | "::" | "[::]") {
            return wrong("Invalid service address".to_owned());
        }
        if let Some(meta) = &self.meta {
            meta_fault(meta).map_or(Ok(()), |why| wrong(format!("Invalid Service Meta: {why}")))?;
        }
        let (passing, warning) = self.weights;
        if passing < 1 {
            return wrong("Invalid Weights: Passing must be greater than 0".to_owned());
        }
        if warning < 0 {
            return wrong("Invalid Weights: Warning must be greater or equal than 0".to_owned());
        }
        if passing > 65_535 || warning > 65_535 {
            return wrong("Invalid Weights: DNS Weight must be between 0 and 65535".to_owned());
        }
        Ok(())
    }

    /// The same as a registration. `node_address` is what an empty address means.
    pub(crate) fn registration(
        &self,
        node: &str,
        node_address: Option<&str>,
        tenant: Option<String>,
    ) -> Result<Registration, Wrong> {
        let meta = self.meta.clone().unwrap_or_default();
        let pair = |name: &str| meta.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let host = match (self.address.as_str(), node_address) {
            ("", None) => Host::Auto,
            ("", Some(address)) => Host::Named(host_of(address)?),
            (address, _) => Host::Named(host_of(address)?),
        };
        let version = pair("version").filter(|v| {
            v.len() <= 64
                && v.bytes()
                    .all(|b| b.is_ascii_graphic() && b != b'/' && b != b'@')
        });
        let protocol = pair("protocol")
            .and_then(|p| serde_json::from_value(json!(p)).ok())
            .filter(|p| *p != Protocol::Unix);
        let (passing, warning) = self.weights;
        let part = ConsulPart {
            id: self.id.clone(),
            address: self.address.clone(),
            port: self.port,
            tagged_addresses: self.tagged.clone(),
            weight_passing: u32::try_from(passing).unwrap_or(1),
            weight_warning: u32::try_from(warning).unwrap_or(1),
            enable_tag_override: self.enable_tag_override,
            meta_absent: self.meta.is_none(),
            mesh: self.mesh.clone(),
        };
        // A hundred is the weight of native instances, so that both kinds share traffic evenly by default.
        let weight = u16::try_from(passing.saturating_mul(100).clamp(1, 1_000)).unwrap_or(1_000);
        let public = pair("portico_public").map(|v| matches!(v, "true" | "1"));
        Ok(Registration {
            secret: None,
            name: self.name.clone(),
            tenant,
            key: Some(format!("{node}/{}", self.id)),
            version: version.unwrap_or("0.0.0").to_owned(),
            host,
            port: u16::try_from(self.port).unwrap_or(0),
            base_path: pair("base_path")
                .and_then(plain_base_path)
                .unwrap_or_else(|| "/".to_owned()),
            protocol: protocol.unwrap_or_default(),
            tls_pin: None,
            zone: pair("zone")
                .filter(|z| z.len() <= 64)
                .unwrap_or_default()
                .to_owned(),
            node: node.to_owned(),
            weight,
            tags: self.tags.clone(),
            heartbeat_s: None,
            checks: Vec::new(),
            service: public.map(|public| ServicePart {
                display_name: None,
                description: None,
                default_access: if public {
                    DefaultAccess::Public
                } else {
                    DefaultAccess::Authenticated
                },
                forward_credentials: false,
                identity_statement: false,
                endpoints: None,
                openapi_url: None,
                settings_schema: None,
                console: None,
                contributions: Contributions::default(),
            }),
            consul: Some(Arc::new(part)),
            metadata: meta,
        })
    }

    /// Its checks with their ids and names (C§5).
    pub(crate) fn new_checks(&self, deregister_min_ms: u64) -> Result<Vec<NewCheck>, Wrong> {
        let several = self.checks.len() > 1;
        self.checks
            .iter()
            .enumerate()
            .map(|(i, check)| {
                let status = check.initial()?;
                let spec = check.spec(deregister_min_ms)?;
                let id = match (check.id.is_empty(), several) {
                    (false, _) => check.id.clone(),
                    (true, false) => format!("service:{}", self.id),
                    (true, true) => format!("service:{}:{}", self.id, i + 1),
                };
                let name = if check.name.is_empty() {
                    format!("Service '{}' check", self.name)
                } else {
                    check.name.clone()
                };
                Ok(NewCheck {
                    id,
                    name,
                    notes: check.notes.clone(),
                    spec,
                    status,
                })
            })
            .collect()
    }
}

fn host_of(address: &str) -> Result<String, Wrong> {
    plain_host(address).ok_or_else(|| Wrong(400, "Invalid service address".to_owned()))
}

fn tagged(f: &mut Fields<'_>) -> Result<BTreeMap<String, (String, i64)>, Fault> {
    let Some(map) = f.map("TaggedAddresses")? else {
        return Ok(BTreeMap::new());
    };
    map.iter()
        .map(|(name, value)| {
            let mut inner = Fields::new(value)?;
            Ok((
                name.clone(),
                (inner.text("Address")?, inner.integer("Port")?.unwrap_or(0)),
            ))
        })
        .collect()
}

fn weights(f: &mut Fields<'_>) -> Result<(i64, i64), Fault> {
    let Some(value) = f.value("Weights") else {
        return Ok((1, 1));
    };
    let mut inner = Fields::new(value)?;
    Ok((
        inner.integer("Passing")?.unwrap_or(0),
        inner.integer("Warning")?.unwrap_or(0),
    ))
}

/// Kind, Proxy and Connect, kept and given back.
fn mesh(f: &mut Fields<'_>) -> Result<Option<Value>, Fault> {
    let kind = f.text("Kind")?;
    let (proxy, connect) = (f.value("Proxy"), f.value("Connect"));
    if kind.is_empty() && proxy.is_none() && connect.is_none() {
        return Ok(None);
    }
    let mut out = json!({});
    if !kind.is_empty() {
        out["Kind"] = Value::from(kind);
    }
    if let Some(proxy) = proxy {
        out["Proxy"] = proxy.clone();
    }
    if let Some(connect) = connect {
        out["Connect"] = connect.clone();
    }
    Ok(Some(out))
}

/// What is wrong with metadata (C§4).
pub(crate) fn meta_fault(meta: &IndexMap<String, String>) -> Option<String> {
    if meta.len() > 64 {
        return Some("Node metadata cannot contain more than 64 key/value pairs".to_owned());
    }
    meta.iter().find_map(|(key, value)| {
        let why = if key.is_empty() {
            "Key cannot be blank"
        } else if !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        {
            "Key contains invalid characters"
        } else if key.len() > 128 {
            "Key is too long (limit: 128 characters)"
        } else if key.starts_with("consul-") {
            "Key prefix 'consul-' is reserved for internal use"
        } else if value.len() > 512 {
            "Value is too long (limit: 512 characters)"
        } else {
            return None;
        };
        Some(format!(
            "Couldn't load metadata pair ('{key}', '{value}'): {why}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &Value) -> Result<CheckSpec, Wrong> {
        CheckInput::read(body, true)
            .map_err(Wrong::from)?
            .spec(60_000)
    }

    #[test]
    fn exactly_one_kind() {
        for (body, status, text) in [
            (
                json!({}),
                400,
                "Invalid check: TTL must be > 0 for TTL checks",
            ),
            (
                json!({"TTL": "10s", "Interval": "10s"}),
                400,
                "Invalid check: Interval and TTL cannot both be specified",
            ),
            (
                json!({"HTTP": "http://x/"}),
                400,
                "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
            ),
            (
                json!({"TTL": "zz"}),
                400,
                "Request decode failed: time: invalid duration \"zz\"",
            ),
            (
                json!({"Args": ["/bin/true"], "Interval": "10s"}),
                500,
                NO_SCRIPTS,
            ),
            (
                json!({"DockerContainerID": "x", "Args": ["a"], "Interval": "10s"}),
                500,
                NO_SCRIPTS,
            ),
        ] {
            assert_eq!(
                check(&body).unwrap_err(),
                Wrong(status, text.to_owned()),
                "{body}"
            );
        }
        let spec = check(&json!({"http": "http://127.0.0.1/", "interval": "100ms", "deregister_critical_service_after": "10s"})).unwrap();
        assert_eq!(
            (spec.interval_ms, spec.timeout_ms, spec.deregister_after_ms),
            (1_000, 10_000, 60_000)
        );
        let spec = check(&json!({"TTL": "15s"})).unwrap();
        assert_eq!(spec.probe, Probe::Ttl { ttl_ms: 15_000 });
        let spec = check(&json!({"GRPC": "127.0.0.1:50051/web", "Interval": "5s"})).unwrap();
        assert!(matches!(spec.probe, Probe::Grpc { service, .. } if service == "web"));
    }

    #[test]
    fn services_are_read_and_checked() {
        let body = json!({"name": "web", "id": "web1", "tags": ["v1"], "port": 8080, "meta": {"version": "1.2.0", "portico_public": "true"},
            "check": {"ttl": "10s"}, "weights": {"Passing": 10, "Warning": 1}});
        let s = ServiceInput::read(&body, "Name", true).unwrap();
        s.check().unwrap();
        let r = s.registration("n1", Some("127.0.0.1"), None).unwrap();
        assert_eq!(
            (r.version.as_str(), r.port, r.weight),
            ("1.2.0", 8080, 1_000)
        );
        assert_eq!(r.host, Host::Named("127.0.0.1".to_owned()));
        assert!(r.service.is_some() && r.heartbeat_s.is_none());
        assert_eq!(s.new_checks(0).unwrap()[0].id, "service:web1");
        for (body, text) in [
            (json!({}), "Missing service name"),
            (
                json!({"Name": "a", "Address": "0.0.0.0"}),
                "Invalid service address",
            ),
            (
                json!({"Name": "a", "Weights": {"Passing": 0}}),
                "Invalid Weights: Passing must be greater than 0",
            ),
            (
                json!({"Name": "a", "Meta": {"consul-x": "1"}}),
                "Invalid Service Meta: Couldn't load metadata pair ('consul-x', '1'): Key prefix 'consul-' is reserved for internal use",
            ),
        ] {
            let found = ServiceInput::read(&body, "Name", true)
                .unwrap()
                .check()
                .unwrap_err();
            assert_eq!(found, Wrong(400, text.to_owned()));
        }
        let unknown =
            ServiceInput::read(&json!({"Name": "a", "Bogus": 1}), "Name", true).unwrap_err();
        assert_eq!(unknown, "json: unknown field \"Bogus\"");
    }
}
