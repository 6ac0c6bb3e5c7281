//! Temporary: compiles the data plane of the gateway alone.
pub mod body;
pub mod serve;
pub mod upstream;
