//! Types and rules of identity; no I/O.

pub(crate) mod contact;
pub(crate) mod device;
pub(crate) mod login;
pub(crate) mod role;
pub(crate) mod session;
pub(crate) mod tenant;
pub(crate) mod user;
