//! Identity's tables, one step after the other.

mod m0001_identity;
mod m0002_personal;
mod messages;

use portico_db::Migrations;

/// All steps, oldest first.
pub(crate) fn all() -> Migrations {
    Migrations::new([m0001_identity::step(), m0002_personal::step()])
}
