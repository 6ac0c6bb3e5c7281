//! What single values cannot say: keys that need, exclude or contradict each other, and files that
//! must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::fault::{Fault, Warning};
use crate::key::Declared;
use crate::load::Found;
use crate::net::Listen;
use crate::origin::{Origin, Origins};
use crate::raw::Raw;
use crate::sections::{Config, DatabaseTlsMode, ObjectKind, Pooler, Role};
use crate::types::{Auto, Seconds};
use crate::urls::{DatabaseKind, HttpUrl, is_loopback_host};

/// Longest data directory in bytes; the paths below it must fit into the system's limit.
pub(crate) const MAX_DATA_DIR: usize = 1024;

/// Defaults that depend on other keys.
pub(crate) fn derive(found: &mut BTreeMap<String, Found>) {
    let raw = |key: &str| found.get(key).map(|found| &found.raw);
    let text = |key| raw(key).and_then(Raw::as_text).unwrap_or_default();
    let number = |key| raw(key).and_then(Raw::as_number);
    let mut derived = Vec::new();
    if !text("server.domain").is_empty() {
        derived.push(("listen.http", "0.0.0.0:80".into(), "server.domain is set"));
        if !text("tls.cert_file").is_empty() {
            let why = "server.domain and tls.cert_file are set";
            derived.push(("listen.https", "0.0.0.0:443".into(), why));
        }
    }
    if !text("database.tls.ca_file").is_empty() {
        let why = "database.tls.ca_file is set";
        derived.push(("database.tls.mode", "verify-full".into(), why));
    }
    // Somebody who wants one connection need not know the default of the other key.
    if number("database.max_connections").is_some_and(|most| most < 2.0) {
        let why = "database.max_connections is set";
        derived.push(("database.min_connections", Raw::from(1), why));
    }
    for (key, raw, why) in derived {
        let found = found.entry(key.to_owned());
        found.or_insert_with(|| Found::new(raw, Origin::Derived(why), key));
    }
}

/// What the checks found.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<Warning>,
}

/// Runs every check. Values that could not be read stand at their defaults and are in `wrong`, so
/// that nothing is said about them twice.
pub(crate) fn check(
    config: &Config,
    origins: &Origins,
    declared: &Declared,
    wrong: BTreeSet<String>,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Checked {
    let mut check = Check {
        config,
        origins,
        declared,
        wrong,
        read,
        out: Checked::default(),
    };
    check.node_and_server();
    check.listeners();
    check.open_listeners();
    check.tls();
    check.database();
    check.redis();
    check.objects();
    check.telemetry();
    check.shutdown();
    check.auth();
    check.out
}

struct Check<'a> {
    config: &'a Config,
    origins: &'a Origins,
    declared: &'a Declared,
    wrong: BTreeSet<String>,
    read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    out: Checked,
}

/// A table of rules: `fault` or `warn`, the key, when, and what to say.
macro_rules! rules {
    ($check:ident: $($kind:ident $key:literal if $when:expr => $say:expr;)*) => {
        $( if $when { $check.$kind($key, $say); } )*
    };
}

