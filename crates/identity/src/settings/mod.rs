//! Identity's settings, by the part that reads them.

pub(crate) mod api_keys;
pub(crate) mod device;
pub(crate) mod edge;
pub(crate) mod limit;
pub(crate) mod mail;
pub(crate) mod mfa;
pub(crate) mod password;
pub(crate) mod sms;
pub(crate) mod token;

use std::sync::LazyLock;

use portico_contract::settings::Declaration;

/// All of them.
pub(crate) fn declarations() -> &'static [Declaration] {
    static ALL: LazyLock<Vec<Declaration>> = LazyLock::new(|| {
        [
            api_keys::ALL,
            mfa::ALL,
            edge::ALL,
            mail::ALL,
            sms::ALL,
            token::ALL,
            device::ALL,
            limit::ALL,
            password::ALL,
        ]
        .concat()
    });
    &ALL
}
