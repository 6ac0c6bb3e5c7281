//! The values that the format's description gives (P§14), so that any other program gets the same.

use serde_json::json;
use uuid::Uuid;

use crate::domain::chain::{Head, genesis};
use crate::domain::jcs;
use crate::domain::record::{Public, canonical, private_hash, record_hash};

const FIRST: &str = r#"{"action":"system.initialised","actor":{"id":"system","kind":"system"},"at":"2026-01-02T03:04:05.000006Z","error_code":null,"id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6071","outcome":"success","private_hash":"329eadc52addb7f84b3acfb9416ed6a38a9664a88c5a940f035c89d13f40e0c2","request_id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6073","target":{"id":"portico","type":"system"},"tenant_id":null,"trace_id":null,"v":1}"#;
const SECOND: &str = r#"{"action":"identity.user.disabled","actor":{"aal":2,"id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6074","kind":"user","sid":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6075","tenant_id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6000"},"at":"2026-01-02T03:05:00.120000Z","error_code":null,"id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6078","outcome":"success","private_hash":"5de59059adb7e1e403e88dcf757d5de20415b0b1d60b7e98b628547c28cf7543","request_id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6077","target":{"id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6076","type":"user"},"tenant_id":"0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6099","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","v":1}"#;

#[test]
fn the_chain_of_the_description() {
    let installation = Uuid::parse_str("0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6070").unwrap();
    assert_eq!(
        hex::encode(genesis(installation)),
        "a356daead87de1139519323ea28dedb48c6d5ec802b1657221ab1316bc888db7"
    );
    let private = jcs::text(&json!({
        "user_agent": null, "actor_name": null, "changes": [], "ip": null, "reason": null, "target_name": null
    }));
    assert_eq!(
        hex::encode(private_hash(&[0; 16], &private)),
        "329eadc52addb7f84b3acfb9416ed6a38a9664a88c5a940f035c89d13f40e0c2"
    );
    let first = record_hash(FIRST);
    assert_eq!(
        hex::encode(first),
        "c75d239c9d05e2b8d779035143b2c4b5faaf96bfa813d98199c8d435e576384a"
    );
    let one = Head::genesis(installation).next(&first);
    assert_eq!(
        hex::encode(one.link),
        "8f4c8c47db4bc374389f0e823943ac8d79740f41f13c72b798acaee865c76fe1"
    );
    let private = jcs::text(&json!({
        "actor_name": "root", "target_name": "小明", "ip": "203.0.113.7", "reason": "spam",
        "user_agent": "Mozilla/5.0",
        "changes": [{ "path": "/status", "before": "active", "after": "disabled" }]
    }));
    let salt: Vec<u8> = (0..16).collect();
    assert_eq!(
        hex::encode(private_hash(&salt, &private)),
        "5de59059adb7e1e403e88dcf757d5de20415b0b1d60b7e98b628547c28cf7543"
    );
    let second = record_hash(SECOND);
    assert_eq!(
        hex::encode(second),
        "012621248736ca9868c3220df3ad017b5d8d33ee8ec1ba80c8a68db02d4bcb3c"
    );
    assert_eq!(
        hex::encode(one.next(&second).link),
        "9e30a4e88651fd8178259107eebaafe71d74119831393ddfe1354dfd970132cc"
    );
}

/// What we write has the form of the description: read and written again it is the same text.
#[test]
fn public_parts_are_canonical_as_they_are_written() {
    for text in [FIRST, SECOND] {
        let public: Public<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(canonical(&public), text);
        assert_eq!(jcs::text(&serde_json::from_str(text).unwrap()), text);
    }
}
