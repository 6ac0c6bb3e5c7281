//! Fuzz targets: plain functions over any bytes, run by property tests and by a fuzzer if one is at hand.
//!
//! They must never panic, and whatever is accepted must survive being written and read again.

use bytes::Bytes;
use http::Method;

use crate::{
    BodyDecoder, Connection, Framing, HeadScan, Limits, RequestHead, RequestLine, ResponseOptions,
    parse_request, parse_response, write_request, write_response,
};

/// Reads `bytes` as a request head; an accepted one is written out and must be read as the same.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_request(bytes: &[u8]) -> bool {
    let Some(head) = whole_head(bytes) else {
        return false;
    };
    let Ok(first) = parse_request(&head) else {
        return false;
    };
    let mut room = vec![0; 128 * 1024];
    let line = RequestLine {
        method: &first.method,
        uri: &first.uri,
        framing: first.framing,
        upgrade: first.upgrade.as_ref(),
    };
    let n = write_request(&mut room, &line, &first.headers).expect("a head within the limits fits");
    if first.headers.contains_key("host") {
        let written = Bytes::copy_from_slice(&room[..n]);
        let second = parse_request(&written).expect("what we write is what we accept");
        assert!(
            same(&first, &second),
            "a written head is read as the same request"
        );
    }
    true
}

/// Reads `bytes` as an answer's head; as [`fuzz_request`].
///
/// # Panics
/// When an accepted head cannot be read again: that is the finding.
pub fn fuzz_response(bytes: &[u8]) -> bool {
    let Some(head) = whole_head(bytes) else {
        return false;
    };
    let Ok(first) = parse_response(&head, &Method::GET) else {
        return false;
    };
    let mut room = vec![0; 128 * 1024];
    let options = ResponseOptions {
        framing: first.framing,
        date: b"Thu, 01 Jan 1970 00:00:00 GMT",
        connection: if first.framing == Framing::UntilClose {
            Connection::Close
        } else {
            Connection::Keep
        },
        keep_length: first.status == http::StatusCode::NOT_MODIFIED,
    };
    let n = write_response(&mut room, first.status, &first.headers, &options)
        .expect("a head within the limits fits");
    let written = Bytes::copy_from_slice(&room[..n]);
    let second = parse_response(&written, &Method::GET).expect("what we write is what we accept");
    assert_eq!(
        (first.status, first.framing),
        (second.status, second.framing)
    );
    true
}

/// Decodes `bytes` as a chunked body whole and in pieces cut at `cut`; both must agree.
///
/// # Panics
/// When they do not: that is the finding.
pub fn fuzz_body(bytes: &[u8], cut: usize) -> bool {
    let whole = decode(bytes, usize::MAX);
    let pieces = decode(bytes, cut.max(1));
    assert_eq!(
        whole, pieces,
        "the result does not depend on how the bytes arrive"
    );
    whole.is_ok_and(|(_, done, _)| done)
}

type Decoding = Result<(Vec<u8>, bool, usize), crate::Error>;

fn decode(bytes: &[u8], cut: usize) -> Decoding {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in bytes.chunks(cut.min(bytes.len().max(1))) {
        let mut piece = piece.to_vec();
        let step = decoder.decode(&mut piece)?;
        data.extend_from_slice(&piece[step.start..step.start + step.len]);
        used += step.consumed;
        if step.done {
            break;
        }
    }
    let done = decoder.is_done();
    decoder.take_trailers()?;
    Ok((data, done, used))
}

fn whole_head(bytes: &[u8]) -> Option<Bytes> {
    let (start, end) = HeadScan::default()
        .advance(bytes, &Limits::default())
        .ok()??;
    Some(Bytes::copy_from_slice(&bytes[start..end]))
}

fn same(a: &RequestHead, b: &RequestHead) -> bool {
    // A length of zero is written only where a body is usual.
    let body = |f| {
        if f == Framing::Length(0) {
            Framing::None
        } else {
            f
        }
    };
    a.method == b.method
        && a.uri == b.uri
        && body(a.framing) == body(b.framing)
        && a.upgrade == b.upgrade
}
