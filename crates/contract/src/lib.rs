//! The few small traits and types by which services meet. Nothing here names a database or a web framework.

pub mod address;
pub mod address_rules;
pub mod audit;
pub mod backup;
pub mod certificates;
pub mod credentials;
pub mod directory;
pub mod documents;
pub mod json_schema;
pub mod permissions;
pub mod personal;
pub mod sealed;
pub mod services;
pub mod settings;
pub mod settings_tree;
pub mod streams;
pub mod tenants;
pub mod tokens;
