//! The tables of settings, one step after the other.

mod m0001_settings;

use portico_db::Migrations;

/// All steps, oldest first.
pub(crate) fn all() -> Migrations {
    Migrations::new([m0001_settings::step()])
}
