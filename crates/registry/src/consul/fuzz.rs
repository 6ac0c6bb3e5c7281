//! Fuzz targets: plain functions over any bytes, run by property tests and by a fuzzer if one is at hand.

use serde_json::{Value, json};

use super::filter::{AGENT_SERVICES, CHECKS, Filter, HEALTH, NODES, SERVICE_NODES};
use super::input::{CheckInput, ServiceInput};
use super::request::{Params, read_path};
use super::{decode, duration, sessions, txn};
use crate::domain::registration;

/// Reads `text` as a filter of every list; what is accepted can be evaluated.
///
/// # Panics
/// When it cannot: that is the finding.
pub fn fuzz_filter(text: &str) {
    let item = json!({
        "Node": "n", "ServiceName": "web", "ServicePort": 80, "ServiceTags": ["a", "b"], "ServiceMeta": { "k": "v" },
        "Service": { "Service": "web", "Port": 80, "Tags": ["a"], "Meta": { "k": "v" } }, "Checks": [{ "Status": "passing" }],
        "Port": 80, "Tags": null, "Meta": {}, "TaggedAddresses": { "lan": "::1" },
    });
    for kind in [&SERVICE_NODES, &HEALTH, &CHECKS, &NODES, &AGENT_SERVICES] {
        if let Ok(filter) = Filter::new(text, kind) {
            let _kept = filter.keeps(&item) || filter.keeps(&Value::Null);
        }
    }
}

/// Reads `bytes` as a registration of our own API.
///
/// # Panics
/// When it is refused without a reason: that is the finding.
pub fn fuzz_registration(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let defaults = registration::Defaults {
        heartbeat_s: 30,
        check_interval_ms: 10_000,
        check_timeout_ms: 2_000,
        fall: 2,
        rise: 2,
    };
    match registration::parse(&body, defaults) {
        Ok(read) => {
            assert!(!read.name.is_empty() && read.weight <= 1000);
            assert!(read.tags.len() <= 64 && read.metadata.len() <= 64);
        }
        Err(faults) => assert!(!faults.is_empty(), "refused without a reason"),
    }
}

/// Reads `bytes` as each body that the Consul-compatible API takes.
///
/// # Panics
/// Never, or that is the finding.
pub fn fuzz_consul_body(bytes: &[u8]) {
    sessions::fuzz(bytes);
    let Ok(body) = decode::parse(bytes) else {
        return;
    };
    for name in ["Name", "Service"] {
        for strict in [true, false] {
            if let Ok(service) = ServiceInput::read(&body, name, strict)
                && service.check().is_ok()
            {
                let _registration = service.registration("node", Some("127.0.0.1"), None);
                let _checks = service.new_checks(60_000);
            }
            if let Ok(check) = CheckInput::read(&body, strict) {
                let _made = (check.initial(), check.spec(60_000));
            }
        }
    }
    for op in body.as_array().into_iter().flatten() {
        txn::fuzz(op);
    }
}

