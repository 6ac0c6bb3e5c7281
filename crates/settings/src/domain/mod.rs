//! What settings are: declarations, values with versions, differences, secrets.

pub(crate) mod catalogue;
pub(crate) mod conflict;
pub(crate) mod declared;
pub(crate) mod diff;
pub(crate) mod plugin;
pub(crate) mod secret;
pub(crate) mod state;
