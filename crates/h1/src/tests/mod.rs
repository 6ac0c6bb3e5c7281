//! Tests of the codec by bytes and by properties.

mod bodies;
mod encoding;
mod properties;
mod requests;
mod responses;

use bytes::Bytes;

use crate::{Error, HeadScan, Limits, RequestHead, parse_request};

/// Scans and parses one request head.
fn request(bytes: impl AsRef<[u8]>) -> Result<RequestHead, Error> {
    let bytes = bytes.as_ref();
    let found = HeadScan::default().advance(bytes, &Limits::default())?;
    let (start, end) = found.expect("the head is whole");
    parse_request(&Bytes::copy_from_slice(&bytes[start..end]))
}

/// A request with `lines` between a valid `Host` and the empty line.
fn request_with(lines: &str) -> Result<RequestHead, Error> {
    request(format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
}
