//! The platform's own tables, one file a step.

mod m0001_platform;

use crate::migrate::Migrations;

pub(crate) fn all() -> Migrations {
    Migrations::new([m0001_platform::step()])
}
