//! Fuzz targets: plain functions over any bytes, run by property tests and by a fuzzer if one is at hand.
//!
//! They must never panic, and what they accept must keep the promise that is written beside each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portico_contract::directory::Directory;
use portico_contract::settings::Settings;
use portico_telemetry::trace::TraceContext;
use serde_json::Value;

pub use crate::cache::{fuzz_cache_control, fuzz_range};
use crate::objects::doc::{
    CacheRuleDoc, CorsDoc, HostDoc, LimitDoc, ReleaseDoc, RouteDoc, TransformDoc,
};
use crate::objects::{Kind, Object, Objects, Validate};
use crate::pipeline::client::Client;
use crate::route::build::{Builder, Input, Names};
use crate::route::path::normalise;
use crate::route::table::Ask;
use crate::serve::{ConnInfo, Protocol};

/// Normalises `bytes` as a path. An accepted one has one reading: normalised again it stays the same, and
/// no segment of it leads anywhere else.
///
/// # Panics
/// When it does not: that is the finding.
pub fn fuzz_path(bytes: &[u8]) {
    let Ok(path) = normalise(bytes) else { return };
    let text = path.as_str();
    let again = normalise(text.as_bytes()).expect("what was accepted is accepted");
    assert_eq!(again.as_str(), text, "normalising is idempotent");
    assert!(text.starts_with('/') && !text.contains("//"), "{text:?}");
    let lower = text.to_ascii_lowercase();
    assert!(
        !lower.contains("%00") && !lower.contains("%2e") && !text.contains('\\'),
        "{text:?}"
    );
    assert!(text.split('/').all(|s| s != "." && s != ".."), "{text:?}");
    assert!(text.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{text:?}");
}

/// Reads `bytes` as a document of every kind. What has no fault can be compiled into a table and asked.
///
/// # Panics
/// When it cannot: that is the finding.
pub fn fuzz_document(bytes: &[u8]) {
    let Ok(doc) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    for kind in Kind::ALL {
        let _faults = kind.faults(&doc);
    }
    let mut objects = Objects::default();
    take::<RouteDoc>(&doc, &mut objects.routes);
    take::<ReleaseDoc>(&doc, &mut objects.releases);
    take::<LimitDoc>(&doc, &mut objects.limits);
    take::<CorsDoc>(&doc, &mut objects.cors);
    take::<CacheRuleDoc>(&doc, &mut objects.cache_rules);
    take::<TransformDoc>(&doc, &mut objects.transforms);
    take::<HostDoc>(&doc, &mut objects.hosts);
    let input = Input {
        directory: Arc::new(Directory::default()),
        objects: Arc::new(objects),
        settings: Settings::defaults(),
        settings_version: 0,
        now_ms: 0,
    };
    let table = Builder::new(Names::default()).build(&input);
    let headers = HeaderMap::new();
    for path in ["/", "/a", "/a/b/c", "/api/hello/x"] {
        let path = normalise(path.as_bytes()).expect("a plain path");
        let ask = Ask {
            host: "localhost",
            kind: table.hosts.find("localhost"),
            path: &path,
            query: Some("a=b"),
            method: &Method::GET,
            headers: &headers,
        };
        let _found = table.find(&ask);
    }
}

fn take<T: serde::de::DeserializeOwned + Validate>(doc: &Value, list: &mut Vec<Object<T>>) {
    let Ok(read) = T::deserialize(doc) else {
        return;
    };
    if read.faults().is_empty() {
        list.push(Object {
            name: Arc::from("fuzz"),
            tenant: None,
            created_at: portico_base::Timestamp::default(),
            doc: Arc::new(read),
        });
    }
}

/// Reads lines of `bytes` as the fields by which proxies say whom they speak for. Nobody is taken for
/// somebody else unless a trusted proxy says so, and a trusted address is never the client of another.
///
/// # Panics
/// When it is: that is the finding.
pub fn fuzz_forwarded(bytes: &[u8]) {
    let names = [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-forwarded-proto",
        "via",
        "x-forwarded-host",
    ];
    let mut headers = HeaderMap::new();
    for (n, line) in bytes.split(|b| *b == b'\n').take(24).enumerate() {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HeaderName::from_static(names[n % names.len()]), value);
        }
    }
    let proxies = [
        "10.0.0.0/8".parse().expect("a network"),
        "fd00::/8".parse().expect("a network"),
    ];
    for peer in ["10.1.2.3", "192.0.2.7", "127.0.0.1", "fd00::1"] {
        let peer: IpAddr = peer.parse().expect("an address");
        let conn = ConnInfo {
            id: 1,
            peer: SocketAddr::new(peer, 4711),
            local: SocketAddr::new(peer, 80),
            listener: "http",
            protocol: Protocol::Http1,
            tls: None,
        };
        let client = Client::of(&conn, &headers, &proxies);
        assert_eq!(client.peer, peer);
        if !client.proxied {
            assert_eq!(
                (client.address, client.https),
                (peer, false),
                "nobody may say who a stranger is"
            );
        }
        assert!(
            !client.direct_loopback
                || headers.is_empty()
                || headers
                    .keys()
                    .all(|k| k == "x-forwarded-proto" || k == "x-forwarded-host")
        );
    }
}

