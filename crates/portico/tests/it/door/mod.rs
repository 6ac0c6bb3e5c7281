//! The door: where requests go, who may pass, what is added and taken away, and every protocol that goes through.

mod cache;
mod cache_safety;
mod cors;
pub(crate) mod entering;
mod grpc;
mod hygiene;
mod identity;
mod limits;
mod objects;
mod routing;
mod streams;
