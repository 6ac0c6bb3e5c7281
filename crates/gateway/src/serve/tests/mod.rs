//! Tests of the data plane by bytes: a real listener, real sockets, back ends that do as they are told.

mod backend;
mod client;
mod connections;
mod draining;
mod framing;
mod http2;
mod in_process;
mod relaying;
mod rig;
mod slowness;
mod tls;
mod upgrades;
mod upstreams;
