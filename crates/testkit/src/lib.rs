//! The whole house in a test: real services, real listeners on free ports, ready-made callers.
//!
//! A test starts a [`TestApp`], speaks to it over HTTP as a client would, and drops it. Nothing is
//! shared between tests: each has its own data directory and its own database.

mod app;
mod audit;
mod caller;
mod clock;
mod keys;
mod people;
mod plugin;
mod smtp;

pub use app::{TestApp, TestOptions};
pub use audit::{Records, Written};
pub use caller::{Answer, Caller};
pub use clock::JumpingClock;
pub use keys::{AUDIENCE, ISSUER, TestKeys};
pub use people::{PASSWORD, Person, totp};
pub use plugin::TestPlugin;
pub use smtp::{Received, SmtpServer};