/// Reads `bytes` as W3C trace context: `traceparent`, a line end, `tracestate`. What is accepted is passed on
/// in a form that is accepted.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_trace(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |b| *b == b'\n');
    let (parent, state) = (lines.next().unwrap_or_default(), lines.next());
    let Some(context) = TraceContext::extract([parent].into_iter(), state.into_iter()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    context.inject(&mut headers);
    let written = |name: &str| {
        headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect::<Vec<_>>()
    };
    let again = TraceContext::extract(
        written("traceparent").into_iter(),
        written("tracestate").into_iter(),
    );
    let again = again.expect("what we write is what we accept");
    assert_eq!(
        (again.trace_id, again.span_id, again.sampled),
        (context.trace_id, context.span_id, context.sampled)
    );
}

/// Follows `bytes` as WebSocket frames; how they arrive must not matter.
///
/// # Panics
/// When it does: that is the finding.
pub fn fuzz_frames(bytes: &[u8]) {
    crate::upstream::fuzz_frames(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes out of scraps that mean something to a parser, and some that do not.
    fn scraps(of: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let scrap = prop_oneof![
            8 => prop::sample::select(of).prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..4),
        ];
        prop::collection::vec(scrap, 0..24).prop_map(|parts| parts.concat())
    }

    const PATHS: &[&str] = &[
        "/",
        "//",
        "/.",
        "/..",
        "a",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "%00",
        ";x",
        "%c0%af",
        "%e4%b8%ad",
        "%",
        "%4",
        "%41",
        "\\",
        "~",
        "%252e",
        "%25",
        "..;",
        "é",
        " ",
        "api",
        "%c3%28",
        ".",
        "...",
    ];
    const CACHES: &[&str] = &[
        "max-age",
        "s-maxage",
        "=",
        "10",
        "\"10\"",
        "-1",
        "99999999999999999999",
        ",",
        " ",
        "no-cache",
        "private",
        "=\"set-cookie, x\"",
        "\"",
        "\\",
        "public",
        "no-store",
        "stale-while-revalidate=5",
        "\n",
        ";",
        "must-revalidate",
        "MAX-AGE=1",
        "1.5",
        "Sun, 06 Nov 1994 08:49:37 GMT",
    ];
    const RANGES: &[&str] = &[
        "bytes=",
        "0",
        "-",
        "5",
        "99999999999999999999",
        ",",
        " ",
        "items=",
        "1-2",
        "=",
        "Bytes=",
    ];
    const HOPS: &[&str] = &[
        "10.0.0.1",
        "192.0.2.1",
        ", ",
        "\n",
        "[fd00::1]:80",
        "::ffff:10.0.0.1",
        "unknown",
        "127.0.0.1",
        ":80",
        "[",
        "]",
        "for=",
        "https",
        "%",
        " ",
    ];
    const TRACES: &[&str] = &[
        "00-",
        "0af7651916cd43dd8448eb211c80319c",
        "-",
        "b7ad6b7169203331",
        "01",
        "\n",
        "a=1",
        ",",
        "cc-",
        "ff-",
        "rojo=00f067aa0ba902b7",
        "=",
        "@",
        "0",
    ];
    const DOCS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"path\"",
        "\"exact\"",
        "\"prefix\"",
        "\"pattern\"",
        "\"/a/{b}\"",
        "\"/\"",
        "\"target\"",
        "\"fixed\"",
        "{\"path\":{\"pattern\":\"/{x}\"},\"target\":{\"fixed\":{\"status\":200}}}",
        "\"status\"",
        "200",
        "\"hosts\"",
        "\"*.a\"",
        "null",
        "true",
        "\"service\"",
        "\"name\"",
        "\"methods\"",
        "\"rewrite\"",
        "1e999",
        "\"\\u0000\"",
    ];

    proptest! {
        #[test]
        fn any_path(bytes in scraps(PATHS)) {
            fuzz_path(&bytes);
            fuzz_path(&[b"/", bytes.as_slice()].concat());
        }

        #[test]
        fn any_cache_control(bytes in scraps(CACHES)) {
            fuzz_cache_control(&bytes);
        }

        #[test]
        fn any_range(bytes in scraps(RANGES), length in 0_usize..20) {
            fuzz_range(&bytes, length);
        }

        #[test]
        fn any_forwarding(bytes in scraps(HOPS)) {
            fuzz_forwarded(&bytes);
        }

        #[test]
        fn any_trace(bytes in scraps(TRACES)) {
            fuzz_trace(&bytes);
        }

        #[test]
        fn any_document(bytes in scraps(DOCS)) {
            fuzz_document(&bytes);
        }

        #[test]
        fn any_route(method in "[A-Z]{0,4}", path in "/[a-z{}*/%.]{0,12}", host in "[a-z.*]{0,8}", status in 0_u16..1000, more in any::<bool>()) {
            let (kind, rewrite) = if more { ("pattern", "/{a}/{b}") } else { ("prefix", "/") };
            let doc = serde_json::json!({
                "hosts": [host], "methods": [method], "path": { kind: path }, "rewrite": { "pattern": rewrite },
                "target": { "fixed": { "status": status, "body": path } },
            });
            fuzz_document(doc.to_string().as_bytes());
        }
    }
}
