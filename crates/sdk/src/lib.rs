//! What a Portico plug-in in Rust needs: registration, heartbeats, verified identity, calls, drain.
//!
//! The protocol is plain HTTP with JSON and stands on one page, `docs/plugins.md`; this crate speaks
//! it and nothing else of Portico. It does not choose a web framework: requests are checked by method,
//! URI and headers of the `http` crate.
//!
//! ```no_run
//! # async fn serve(_: portico_sdk::Plugin, _: tokio::net::TcpListener) {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use portico_sdk::{Options, Plugin, ServiceConfig};
//!
//! let config = ServiceConfig { openapi_url: Some("/openapi.json".into()), ..ServiceConfig::new("notes", "1.0.0") };
//! let plugin = Plugin::new(config, Options::from_env()?)?;
//! let listener = tokio::net::TcpListener::bind(plugin.bind_address()).await?;
//! plugin.start(listener.local_addr()?.port());
//! // Each request goes through `plugin.check(method, uri, headers)`; the server stops after `plugin.stopped()`.
//! serve(plugin, listener).await;
//! # Ok(())
//! # }
//! ```
//!
//! Environment (read by [`Options::from_env`] alone): `PORTICO_URL`, `PORTICO_TOKEN`, `PORT`, and below
//! `portico run` also `PORTICO_SERVICE` and `PORTICO_INSTANCE_SECRET`: then the parent registers and
//! sends heartbeats, and a [`Plugin`] only verifies and drains.

mod call;
mod client;
mod config;
mod identity;
#[cfg(feature = "jwks")]
mod jwks;
mod options;
mod plugin;
mod problem;
mod replay;
mod secret;
mod signature;
mod verify;

pub use call::{Answer, Call, CallError};
pub use config::{CacheHint, DefaultAccess, Endpoint, RateLimit, ServiceConfig};
pub use identity::Identity;
#[cfg(feature = "jwks")]
pub use jwks::StatementError;
pub use options::{Options, OptionsError};
pub use plugin::{Checked, Plugin, StartError, State};
pub use problem::{Fault, Problem};
pub use secret::Secret;
pub use signature::{
    SIGNATURE_HEADER, TIMESTAMP_HEADER, Values, sign, signature_base, signed_headers,
};
pub use verify::{Refused, Verifier, WINDOW};