impl Check<'_> {
    fn fault(&mut self, key: &str, problem: impl Into<String>) {
        // The key, or the file that was to hold its value, may be reported already.
        if !self.wrong.contains(key) && !self.wrong.contains(&format!("{key}_file")) {
            let fault = Fault::new(self.origins.of(key), key, problem);
            self.out.faults.push(fault);
        }
    }

    fn warn(&mut self, key: &str, message: &str) {
        let warning = Warning::new(self.origins.of(key), key, message);
        self.out.warnings.push(warning);
    }

    fn node_and_server(&mut self) {
        let (config, node, server) = (self.config, &self.config.node, &self.config.server);
        let networks = server.trusted_proxies.networks();
        let beyond_origin = server.public_url.as_ref().is_some_and(|url| {
            let url = url.url();
            url.path() != "/" || url.query().is_some() || url.fragment().is_some()
        });
        let all = config.has_role(Role::All) || node.roles.is_empty();
        rules! { self:
            fault "node.data_dir" if node.data_dir.to_string_lossy().contains("<data>")
                => "`<data>` stands for this directory itself";
            fault "node.data_dir" if node.data_dir.as_os_str().len() > MAX_DATA_DIR
                => format!("is longer than {MAX_DATA_DIR} bytes");
            fault "node.roles" if node.roles.is_empty()
                => format!("a process needs a role; allowed: {}", Role::WORDS.join(", "));
            warn "node.roles" if !all && !config.scaled()
                => "with SQLite no other process can take the roles that are left out; use PostgreSQL";
            fault "node.dev" if node.dev && server.domain.is_some()
                => "development mode writes login codes into the log, so it is not for a node with `server.domain`";
            fault "server.public_url" if beyond_origin
                => "the URL has a path, a query or a fragment; allowed: scheme, host and port";
            fault "server.proxy_protocol" if server.proxy_protocol && networks.is_empty()
                => "needs `server.trusted_proxies`, from which alone it is read";
            warn "server.trusted_proxies" if networks.iter().any(|network| network.prefix_len() == 0)
                => "trusts everyone: any client can claim any address";
            fault "server.file_roots" if server.file_roots.iter().any(|root| root == Path::new("/"))
                => "the root of the file system would serve every file";
        }
    }

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let listen = &self.config.listen;
        let all = [
            ("listen.http", listen.http),
            ("listen.https", listen.https),
            ("listen.console", listen.console),
            ("listen.grpc", listen.grpc),
            ("listen.consul", listen.consul),
            ("listen.admin", listen.admin),
            ("listen.dns", listen.dns),
            ("listen.rtmp", listen.rtmp),
            ("listen.internal", listen.internal),
        ];
        // A default that nothing binds yet takes no address from anybody.
        let later = |key| {
            self.declared
                .get(key)
                .is_some_and(|key| key.later.is_some())
        };
        all.into_iter()
            .filter(|(key, _)| !(later(key) && self.origins.is_default(key)))
            .filter_map(|(key, listen)| Some((key, listen.addr()?)))
            .collect()
    }

    fn listeners(&mut self) {
        let addresses = self.addresses();
        for (at, (key, addr)) in addresses.iter().enumerate() {
            let before = &addresses[..at];
            if let Some((other, _)) = before.iter().find(|(_, other)| same_place(*addr, *other)) {
                // The one that somebody set is told, not the default that stood there before.
                let default = self.origins.is_default(key);
                let (key, other) = if default { (other, key) } else { (key, other) };
                self.fault(key, format!("{addr} is taken by `{other}`"));
            }
        }
        if addresses.is_empty() {
            self.fault("listen.http", "every listener is off");
        }
    }

    /// Operations §7: admin, Consul and internal listeners are for this machine, unless something
    /// says who may come. RG-46: who asks for anonymous clients and cannot have them is told why.
    fn open_listeners(&mut self) {
        let (config, listen) = (self.config, &self.config.listen);
        let anonymous = config.setting_text("registry.anonymous");
        if let (Some("loopback"), Err(why)) = (anonymous, config.anonymous_consul()) {
            let message = format!("has no effect, because {why}");
            self.warn("settings.registry.anonymous", &message);
        }
        if listen.insecure {
            return;
        }
        let token = config.telemetry.metrics.token.is_some()
            || self.wrong.contains("telemetry.metrics.token_file");
        let mutual = config.tls.internal.ca_file.is_some() || config.tls.internal.mesh;
        let certificate = config.tls.cert_file.is_some() || config.tls.cert_dir.is_some();
        let reached = |need: &str, how: &str| {
            format!(
                "other machines reach this address, so the listener {need}; allowed: a loopback \
                 address, {how}, or --insecure-listen if the risk is known"
            )
        };
        rules! { self:
            fault "listen.admin" if !listen.admin.is_private() && !token
                => reached("needs a token", "`telemetry.metrics.token_file`");
            fault "listen.consul" if !listen.consul.is_private() && anonymous != Some("off")
                => reached("must not take anonymous clients", "\"registry.anonymous\" = \"off\" in [settings]");
            fault "listen.grpc" if !listen.grpc.is_private() && !certificate
                => reached("carries credentials in the clear", "a certificate (`tls.cert_file`)");
            fault "listen.internal" if !listen.internal.is_private() && !mutual
                => reached("needs mutual TLS", "`tls.internal`");
        }
    }

    fn tls(&mut self) {
        let (tls, internal) = (&self.config.tls, &self.config.tls.internal);
        let listen = &self.config.listen;
        let https = listen.https != Listen::Off;
        // Administration and gRPC beyond this machine use them as well.
        let used = https || !listen.console.is_private() || !listen.grpc.is_private();
        let (cert, ca) = (internal.cert_file.is_some(), internal.ca_file.is_some());
        self.pair("tls", tls.cert_file.as_ref(), tls.key_file.as_ref());
        self.pair(
            "tls.internal",
            internal.cert_file.as_ref(),
            internal.key_file.as_ref(),
        );
        self.pem(
            "tls.internal.ca_file",
            internal.ca_file.as_ref(),
            "CERTIFICATE",
        );
        rules! { self:
            fault "tls.internal.cert_file" if cert && !ca => "needs `tls.internal.ca_file`";
            fault "tls.internal.ca_file" if ca && !cert
                => "needs `tls.internal.cert_file` and `tls.internal.key_file`";
            fault "listen.https" if https && tls.cert_file.is_none() && tls.cert_dir.is_none()
                => "needs a certificate: `tls.cert_file` and `tls.key_file`";
            warn "tls.cert_file" if !used && tls.cert_file.is_some()
                => "is not used, because `listen.https` is off";
            warn "tls.cert_dir" if !used && tls.cert_dir.is_some()
                => "is not used, because `listen.https` is off";
        }
    }

    /// A certificate and its private key, in `<section>.cert_file` and `<section>.key_file`.
    fn pair(&mut self, section: &str, cert: Option<&PathBuf>, key: Option<&PathBuf>) {
        let (cert_key, key_key) = (
            format!("{section}.cert_file"),
            format!("{section}.key_file"),
        );
        self.pem(&cert_key, cert, "CERTIFICATE");
        self.pem(&key_key, key, "PRIVATE KEY");
        match (cert, key) {
            (Some(_), None) => {
                self.fault(&cert_key, format!("needs the private key in `{key_key}`"));
            }
            (None, Some(_)) => {
                self.fault(&key_key, format!("needs the certificate in `{cert_key}`"));
            }
            _ => {}
        }
    }

    fn pem(&mut self, key: &str, path: Option<&PathBuf>, word: &str) {
        let Some(path) = path else { return };
        let Some(bytes) = self.file(key, path) else {
            return;
        };
        let end = format!("{word}-----");
        let begins = String::from_utf8_lossy(&bytes)
            .lines()
            .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&end));
        if !begins {
            self.fault(
                key,
                format!("{} holds no PEM block `{word}`", path.display()),
            );
        }
    }

    fn file(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        match (self.read)(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.fault(key, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    fn database(&mut self) {
        let (database, tls) = (&self.config.database, &self.config.database.tls);
        let sqlite = !self.config.scaled();
        let replica = database.read_url.as_ref().map(|url| url.kind());
        let asked =
            tls.mode != DatabaseTlsMode::Prefer && !self.origins.is_default("database.tls.mode");
        self.pair(
            "database.tls",
            tls.cert_file.as_ref(),
            tls.key_file.as_ref(),
        );
        self.pem("database.tls.ca_file", tls.ca_file.as_ref(), "CERTIFICATE");
        rules! { self:
            fault "database.min_connections" if database.min_connections > database.max_connections
                => "is more than `database.max_connections`";
            fault "database.read_url" if !sqlite && replica == Some(DatabaseKind::Sqlite)
                => "a read replica of PostgreSQL is PostgreSQL";
            fault "database.read_url" if sqlite && replica.is_some()
                => "a read replica needs PostgreSQL in `database.url`";
            fault "database.pooler" if sqlite && database.pooler == Pooler::PgBouncer
                => "pgbouncer needs PostgreSQL in `database.url`";
            warn "database.tls.mode" if sqlite && asked => "has no effect with SQLite";
            warn "database.tls.ca_file" if sqlite && tls.ca_file.is_some() => "has no effect with SQLite";
            warn "database.tls.cert_file" if sqlite && tls.cert_file.is_some() => "has no effect with SQLite";
        }
    }

    fn redis(&mut self) {
        let authority = &self.config.redis.ca_file;
        self.pem("redis.ca_file", authority.as_ref(), "CERTIFICATE");
        let Some(url) = &self.config.redis.url else {
            return;
        };
        let outside = url
            .hosts()
            .iter()
            .any(|host| !is_loopback_host(bare_host(host)));
        let plain = outside && !url.tls() && !self.config.tls.internal.mesh;
        rules! { self:
            warn "redis.ca_file" if authority.is_some() && !url.tls()
                => "has no effect without TLS; use rediss://";
            warn "redis.url" if plain => "the connection is not encrypted; use rediss://";
            fault "redis.url" if url.expose().contains("#insecure")
                => "#insecure switches the check of the certificate off";
        }
    }

    fn objects(&mut self) {
        let (objects, s3) = (&self.config.objects, &self.config.backup.s3);
        let is_s3 = objects.kind == ObjectKind::S3;
        let plain = |url: &HttpUrl| url.url().scheme() == "http" && !url.is_loopback();
        let plain = objects.endpoint.as_ref().is_some_and(plain) && !objects.allow_http;
        let half = "an access key and a secret key go together";
        rules! { self:
            warn "objects.bucket" if !is_s3 && !objects.bucket.is_empty()
                => "has no effect with `objects.kind = \"local\"`";
            fault "objects.kind" if is_s3 && objects.bucket.is_empty() => "s3 needs `objects.bucket`";
            fault "objects.kind" if is_s3 && objects.region.is_empty() && objects.endpoint.is_none()
                => "s3 needs `objects.region` or `objects.endpoint`";
            fault "objects.endpoint" if is_s3 && plain && !self.config.tls.internal.mesh
                => "the connection is not encrypted; use https://, or `objects.allow_http = true`";
            fault "objects.prefix" if !is_object_name(&objects.prefix)
                => "must be parts of letters, digits, `.`, `_` and `-` between slashes, none beginning with a dot";
            fault "objects.access_key" if objects.access_key.is_some() && objects.secret_key.is_none() => half;
            fault "objects.secret_key" if objects.access_key.is_none() && objects.secret_key.is_some() => half;
            fault "backup.s3.access_key" if s3.access_key.is_some() && s3.secret_key.is_none() => half;
            fault "backup.s3.secret_key" if s3.access_key.is_none() && s3.secret_key.is_some() => half;
        }
    }

    fn telemetry(&mut self) {
        let telemetry = &self.config.telemetry;
        let token = telemetry.metrics.token.as_ref();
        let headers = telemetry
            .traces
            .headers
            .as_ref()
            .map(|text| parse_headers(text.expose()));
        rules! { self:
            fault "telemetry.metrics.token" if token.is_some_and(|token| token.expose().len() < 16)
                => "is shorter than 16 characters";
        }
        if let Some(Err(problem)) = headers {
            self.fault("telemetry.traces.headers", problem);
        }
    }

    fn shutdown(&mut self) {
        let shutdown = &self.config.shutdown;
        let drain = shutdown.drain_delay_s.unwrap_or(Seconds(0));
        let chosen = matches!(shutdown.drain_delay_s, Auto::Is(_));
        let less = shutdown.force_s < shutdown.grace_s;
        let cut = drain.0 + shutdown.grace_s.0 > shutdown.force_s.0;
        let force_is_default = self.origins.is_default("shutdown.force_s");
        rules! { self:
            fault "shutdown.grace_s" if less && force_is_default
                => "is more than `shutdown.force_s`, which ends the process before";
            fault "shutdown.force_s" if less && !force_is_default
                => "is less than `shutdown.grace_s`, so that no request could use its grace";
            warn "shutdown.drain_delay_s" if chosen && !less && cut
                => "together with grace_s it is more than force_s, the grace is cut short";
        }
    }

    fn auth(&mut self) {
        let auth = &self.config.auth;
        let (file, url) = (auth.jwks_file.is_some(), auth.jwks_url.is_some());
        let keys = file || url;
        let plain = |url: &HttpUrl| url.url().scheme() == "http" && !url.is_loopback();
        let no_claim = |name: &str| name.is_empty() || name.contains(char::is_whitespace);
        let need_keys = "needs the issuer's keys: `auth.jwks_file` or `auth.jwks_url`";
        let any_issuer = "tokens of any `iss` signed by these keys are taken; set `auth.issuer`";
        rules! { self:
            fault "auth.jwks_url" if file && url => "keys come from a file or from a URL, not from both";
            fault "auth.jwks_url" if auth.jwks_url.as_ref().is_some_and(plain)
                => "keys over plain http can be exchanged on the way; allowed: https, or http on this machine";
            fault "auth.issuer" if auth.issuer.is_some() && !keys => need_keys;
            fault "auth.audience" if auth.audience.is_some() && !keys => need_keys;
            warn "auth.jwks_file" if file && auth.issuer.is_none() => any_issuer;
            warn "auth.jwks_url" if url && !file && auth.issuer.is_none() => any_issuer;
            fault "auth.tenant_claim" if no_claim(&auth.tenant_claim) => "is the name of a claim";
            fault "auth.roles_claim" if no_claim(&auth.roles_claim) => "is the name of a claim";
        }
        let Some(path) = &auth.jwks_file else { return };
        let Some(bytes) = self.file("auth.jwks_file", path) else {
            return;
        };
        let keys = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        if keys.is_none_or(|set| !set["keys"].is_array()) {
            let problem = format!("{} is not a JSON object with a list `keys`", path.display());
            self.fault("auth.jwks_file", problem);
        }
    }
}

/// The headers of `telemetry.traces.headers`: `name=value` or `name: value`, one a line or with
/// commas between.
///
/// # Errors
/// A sentence that does not repeat the text.
pub fn parse_headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let lines = text
        .split(['\n', ','])
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let header = |(at, line): (usize, &str)| {
        let (name, value) = line.split_once(['=', ':']).unwrap_or_default();
        let (name, value) = (name.trim(), value.trim());
        let good = !name.is_empty() && name.bytes().all(token);
        if good && value.bytes().all(|b| (32..127).contains(&b)) {
            Ok((name.to_ascii_lowercase(), value.to_owned()))
        } else {
            Err(format!("header {} is not written name=value", at + 1))
        }
    };
    lines.enumerate().map(header).collect()
}

/// True when two listeners cannot both bind: equal ports, and one address covers the other.
fn same_place(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && covers
}

/// What an object's name looks like (`portico_objects::Key`), or nothing.
fn is_object_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed);
    text.is_empty() || (text.len() <= 200 && text.split('/').all(part))
}

fn bare_host(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or(host),
    }
}
