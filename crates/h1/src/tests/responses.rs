//! Answers of instances: what is accepted, and what must become 502.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::{Error, Framing, HeadScan, Limits, ResponseHead, parse_response};

fn response_to(method: &Method, text: &str) -> Result<ResponseHead, Error> {
    let found = HeadScan::default().advance(text.as_bytes(), &Limits::default())?;
    let (start, end) = found.expect("the head is whole");
    parse_response(
        &Bytes::copy_from_slice(&text.as_bytes()[start..end]),
        method,
    )
}

fn response(text: &str) -> Result<ResponseHead, Error> {
    response_to(&Method::GET, text)
}

#[test]
fn a_plain_answer_is_read_whole() {
    let head = response(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=7, max=9\r\nX: y\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        (
            head.status,
            head.framing,
            head.keep_alive,
            head.keep_alive_timeout
        ),
        (StatusCode::OK, Framing::Length(5), true, Some(7))
    );
    assert!(!head.headers.contains_key("keep-alive"));
}

#[test]
fn framing_follows_status_method_and_fields() {
    let framing = |text: &str| response(text).unwrap().framing;
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Framing::Chunked
    );
    assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n"), Framing::UntilClose);
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Framing::None
    );
    assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n"), Framing::None);
    assert_eq!(
        framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        Framing::None
    );
    let head = response_to(
        &Method::HEAD,
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        (
            head.framing,
            head.headers["content-length"].to_str().unwrap()
        ),
        (Framing::None, "9")
    );
}

#[test]
fn an_answer_that_ends_with_the_connection_does_not_keep_it() {
    assert!(!response("HTTP/1.1 200 OK\r\n\r\n").unwrap().keep_alive);
    assert!(
        !response("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n")
            .unwrap()
            .keep_alive
    );
    assert!(
        !response("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n")
            .unwrap()
            .keep_alive
    );
    assert!(
        response("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n")
            .unwrap()
            .keep_alive
    );
}

#[test]
fn contradictions_are_refused() {
    for (text, error) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::LengthAndEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            Error::DuplicateLength,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            Error::UnknownEncoding,
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::EncodingInHttp10,
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            Error::UnexpectedBody,
        ),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::UnexpectedBody,
        ),
        (
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
            Error::UnexpectedBody,
        ),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Error::ObsFold),
        (
            "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n",
            Error::FieldValue,
        ),
    ] {
        assert_eq!(response(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn status_lines_are_strict() {
    for line in [
        "HTTP/1.1 600 X",
        "HTTP/1.1 099 X",
        "HTTP/1.1 20 X",
        "HTTP/1.1 2000 X",
        "HTTP/2 200 OK",
        "HTTP/1.1  200 OK",
        "ICY 200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200 a\u{1}",
    ] {
        assert_eq!(
            response(&format!("{line}\r\n\r\n")).unwrap_err(),
            Error::StatusLine,
            "{line}"
        );
    }
    assert!(
        response("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n").is_ok(),
        "the reason may be left out"
    );
    assert!(response("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n").is_ok());
}

#[test]
fn a_switch_of_protocols_names_it() {
    let head = response(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )
    .unwrap();
    assert_eq!(head.upgrade.unwrap(), "websocket");
    assert!(!head.keep_alive);
    let silent = response("HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
    assert_eq!(silent.upgrade, None);
}
