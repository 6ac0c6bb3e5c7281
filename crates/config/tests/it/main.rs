//! Configuration as a whole: golden messages, layers, generated texts, reload.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anything;
mod generated;
mod golden;
mod layers;
mod reload;
mod schema_check;
mod settings;
mod world;
