#![doc = include_str!("../README.md")]

mod apidocs;
pub mod balance;
pub mod body;
pub mod cache;
mod error;
mod figures;
mod http;
pub mod identify;
pub mod limit;
mod migrations;
pub mod objects;
pub mod pipeline;
mod purges;
pub mod route;
pub mod serve;
mod service;
mod surface;
pub mod upstream;

pub use apidocs::merge as openapi_of;
pub use service::{Gateway, declare_metrics, openapi};
