//! Properties: no panic on any bytes, the same result however they arrive, what is written is read.

use bytes::Bytes;
use http::Method;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{
    BodyDecoder, CHUNK_PREFIX_MAX, Framing, HeadScan, LAST_CHUNK, Limits, chunk_prefix, fuzz_body,
    fuzz_request, fuzz_response, parse_request,
};

/// Bytes that are close to HTTP, so that random ones get far.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"GET / HTTP/1.1\r\n"[..]),
        Just(&b"POST http://a/b?c HTTP/1.1\r\n"[..]),
        Just(&b"HTTP/1.1 200 OK\r\n"[..]),
        Just(&b"HTTP/1.0 404\r\n"[..]),
        Just(&b"Host: a\r\n"[..]),
        Just(&b"Host: b:1\r\n"[..]),
        Just(&b"Content-Length: 5\r\n"[..]),
        Just(&b"Content-Length: 05\r\n"[..]),
        Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        Just(&b"Transfer-Encoding: gzip\r\n"[..]),
        Just(&b"Connection: close, te\r\n"[..]),
        Just(&b"Connection: upgrade\r\nUpgrade: websocket\r\n"[..]),
        Just(&b"TE: trailers\r\n"[..]),
        Just(&b"X: \xff\r\n"[..]),
        Just(&b" fold\r\n"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"\0"[..]),
        Just(&b": "[..]),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn nearly_chunked() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"1\r\na\r\n"[..]),
        Just(&b"3;x=y\r\nabc\r\n"[..]),
        Just(&b"A\r\n0123456789\r\n"[..]),
        Just(&b"0\r\n"[..]),
        Just(&b"x: y\r\n"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"\n"[..]),
        Just(&b"5"[..]),
        Just(&b";"[..]),
        Just(&b" "[..]),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Finds the head's end giving the bytes in pieces of `cut`.
fn scan_in_pieces(bytes: &[u8], cut: usize) -> Result<Option<(usize, usize)>, crate::Error> {
    let mut scan = HeadScan::default();
    let mut end = 0;
    while end < bytes.len() {
        end = (end + cut).min(bytes.len());
        if let Some(found) = scan.advance(&bytes[..end], &Limits::default())? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..600)) {
        fuzz_request(&bytes);
        fuzz_response(&bytes);
        fuzz_body(&bytes, 7);
    }

    #[test]
    fn near_misses_are_read_without_panic_and_written_heads_are_read_again(bytes in nearly_http()) {
        fuzz_request(&bytes);
        fuzz_response(&bytes);
    }

    #[test]
    fn a_chunked_body_is_the_same_in_any_pieces(bytes in nearly_chunked(), cut in 1usize..20) {
        fuzz_body(&bytes, cut);
    }

    #[test]
    fn the_end_of_a_head_is_the_same_in_any_pieces(bytes in nearly_http(), cut in 1usize..40) {
        let whole = HeadScan::default().advance(&bytes, &Limits::default());
        prop_assert_eq!(scan_in_pieces(&bytes, cut), whole);
    }

    #[test]
    fn what_we_accept_others_accept_too(bytes in nearly_http()) {
        let Ok(Some((start, end))) = HeadScan::default().advance(&bytes, &Limits::default()) else { return Ok(()) };
        if parse_request(&Bytes::copy_from_slice(&bytes[start..end])).is_ok() {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut other = httparse::Request::new(&mut fields);
            prop_assert_eq!(other.parse(&bytes[start..end]), Ok(httparse::Status::Complete(end - start)));
        }
    }

    #[test]
    fn chunks_that_we_write_are_read_as_they_were(pieces in vec(vec(any::<u8>(), 1..300), 0..8), cut in 1usize..400) {
        let mut wire = Vec::new();
        for piece in &pieces {
            wire.extend_from_slice(chunk_prefix(piece.len(), &mut [0; CHUNK_PREFIX_MAX]));
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(LAST_CHUNK);
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let mut data = Vec::new();
        for part in wire.chunks(cut) {
            let mut part = part.to_vec();
            let step = decoder.decode(&mut part).expect("our own framing");
            data.extend_from_slice(&part[step.start..step.start + step.len]);
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(data, pieces.concat());
    }
}

#[test]
fn the_fuzz_targets_accept_what_is_good() {
    assert!(fuzz_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(fuzz_response(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    ));
    assert!(fuzz_body(b"3\r\nabc\r\n0\r\n\r\n", 2));
    assert!(!fuzz_request(
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"
    ));
    assert_eq!(
        parse_request(&Bytes::from_static(b"")).err(),
        Some(crate::Error::RequestLine)
    );
    assert!(crate::response::parse_response(&Bytes::from_static(b""), &Method::GET).is_err());
}
