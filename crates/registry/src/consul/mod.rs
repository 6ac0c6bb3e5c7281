//! The Consul-compatible API on its own listener.

use portico_db::Step;

/// Tables of the key-value store and of sessions.
pub(crate) fn migrations() -> Vec<Step> {
    Vec::new()
}
