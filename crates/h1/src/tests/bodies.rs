//! Bodies: chunked framing with its traps, lengths, trailers.

use crate::{BodyDecoder, Error, Framing};

/// Decodes everything at once; data, whether it ended, and how many bytes were left over.
fn decode(bytes: &[u8]) -> Result<(Vec<u8>, bool, usize), Error> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut buf = bytes.to_vec();
    let step = decoder.decode(&mut buf)?;
    Ok((
        buf[step.start..step.start + step.len].to_vec(),
        step.done,
        bytes.len() - step.consumed,
    ))
}

#[test]
fn chunks_are_joined_and_what_follows_is_left() {
    let (data, done, left) =
        decode(b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\nGET /next").unwrap();
    assert_eq!(
        (data.as_slice(), done, left),
        (&b"hello world"[..], true, 9)
    );
}

#[test]
fn sizes_are_one_to_sixteen_hexadecimal_digits() {
    assert_eq!(
        decode(b"000000000000000A\r\n0123456789\r\n0\r\n\r\n")
            .unwrap()
            .0,
        b"0123456789"
    );
    for bad in [
        "\r\n",
        ";a\r\n",
        "0x5\r\n",
        "5_0\r\n",
        "-1\r\n",
        "+1\r\n",
        "g\r\n",
        " 5\r\n",
        "00000000000000005\r\n",
        "ffffffffffffffff\r\n",
        "5\n",
        "5\rX",
    ] {
        assert_eq!(
            decode(bad.as_bytes()).unwrap_err(),
            Error::ChunkSize,
            "{bad:?}"
        );
    }
}

#[test]
fn extensions_are_ignored_within_limits() {
    assert_eq!(
        decode(b"1;x=\"y\";z\r\na\r\n1 ;x\r\nb\r\n0;end\r\n\r\n")
            .unwrap()
            .0,
        b"ab"
    );
    assert_eq!(
        decode(b"1;a\rb\r\n").unwrap_err(),
        Error::ChunkSize,
        "a carriage return ends the line"
    );
    assert_eq!(decode(b"1;a\nb").unwrap_err(), Error::ChunkExtension);
    assert_eq!(
        decode(b"1 \r\na").unwrap_err(),
        Error::ChunkExtension,
        "white space alone is no extension"
    );
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.extend_from_slice(format!("1;{}\r\na\r\n", "x".repeat(1000)).as_bytes());
    }
    assert_eq!(
        decode(&flood).unwrap_err(),
        Error::ChunkExtension,
        "the limit is for the whole body"
    );
}

#[test]
fn chunk_data_ends_in_crlf() {
    for bad in [
        "5\r\nhelloX",
        "5\r\nhello\n",
        "5\r\nhello\rX",
        "5\r\nhello world",
    ] {
        assert_eq!(
            decode(bad.as_bytes()).unwrap_err(),
            Error::ChunkEnd,
            "{bad:?}"
        );
    }
}

#[test]
fn trailers_are_read_and_the_forbidden_ones_dropped() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut body = b"0\r\ngrpc-status: 0\r\nContent-Length: 9\r\nX-Portico-User: evil\r\nAuthorization: x\r\nCookie: y\r\nx-sum: 1\r\n\r\n".to_vec();
    assert!(decoder.decode(&mut body).unwrap().done);
    let trailers = decoder.take_trailers().unwrap().unwrap();
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["grpc-status", "x-sum"]);
}

#[test]
fn trailer_sections_are_strict_and_limited() {
    for bad in [
        "0\r\nx: 1\n\r\n",
        "0\r\nx: 1\r\n\n",
        "0\r\nx\r: 1\r\n\r\n",
        "0\r\n\rX",
    ] {
        assert_eq!(
            decode(bad.as_bytes()).unwrap_err(),
            Error::Trailer,
            "{bad:?}"
        );
    }
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut folded = b"0\r\nx: 1\r\n y\r\n\r\n".to_vec();
    assert!(decoder.decode(&mut folded).unwrap().done);
    assert_eq!(decoder.take_trailers().unwrap_err(), Error::Trailer);
    let flood = format!("0\r\nx: {}\r\n\r\n", "y".repeat(9000));
    assert_eq!(
        decode(flood.as_bytes()).unwrap_err(),
        Error::TrailerTooLarge
    );
}

#[test]
fn a_length_takes_exactly_its_bytes() {
    let mut decoder = BodyDecoder::new(Framing::Length(5));
    let mut first = b"hel".to_vec();
    assert!(!decoder.decode(&mut first).unwrap().done);
    assert_eq!(decoder.remaining(), Some(2));
    assert_eq!(decoder.end_of_input(), Err(Error::BodyTooShort));
    let mut second = b"loGET /".to_vec();
    let step = decoder.decode(&mut second).unwrap();
    assert_eq!((step.len, step.consumed, step.done), (2, 2, true));
    assert_eq!(decoder.end_of_input(), Ok(()));
}

#[test]
fn a_body_until_close_ends_with_the_connection() {
    let mut decoder = BodyDecoder::new(Framing::UntilClose);
    let mut bytes = b"anything".to_vec();
    let step = decoder.decode(&mut bytes).unwrap();
    assert_eq!((step.len, step.done), (8, false));
    assert_eq!(decoder.end_of_input(), Ok(()));
}

#[test]
fn an_unfinished_chunked_body_is_too_short() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    decoder.decode(&mut b"5\r\nhel".to_vec()).unwrap();
    assert_eq!(decoder.end_of_input(), Err(Error::BodyTooShort));
    assert_eq!(decoder.remaining(), None);
}
