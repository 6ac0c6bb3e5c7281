//! The whole of identity on both databases, with a clock that only moves when told.

mod api_keys;
mod bulk;
mod device_news;
mod devices;
mod edge;
mod factors;
mod invitations;
mod keys;
mod logins;
mod mail;
mod passwords;
mod refreshes;
mod register;
mod replicas;
pub(crate) mod rig;
mod roles;
mod rpc;
mod security;
mod sms;
mod sms_limits;
mod step_up;
mod tenants;
mod users;
