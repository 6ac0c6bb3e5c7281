//! HTTP/1.1 framing (RFC 9112) without I/O: strict parsing of heads, bodies in pieces, serialising.
//!
//! Written for an intermediary: whatever two parsers could read in two ways is an error here, what
//! belongs to one hop is taken out while parsing, and incoming framing is never written out again.

mod body;
mod chunked;
mod encode;
mod error;
mod fields;
mod fuzz;
mod host;
mod limits;
mod request;
mod response;
mod scan;
#[cfg(test)]
mod tests;
mod trailers;

pub use body::{BodyDecoder, Decoded};
pub use chunked::ChunkedDecoder;
pub use encode::{
    CHUNK_PREFIX_MAX, CONTINUE, Connection, LAST_CHUNK, Overflow, RequestLine, ResponseOptions,
    chunk_prefix, write_request, write_response, write_trailers,
};
pub use error::Error;
pub use fuzz::{fuzz_body, fuzz_request, fuzz_response};
pub use host::is_valid_host;
pub use limits::Limits;
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use scan::HeadScan;
pub use trailers::{is_forbidden_trailer, parse_trailers};

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body at all.
    None,
    /// Exactly so many bytes.
    Length(u64),
    Chunked,
    /// Until the connection is closed; answers only.
    UntilClose,
}
