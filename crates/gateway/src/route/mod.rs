//! Which service a request is for: paths, hosts, patterns, and the immutable table made of them.

pub mod build;
pub mod callers;
pub mod condition;
pub mod endpoints;
pub mod explain;
pub mod host;
pub mod house;
pub mod path;
pub mod pattern;
pub mod plan;
pub mod release;
pub mod service;
pub mod table;
