//! UUIDv7 identifiers (RFC 9562 §5.7), built from the injected clock and randomness, and the fixed ids of the house.

use uuid::Uuid;

use crate::clock::Clock;
use crate::random::Random;

/// Tenant `system`: rows that belong to the installation itself.
pub const TENANT_SYSTEM: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);
/// Tenant `default`: everything in an installation that never made another tenant.
pub const TENANT_DEFAULT: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0002);
/// Principal of the operator's token.
pub const PRINCIPAL_OPERATOR: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0011);
/// Principal of unauthenticated callers on the Consul-compatible loopback listener.
pub const PRINCIPAL_ANONYMOUS_LOCAL: Uuid =
    Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0012);
/// Principal of the platform's own background work.
pub const PRINCIPAL_SYSTEM: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0013);

/// A new UUIDv7 from the given clock and randomness.
#[must_use]
pub fn new_id(clock: &dyn Clock, random: &dyn Random) -> Uuid {
    let mut tail = [0; 10];
    random.fill(&mut tail);
    let ms = u64::try_from(clock.unix_ms()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(ms, &tail).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, from_unix_ms};
    use crate::random::SeededRandom;

    #[test]
    fn ids_are_version_7_and_carry_the_clock() {
        let clock = ManualClock::at(from_unix_ms(1_700_000_000_123));
        let id = new_id(&clock, &SeededRandom::new(1));
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.as_u128() >> 80, 1_700_000_000_123);
        assert_eq!(
            TENANT_DEFAULT.to_string(),
            "00000000-0000-7000-8000-000000000002"
        );
    }
}
