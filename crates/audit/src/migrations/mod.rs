//! The audit's tables, one file a step.

mod m0001_audit;

use portico_db::Migrations;

pub(crate) fn all() -> Migrations {
    Migrations::new([m0001_audit::step()])
}
