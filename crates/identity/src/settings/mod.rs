//! Identity's settings, by the part that reads them.

pub(crate) mod api_keys;
pub(crate) mod apple;
pub(crate) mod device;
pub(crate) mod edge;
pub(crate) mod erasure;
pub(crate) mod limit;
pub(crate) mod mail;
pub(crate) mod mfa;
pub(crate) mod password;
pub(crate) mod sms;
pub(crate) mod token;

use std::sync::LazyLock;

use portico_contract::settings::{Declaration, Key, SettingFault, Settings};
use uuid::Uuid;

/// All of them.
pub(crate) fn declarations() -> &'static [Declaration] {
    static ALL: LazyLock<Vec<Declaration>> = LazyLock::new(|| {
        [
            api_keys::ALL,
            apple::ALL,
            mfa::ALL,
            edge::ALL,
            erasure::ALL,
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

/// What the declarations cannot say one by one.
pub(crate) fn check(settings: &Settings, tenant: Uuid) -> Vec<SettingFault> {
    let mut faults = Vec::new();
    let mut ordered = |low: &Key<u32>, high: &Key<u32>| {
        let (low_value, high_value) = (settings.get(tenant, low), settings.get(tenant, high));
        if low_value > high_value {
            faults.push(SettingFault {
                key: low.declaration.key,
                message: format!(
                    "must not be above {}, which is {high_value}",
                    high.declaration.key
                ),
            });
        }
    };
    ordered(&token::REFRESH_IDLE_S, &token::REFRESH_ABSOLUTE_S);
    ordered(&token::ADMIN_IDLE_S, &token::ADMIN_ABSOLUTE_S);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_go_together() {
        let settings = Settings::defaults();
        assert_eq!(check(&settings, portico_base::id::TENANT_SYSTEM), []);
    }
}
