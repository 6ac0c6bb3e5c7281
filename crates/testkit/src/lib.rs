//! The whole house in a test: real services, real listeners on free ports, ready-made callers.
//!
//! A test starts a [`TestApp`], speaks to it over HTTP as a client would, and drops it. Nothing is
//! shared between tests: each has its own data directory and its own database.

mod app;
mod caller;
mod keys;
mod plugin;

pub use app::{TestApp, TestOptions};
pub use caller::{Answer, Caller};
pub use keys::TestKeys;
pub use plugin::TestPlugin;
