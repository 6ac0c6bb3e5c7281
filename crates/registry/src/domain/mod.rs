//! Types and rules of the registry; no I/O, no clock of its own.

pub(crate) mod check;
pub(crate) mod endpoint;
pub(crate) mod event;
pub(crate) mod fields;
pub(crate) mod instance;
pub(crate) mod life;
pub(crate) mod node;
pub(crate) mod registration;
pub(crate) mod rights;
pub(crate) mod service;
pub(crate) mod token;
