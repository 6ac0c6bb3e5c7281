//! Identity's settings, by the part that reads them.

pub(crate) mod token;

use std::sync::LazyLock;

use portico_contract::settings::Declaration;

/// All of them.
pub(crate) fn declarations() -> &'static [Declaration] {
    static ALL: LazyLock<Vec<Declaration>> = LazyLock::new(|| [token::ALL].concat());
    &ALL
}
