//! The health checks of a registration (RG-20).

use indexmap::IndexMap;
use serde_json::Value;

use super::Defaults;
use crate::domain::check::{CheckSpec, Expect, Probe};
use crate::domain::fields::{Faults, Reader, text};

/// Reads `health_check_url`, `check` and `checks`.
pub(super) fn read(
    r: &mut Reader<'_>,
    defaults: Defaults,
    most: usize,
    faults: &mut Faults,
) -> Vec<CheckSpec> {
    let url = r
        .text("health_check_url", 1024, faults)
        .filter(|u| !u.is_empty());
    let url = url.filter(|url| {
        let good = is_target(url);
        if !good {
            let message = "must be a path that begins with `/`, or a URL with http or https";
            faults.add("health_check_url", "form", message);
        }
        good
    });
    let mut specs = Vec::new();
    match r.value("check") {
        Some(value) => specs.extend(one("check", value, url, defaults, faults)),
        None => specs.extend(url.map(|url| plain(url, defaults))),
    }
    for (i, item) in r.list("checks", most, faults).iter().enumerate() {
        specs.extend(one(&format!("checks[{i}]"), item, None, defaults, faults));
    }
    specs
}

/// A path of the instance, or a URL with http or https and a host.
pub(super) fn is_target(text: &str) -> bool {
    if text.starts_with('/') {
        return !text.starts_with("//") && text.bytes().all(|b| b.is_ascii_graphic());
    }
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
    })
}

fn spec(probe: Probe, defaults: Defaults) -> CheckSpec {
    CheckSpec {
        probe,
        interval_ms: defaults.check_interval_ms,
        timeout_ms: defaults.check_timeout_ms,
        fall: defaults.fall,
        rise: defaults.rise,
        deregister_after_ms: 0,
        foreign: false,
    }
}

fn http(target: &str) -> Probe {
    Probe::Http {
        target: target.to_owned(),
        method: "GET".to_owned(),
        headers: IndexMap::new(),
        body: String::new(),
        expect: Expect {
            status: Vec::new(),
            warn: Vec::new(),
            body: None,
        },
        tls_skip_verify: false,
    }
}

fn plain(url: &str, defaults: Defaults) -> CheckSpec {
    spec(http(url), defaults)
}

fn one(
    path: &str,
    value: &Value,
    url: Option<&str>,
    defaults: Defaults,
    faults: &mut Faults,
) -> Option<CheckSpec> {
    let mut r = Reader::new(path, value, faults)?;
    let target = r.text("url", 1024, faults).or(url);
    let kind = r
        .text("kind", 8, faults)
        .unwrap_or(if target.is_some() { "http" } else { "tcp" });
    let probe = match kind {
        "http" => http_probe(&mut r, target.unwrap_or("/"), faults),
        "tcp" => Probe::Tcp {
            target: authority(&mut r, faults),
        },
        "grpc" => Probe::Grpc {
            target: authority(&mut r, faults),
            service: r
                .text("service", 256, faults)
                .unwrap_or_default()
                .to_owned(),
            tls: r.flag("tls", faults),
        },
        _ => {
            faults.add(r.path("kind"), "choice", "must be one of http, tcp, grpc");
            Probe::Tcp { target: None }
        }
    };
    let mut spec = spec(probe, defaults);
    if let Some(n) = r.integer("interval_s", 1, 300, faults) {
        spec.interval_ms = n.unsigned_abs() * 1_000;
    }
    if let Some(n) = r.integer("timeout_ms", 10, 60_000, faults) {
        spec.timeout_ms = n.unsigned_abs();
    }
    if let Some(n) = r.integer("fall", 1, 20, faults) {
        spec.fall = u8::try_from(n).unwrap_or(defaults.fall);
    }
    if let Some(n) = r.integer("rise", 1, 20, faults) {
        spec.rise = u8::try_from(n).unwrap_or(defaults.rise);
    }
    r.finish(faults);
    Some(spec)
}

fn http_probe(r: &mut Reader<'_>, target: &str, faults: &mut Faults) -> Probe {
    if !is_target(target) {
        faults.add(
            r.path("url"),
            "form",
            "must be a path that begins with `/`, or a URL with http or https",
        );
    }
    let method = r
        .text("method", 20, faults)
        .unwrap_or("GET")
        .to_ascii_uppercase();
    if !matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "OPTIONS") {
        faults.add(
            r.path("method"),
            "choice",
            "must be one of GET, HEAD, POST, PUT, OPTIONS",
        );
    }
    let statuses = r.list("expect_status", 32, faults);
    let mut status = Vec::new();
    for (i, item) in statuses.iter().enumerate() {
        match item
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| (100..600).contains(n))
        {
            Some(n) => status.push(n),
            None => faults.add(
                format!("{}[{i}]", r.path("expect_status")),
                "range",
                "must be a status from 100 to 599",
            ),
        }
    }
    let body = r.text("body_match", 1024, faults).map(str::to_owned);
    if let Some(pattern) = &body
        && let Err(error) = regex::RegexBuilder::new(pattern)
            .size_limit(1 << 18)
            .build()
    {
        let message = error
            .to_string()
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned();
        faults.add(
            r.path("body_match"),
            "form",
            format!("is no regular expression: {message}"),
        );
    }
    Probe::Http {
        target: target.to_owned(),
        method,
        headers: headers(r, faults),
        body: r.text("body", 4096, faults).unwrap_or_default().to_owned(),
        expect: Expect {
            status,
            warn: Vec::new(),
            body,
        },
        tls_skip_verify: r.flag("tls_skip_verify", faults),
    }
}

fn headers(r: &mut Reader<'_>, faults: &mut Faults) -> IndexMap<String, Vec<String>> {
    let mut out = IndexMap::new();
    let Some(map) = r.object("headers", 4096, faults).and_then(Value::as_object) else {
        return out;
    };
    for (name, value) in map {
        let path = r.path(&format!("headers.{name}"));
        let texts: Vec<&Value> = value
            .as_array()
            .map_or_else(|| vec![value], |list| list.iter().collect());
        let values: Vec<String> = texts
            .into_iter()
            .filter_map(|v| text(&path, v, 1024, faults))
            .map(str::to_owned)
            .collect();
        let good = http::HeaderName::try_from(name.as_str()).is_ok()
            && values
                .iter()
                .all(|v| http::HeaderValue::try_from(v.as_str()).is_ok());
        if !good {
            faults.add(path, "form", "is not a header");
        }
        out.insert(name.clone(), values);
    }
    out
}

fn authority(r: &mut Reader<'_>, faults: &mut Faults) -> Option<String> {
    let text = r.text("target", 300, faults)?;
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        super::plain_host(host).is_some() && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    if !good {
        faults.add(r.path("target"), "form", "must be host:port");
    }
    Some(text.to_owned())
}