/// Reads `text` as a path with a query, and as a duration. What was read and is written again is read as the
/// same.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_consul_query(text: &str) {
    let params = Params::parse(text);
    let again = Params::parse(&params.encode());
    for name in [
        "index",
        "wait",
        "filter",
        "dc",
        "recurse",
        "separator",
        "cas",
    ] {
        assert_eq!(params.get(name), again.get(name), "{name}");
        assert_eq!(params.all(name).count(), again.all(name).count(), "{name}");
    }
    let _wait = duration::parse_wait(text);
    if let Ok(ns) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::format(ns)), Ok(ns), "{text}");
    }
    if let Ok(uri) = text.parse::<http::Uri>() {
        let _path = read_path(&uri);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(of: &'static [&'static str]) -> impl Strategy<Value = String> {
        let word = prop_oneof![
            8 => prop::sample::select(of).prop_map(str::to_owned),
            1 => "\\PC{1,3}",
        ];
        prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
    }

    /// JSON with the members that are looked for and values of every kind.
    fn json(members: &'static [&'static str]) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::sample::select(
                &[
                    "",
                    "10s",
                    "-1h",
                    "a",
                    "127.0.0.1",
                    "::1",
                    "http://127.0.0.1:1/",
                    "passing",
                    "set",
                    "aGVsbG8=",
                    "=",
                    "é"
                ][..]
            )
            .prop_map(Value::from),
            prop::sample::select(&[0_i64, 1, 80, 65_535, 65_536, -1][..]).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(members), inner), 0..6).prop_map(
                    |pairs| {
                        Value::from(
                            pairs
                                .into_iter()
                                .map(|(k, v)| (k.to_owned(), v))
                                .collect::<serde_json::Map<_, _>>(),
                        )
                    }
                ),
            ]
        })
    }

    const FILTERS: &[&str] = &[
        "ServicePort",
        "ServiceTags",
        "ServiceMeta.ver",
        "Node",
        "not ",
        " and ",
        " or ",
        "(",
        ")",
        "==",
        "!=",
        " in ",
        " contains ",
        " matches ",
        " is ",
        "empty",
        "\"x\"",
        "`y`",
        "80",
        "-1",
        "0.5",
        " ",
        "[\"k\"]",
        "\"",
        "`",
        "\\",
        ".",
        "[",
        "]",
        "ä",
        "\n",
        "Meta",
        "Checks.Status",
    ];
    const QUERIES: &[&str] = &[
        "index=",
        "&",
        "wait=",
        "10s",
        "1h5m",
        "-3ns",
        "1.5us",
        "%",
        "%2",
        "%20",
        "+",
        "filter=",
        "=",
        "?",
        "/v1/kv/",
        "//",
        "..",
        "9223372036854775807ns",
        "µs",
        "0",
    ];
    const CONSUL: &[&str] = &[
        "Name",
        "name",
        "Service",
        "ID",
        "CheckID",
        "Tags",
        "Address",
        "Port",
        "Meta",
        "Weights",
        "Passing",
        "Warning",
        "Check",
        "Checks",
        "TTL",
        "HTTP",
        "TCP",
        "GRPC",
        "Interval",
        "Timeout",
        "DeregisterCriticalServiceAfter",
        "Header",
        "Args",
        "Status",
        "TaggedAddresses",
        "lan",
        "Proxy",
        "Connect",
        "KV",
        "Verb",
        "Key",
        "Value",
        "Flags",
        "Index",
        "Session",
        "Node",
        "LockDelay",
        "Behavior",
        "NodeChecks",
        "ServiceChecks",
        "version",
        "base_path",
    ];
    const OURS: &[&str] = &[
        "name",
        "version",
        "host",
        "port",
        "base_path",
        "protocol",
        "instance_key",
        "id",
        "zone",
        "weight",
        "heartbeat_s",
        "tags",
        "metadata",
        "endpoints",
        "path",
        "method",
        "is_public",
        "required_roles",
        "rate_limit",
        "timeout_ms",
        "cache",
        "ttl_s",
        "health_check_url",
        "checks",
        "default_access",
        "forward_credentials",
        "identity_statement",
        "permissions",
        "settings_schema",
        "events",
        "openapi_url",
        "console",
        "tenant",
        "tls_pin",
        "node",
        "display_name",
    ];

    proptest! {
        #[test]
        fn any_filter(text in words(FILTERS)) {
            fuzz_filter(&text);
        }

        #[test]
        fn any_query(text in words(QUERIES)) {
            fuzz_consul_query(&text);
        }

        #[test]
        fn any_registration(body in json(OURS)) {
            fuzz_registration(body.to_string().as_bytes());
        }

        #[test]
        fn any_consul_body(body in json(CONSUL)) {
            fuzz_consul_body(body.to_string().as_bytes());
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            fuzz_registration(&bytes);
            fuzz_consul_body(&bytes);
        }
    }
}
