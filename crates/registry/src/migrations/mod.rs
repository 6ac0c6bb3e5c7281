//! The registry's tables, one step after the other.

mod m0001_registry;
mod m0002_consul;

use portico_db::Migrations;

/// All steps, oldest first.
pub(crate) fn all() -> Migrations {
    Migrations::new([m0001_registry::step(), m0002_consul::step()])
}
