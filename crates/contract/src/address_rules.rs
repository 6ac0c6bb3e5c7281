//! Which clients' addresses are answered at all (ID-162, ID-163): a snapshot in memory, asked by the door.

use std::net::IpAddr;

/// An address is refused: 403 `identity.address_blocked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressBlocked {
    /// Unix seconds at which the rule ends; absent for one without an end.
    pub until_s: Option<i64>,
}

impl AddressBlocked {
    /// The code that clients get.
    pub const CODE: &'static str = "identity.address_blocked";
}

/// Address rules of the installation. Provided by identity; answered from memory and never waiting.
///
/// The longest network that holds an address decides; of two equal ones the denial. Loopback is never
/// refused, so that the operator of the machine can always repair a wrong rule.
pub trait AddressRules: Send + Sync {
    /// Whether requests of a client are answered. Asked for each request, before anything else.
    ///
    /// # Errors
    /// Says until when they are not.
    fn check(&self, address: IpAddr, now_s: i64) -> Result<(), AddressBlocked>;

    /// Whether a client may reach what asks for a permission. As soon as there is one allowed network,
    /// only allowed networks may.
    ///
    /// # Errors
    /// Says until when it may not.
    fn check_admin(&self, address: IpAddr, now_s: i64) -> Result<(), AddressBlocked>;
}
