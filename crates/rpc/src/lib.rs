//! gRPC conventions: one chain before every method, errors both ways without loss, health and reflection,
//! a listener that drains, and a client that keeps few connections.
//!
//! A service declares its methods in [`RpcRoutes`], each with who may call it; the host serves all of them
//! on one listener. A handler finds its [`Call`] in the request and answers errors with [`Call::fail`].

mod call;
mod chain;
mod client;
mod hosts;
mod identify;
mod meter;
mod observed;
mod routes;
mod server;
mod status;
mod timeout;

pub use call::{Call, call};
pub use chain::ChainOptions;
pub use client::{Channels, ClientOptions, Targets, request};
pub use hosts::Hosts;
pub use meter::FAMILIES;
pub use routes::{Method, RpcRoutes, Undeclared};
pub use server::{RpcOptions, Running, Server};
pub use status::{RemoteFault, from_status, kind_of, to_code, to_status};

/// Largest message in both directions.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
