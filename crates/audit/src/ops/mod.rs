//! The use-cases of the audit.

pub(crate) mod checkpoints;
pub(crate) mod export;
pub(crate) mod keys;
pub(crate) mod notes;
pub(crate) mod redact;
pub(crate) mod retain;
pub(crate) mod seal;
pub(crate) mod search;
pub(crate) mod verify;
pub(crate) mod write;
