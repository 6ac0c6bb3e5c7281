//! The listening side: workers, connections, HTTP/1.1 and HTTP/2, TLS, limits, draining.

mod accept;
mod authority;
pub(crate) mod buffers;
mod conn_h1;
mod conn_h2;
mod control;
mod date;
mod drain;
mod executor;
mod expiry;
pub(crate) mod h1_body;
mod h1_state;
mod h1_write;
mod handler;
mod in_process;
pub(crate) mod io;
mod limits;
mod listen;
pub(crate) mod outbox;
mod pace;
mod problem;
mod rewind;
mod server;
mod stats;
mod streams;
pub(crate) mod timers;
mod tls;
mod worker;

pub use control::{Control, Cut};
pub(crate) use executor::LocalExecutor;
pub use handler::{
    ConnInfo, End, Handler, Outcome, Protocol, Stream, StreamKeys, TlsInfo, UpgradeTo,
};
pub use in_process::{Panicked, call};
pub use limits::ServeLimits;
pub use listen::{Bound, Listener, bind};
pub use server::{Options, Server};
pub use stats::{Counter, ServeTotals, WorkerStats};
pub use tls::{CertFiles, CertSource, CertStore};
pub use worker::Worker;

#[cfg(test)]
mod tests;
