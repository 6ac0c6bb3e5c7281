//! Limits of the listening side; the defaults are those of the specification.

use std::time::Duration;

/// What a client may take of us (GW-6).
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections of the process; beyond it 503, from 5 % above it nobody is accepted.
    pub connections: usize,
    /// Connections of one address; loopback is exempt. Beyond it 429.
    pub connections_per_address: usize,
    /// Line, header block and field count of a request.
    pub head: portico_h1::Limits,
    /// From the first byte of a head to its last; also the TLS handshake.
    pub header_time: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// Requests on one HTTP/1.1 connection.
    pub requests: u32,
    /// A request's body must bring `body_bytes` in each `body_time`.
    pub body_bytes: u64,
    pub body_time: Duration,
    /// A client must take something of an answer in this time.
    pub write_stall: Duration,
    /// Bytes of an unread request body that are read and thrown away to keep the connection.
    pub drain_bytes: u64,
    pub drain_time: Duration,
    /// A tunnel without a byte either way.
    pub tunnel_idle: Duration,
    /// HTTP/2: streams of a connection at the same time.
    pub h2_streams: u32,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 200,
            head: portico_h1::Limits::default(),
            header_time: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            requests: 10_000,
            body_bytes: 1024,
            body_time: Duration::from_secs(10),
            write_stall: Duration::from_secs(30),
            drain_bytes: 256 * 1024,
            drain_time: Duration::from_secs(1),
            tunnel_idle: Duration::from_secs(75),
            h2_streams: 128,
        }
    }
}
