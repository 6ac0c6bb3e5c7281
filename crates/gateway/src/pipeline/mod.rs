//! The way of a request: a fixed sequence of plain functions (GW-20).

pub mod cors;
pub mod settings;
pub mod signature;
pub mod transform;
