//! Commands that look at a running Portico and change what it does, over its own API.

mod apply;
mod breakers;
mod cache;
mod changes;
mod explain;
mod instances;
mod kv;
mod kv_text;
mod release;
mod routes;
mod services;

pub(crate) use breakers::run as breakers;
pub(crate) use cache::run as cache;
pub(crate) use instances::{address, run as instances};
pub(crate) use kv::run as kv;
pub(crate) use release::run as release;
pub(crate) use routes::run as routes;
pub(crate) use services::{health as health_of, run as services};

/// Prints an answer as JSON for programs.
fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    crate::text::print(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}
