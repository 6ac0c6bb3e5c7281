#![doc = include_str!("../README.md")]

mod apidocs;
pub mod balance;
pub mod body;
mod breakers;
pub mod cache;
mod caching;
mod calls;
mod entering;
mod error;
mod explaining;
mod figures;
#[doc(hidden)]
pub mod fuzz;
mod http;
pub mod identify;
pub mod limit;
mod listening;
mod live;
mod migrations;
pub mod objects;
mod operating;
mod permissions;
pub mod pipeline;
mod purges;
pub mod release;
pub mod route;
pub mod serve;
mod service;
mod surface;
mod topology;
pub mod upstream;

pub use apidocs::merge as openapi_of;
pub use service::{Gateway, declare_metrics, openapi};
