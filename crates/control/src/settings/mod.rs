//! Control's settings, by the part that reads them.

use std::sync::LazyLock;

use portico_contract::settings::{Declaration, SettingFault, Settings};
use uuid::Uuid;

use crate::backups::settings as backups;

/// All of them.
pub(crate) fn declarations() -> &'static [Declaration] {
    static ALL: LazyLock<Vec<Declaration>> =
        LazyLock::new(|| [portico_jobs::settings::ALL, backups::ALL].concat());
    &ALL
}

/// What is wrong with them together: expressions that are none, a zone that is not on the map.
pub(crate) fn check(settings: &Settings, _tenant: Uuid) -> Vec<SettingFault> {
    let schedules = [
        &portico_jobs::settings::SWEEP_SCHEDULE,
        &backups::SCHEDULE,
        &backups::VERIFY_SCHEDULE,
    ];
    portico_jobs::check_schedules(settings, &schedules)
}
