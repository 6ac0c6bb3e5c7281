//! Commands about the running installation, over its API.

mod cron;
mod doctor;
mod jobs;

pub(crate) use cron::run as cron;
pub(crate) use doctor::run as doctor;
pub(crate) use jobs::run as jobs;

use anyhow::Result;
use serde_json::Value;

/// Prints an answer as JSON for programs.
fn print_json(value: &Value) -> Result<()> {
    crate::text::print(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}
