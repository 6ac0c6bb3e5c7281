//! Types and rules of identity; no I/O.

pub(crate) mod api_key;
pub(crate) mod batch;
pub(crate) mod contact;
pub(crate) mod device;
pub(crate) mod factor;
pub(crate) mod fingerprint;
pub(crate) mod identity;
pub(crate) mod invitation;
pub(crate) mod ip_rule;
pub(crate) mod kept;
pub(crate) mod lock;
pub(crate) mod login;
pub(crate) mod otp;
pub(crate) mod personal;
pub(crate) mod phone;
pub(crate) mod profile;
pub(crate) mod role;
pub(crate) mod rotation;
pub(crate) mod session;
pub(crate) mod sms;
pub(crate) mod tenant;
pub(crate) mod user;
