//! The tables of control, one file a step. Jobs and schedules are `portico-jobs`'.

use portico_db::Migrations;

/// The steps in their order.
pub(crate) fn all() -> Migrations {
    Migrations::new([crate::backups::step()])
}
