//! One line of the access log: as the data plane gives it, as it is written, and as it is read back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::json;
use crate::mask;
use crate::trace::TraceId;

/// Longest path that is written; a longer one is cut.
const MAX_PATH: usize = 2_048;
/// Longest user agent that is written (OB-33).
const MAX_AGENT: usize = 200;
/// Longest of any other text.
const MAX_TEXT: usize = 255;

/// What is known of a request when it is over. Empty texts are left out of the line.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// End of the request as Unix microseconds.
    pub at_us: i64,
    /// `X-Request-Id`.
    pub request_id: &'a str,
    /// The client, right of every trusted proxy.
    pub client: Option<IpAddr>,
    /// Method as received.
    pub method: &'a str,
    /// Host as received.
    pub host: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Query without `?`; written only when the options say so.
    pub query: &'a str,
    /// `http/1.1`, `h2`.
    pub protocol: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Service that answered.
    pub service: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its instance.
    pub instance: &'a str,
    /// Status that the client got; 0 when it left before.
    pub status: u16,
    /// Dotted code of our own error answers.
    pub code: &'a str,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
    /// Of that, until the instance's first byte.
    pub upstream: Option<Duration>,
    /// Attempts at instances; 0 when none was asked.
    pub attempts: u8,
    /// `L1 L2 STALE MISS BYPASS`.
    pub cache: &'a str,
    /// Kind of the principal.
    pub principal: &'a str,
    /// Its id.
    pub principal_id: &'a str,
    /// The tenant.
    pub tenant_id: &'a str,
    /// `User-Agent`.
    pub user_agent: &'a str,
    /// The trace, when there is one.
    pub trace_id: Option<TraceId>,
}

impl Default for AccessRecord<'_> {
    fn default() -> Self {
        Self {
            at_us: 0,
            request_id: "",
            client: None,
            method: "",
            host: "",
            path: "",
            query: "",
            protocol: "",
            route: "",
            service: "",
            version: "",
            instance: "",
            status: 0,
            code: "",
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream: None,
            attempts: 0,
            cache: "",
            principal: "",
            principal_id: "",
            tenant_id: "",
            user_agent: "",
            trace_id: None,
        }
    }
}

impl AccessRecord<'_> {
    /// True when the answer was a fault of ours or the client was left without one.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.status >= 500
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, stamp: &mut json::Stamp, how: &Style) {
        out.extend_from_slice(b"{\"ts\":\"");
        stamp.write(out, self.at_us);
        out.extend_from_slice(b"\",\"kind\":\"access\"");
        if how.weight > 1 {
            number(out, b",\"sampled\":", u64::from(how.weight));
        }
        text(out, b",\"replica\":\"", &how.replica, MAX_TEXT);
        text(out, b",\"request_id\":\"", self.request_id, MAX_TEXT);
        if let Some(client) = self.client {
            let client = if how.mask_address {
                network(client)
            } else {
                client
            };
            out.extend_from_slice(b",\"client\":\"");
            json::address(out, client);
            out.push(b'"');
        }
        text(out, b",\"method\":\"", self.method, MAX_TEXT);
        masked(out, b",\"host\":\"", self.host, MAX_TEXT);
        masked(out, b",\"path\":\"", self.path, MAX_PATH);
        if how.with_query {
            self.write_query(out);
        }
        text(out, b",\"protocol\":\"", self.protocol, MAX_TEXT);
        text(out, b",\"route\":\"", self.route, MAX_TEXT);
        text(out, b",\"service\":\"", self.service, MAX_TEXT);
        text(out, b",\"version\":\"", self.version, MAX_TEXT);
        text(out, b",\"instance\":\"", self.instance, MAX_TEXT);
        number(out, b",\"status\":", u64::from(self.status));
        text(out, b",\"code\":\"", self.code, MAX_TEXT);
        number(out, b",\"bytes_in\":", self.bytes_in);
        number(out, b",\"bytes_out\":", self.bytes_out);
        number(out, b",\"duration_us\":", micros(self.duration));
        if let Some(upstream) = self.upstream {
            number(out, b",\"upstream_us\":", micros(upstream));
        }
        number(out, b",\"attempts\":", u64::from(self.attempts));
        text(out, b",\"cache\":\"", self.cache, MAX_TEXT);
        text(out, b",\"principal\":\"", self.principal, MAX_TEXT);
        text(out, b",\"principal_id\":\"", self.principal_id, MAX_TEXT);
        text(out, b",\"tenant_id\":\"", self.tenant_id, MAX_TEXT);
        masked(out, b",\"user_agent\":\"", self.user_agent, MAX_AGENT);
        if let Some(trace_id) = self.trace_id {
            out.extend_from_slice(b",\"trace_id\":\"");
            out.extend_from_slice(&trace_id.hex());
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_query(&self, out: &mut Vec<u8>) {
        if self.query.is_empty() {
            return;
        }
        let query = mask::text(self.query);
        text(out, b",\"query\":\"", &query, MAX_PATH);
    }
}

/// How a line is written.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) replica: String,
    pub(super) mask_address: bool,
    pub(super) with_query: bool,
    /// This line stands for so many requests.
    pub(super) weight: u32,
}

/// A record as it is read back from memory, for `/api/gateway/requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct AccessEntry {
    /// End of the request, RFC 3339 in UTC with microseconds.
    pub ts: String,
    /// This line stands for so many requests; 0 and 1 are one.
    #[serde(skip_serializing_if = "is_zero")]
    pub sampled: u32,
    /// The process that answered.
    pub replica: String,
    /// `X-Request-Id`.
    pub request_id: String,
    /// The client, cut to its network when addresses are masked.
    pub client: String,
    /// Method as received.
    pub method: String,
    /// Host as received.
    pub host: String,
    /// Path without query.
    pub path: String,
    /// Query, when it is written at all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// `http/1.1`, `h2`.
    pub protocol: String,
    /// Name of the route.
    pub route: String,
    /// Service that answered.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Its instance.
    pub instance: String,
    /// Status that the client got; 0 when it left before.
    pub status: u16,
    /// Dotted code of our own error answers.
    pub code: String,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Microseconds from the first byte of the request to the last of the answer.
    pub duration_us: u64,
    /// Of that, microseconds until the instance's first byte.
    pub upstream_us: Option<u64>,
    /// Attempts at instances.
    pub attempts: u8,
    /// `L1 L2 STALE MISS BYPASS`.
    pub cache: String,
    /// Kind of the principal.
    pub principal: String,
    /// Its id.
    pub principal_id: String,
    /// The tenant.
    pub tenant_id: String,
    /// `User-Agent`.
    pub user_agent: String,
    /// The trace, when there is one.
    pub trace_id: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn text(out: &mut Vec<u8>, name: &[u8], value: &str, most: usize) {
    if !value.is_empty() {
        // The name brings the opening quote: one copy less for each of twenty fields.
        out.extend_from_slice(name);
        json::escaped(out, cut(value, most));
        out.push(b'"');
    }
}

fn masked(out: &mut Vec<u8>, name: &[u8], value: &str, most: usize) {
    // Masked before it is cut, so that half a token cannot pass as a word.
    if value.len() <= most {
        text(out, name, &mask::text(value), most);
    } else {
        let wide = cut(value, most * 2);
        text(out, name, &mask::text(wide), most);
    }
}

fn number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    json::number(out, value);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn cut(value: &str, most: usize) -> &str {
    if value.len() <= most {
        return value;
    }
    &value[..value.floor_char_boundary(most)]
}

/// The network of an address: /24 of IPv4, /48 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}
