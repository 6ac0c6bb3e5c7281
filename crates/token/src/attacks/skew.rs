//! Clocks that differ: a token is good from its beginning, within what clocks may differ by, until its very end.

use proptest::prelude::*;

use super::{House, NOW_S, claims};
use crate::access::{AccessClaims, mint, verify};
use portico_contract::tokens::Denied;

/// What clocks of two machines may differ by.
const SKEW_S: i64 = 60;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The verifier's clock runs `off` seconds beside the signer's, however long the token lives.
    #[test]
    fn a_token_is_good_within_its_time_whatever_the_clock(
        life in 1_i64..=86_400,
        off in prop_oneof![-90_000_i64..=90_000, -62_i64..=62],
        near_end in any::<bool>(),
    ) {
        let house = House::new();
        let made = AccessClaims {
            issued_s: NOW_S,
            expires_s: NOW_S + life,
            auth_time_s: NOW_S,
            ..claims()
        };
        let token = mint(&house.key, &house.issuer, &made).unwrap();
        let now = NOW_S + off + if near_end { life } else { 0 };
        let found = verify(token.expose(), &house.issuer, |_| Ok(&house.public), now);
        if now >= NOW_S + life {
            prop_assert_eq!(found, Err(Denied("expired")));
        } else if now < NOW_S - SKEW_S {
            prop_assert_eq!(found, Err(Denied("issued_later")));
        } else {
            prop_assert_eq!(found, Ok(made));
        }
    }

    /// Two replicas whose clocks differ by less than that: what one has just made, the other takes.
    #[test]
    fn replicas_within_the_skew_believe_each_other(behind in 0..=SKEW_S, life in 120_i64..=86_400) {
        let house = House::new();
        let made = AccessClaims { expires_s: NOW_S + life, ..claims() };
        let token = mint(&house.key, &house.issuer, &made).unwrap();
        for now in [NOW_S - behind, NOW_S + behind.min(life - 1)] {
            let found = verify(token.expose(), &house.issuer, |_| Ok(&house.public), now);
            prop_assert_eq!(found.map(|c| c.session), Ok(made.session));
        }
    }
}
