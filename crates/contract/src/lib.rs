//! The few small traits and types by which services meet. Nothing here names a database or a web framework.

pub mod address;
pub mod address_rules;
pub mod audit;
pub mod credentials;
pub mod directory;
pub mod documents;
pub mod permissions;
pub mod personal;
pub mod services;
pub mod settings;
pub mod streams;
pub mod tenants;
pub mod tokens;
