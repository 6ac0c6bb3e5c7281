//! Requests that are accepted, and every framing trap with its bytes.

use http::{Method, StatusCode, Version};

use super::{request, request_with};
use crate::{Error, Framing, HeadScan, Limits};

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, error: Error, status: u16) {
    let got = request(&bytes).expect_err("must be refused");
    assert_eq!(got, error, "{}", String::from_utf8_lossy(bytes.as_ref()));
    assert_eq!(got.status().as_u16(), status);
}

#[track_caller]
fn lines_refused(lines: &str, error: Error, status: u16) {
    refused(
        format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n"),
        error,
        status,
    );
}

#[test]
fn a_plain_request_is_read_whole() {
    let head = request(
        "GET /a%2Fb?x=1&y HTTP/1.1\r\nHost: example.com:80\r\nAccept:  */* \t\r\nX-Empty:\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        (head.method, head.version, head.framing, head.keep_alive),
        (Method::GET, Version::HTTP_11, Framing::None, true)
    );
    assert_eq!(head.uri, "/a%2Fb?x=1&y");
    assert_eq!(head.headers["accept"], "*/*");
    assert_eq!(head.headers["x-empty"], "");
    assert_eq!(head.headers["host"], "example.com:80");
}

#[test]
fn one_empty_line_before_the_request_is_allowed_and_a_second_is_not() {
    assert!(request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    refused(
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Error::RequestLine,
        400,
    );
}

#[test]
fn length_and_encoding_together_are_refused_in_either_order() {
    lines_refused(
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        Error::LengthAndEncoding,
        400,
    );
    lines_refused(
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        Error::LengthAndEncoding,
        400,
    );
}

#[test]
fn a_length_is_one_decimal_number() {
    for value in [
        "",
        "+5",
        "-0",
        "-5",
        "0x10",
        "1_0",
        "5, 5",
        "5,5",
        "5 5",
        "9223372036854775808",
        "99999999999999999999999",
        "5;",
        "٥",
    ] {
        lines_refused(
            &format!("Content-Length: {value}\r\n"),
            Error::ContentLength,
            400,
        );
    }
    for twice in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
    ] {
        lines_refused(twice, Error::DuplicateLength, 400);
    }
    assert_eq!(
        request_with("Content-Length: 9223372036854775807\r\n")
            .unwrap()
            .framing,
        Framing::Length(i64::MAX as u64)
    );
    assert_eq!(
        request_with("Content-Length: 007\r\n").unwrap().framing,
        Framing::Length(7)
    );
    assert_eq!(
        request_with("Content-Length: 0\r\n").unwrap().framing,
        Framing::None
    );
}

#[test]
fn transfer_encoding_is_exactly_one_chunked() {
    assert_eq!(
        request_with("Transfer-Encoding: Chunked\r\n")
            .unwrap()
            .framing,
        Framing::Chunked
    );
    for value in [
        "xchunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
    ] {
        lines_refused(
            &format!("Transfer-Encoding: {value}\r\n"),
            Error::UnknownEncoding,
            501,
        );
    }
    for value in [
        "",
        ",chunked",
        "chunked,",
        "chunked, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "\u{b}chunked",
    ] {
        let lines = format!("Transfer-Encoding: {value}\r\n");
        assert!(
            matches!(
                request_with(&lines),
                Err(Error::TransferEncoding | Error::FieldValue)
            ),
            "{value:?}"
        );
    }
    lines_refused(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        Error::TransferEncoding,
        400,
    );
    lines_refused(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        Error::TransferEncoding,
        400,
    );
}

#[test]
fn a_tab_beside_chunked_is_read_in_two_ways() {
    lines_refused(
        "Transfer-Encoding: chunked\t\r\n",
        Error::TransferEncoding,
        400,
    );
    lines_refused(
        "Transfer-Encoding:\tchunked\r\n",
        Error::TransferEncoding,
        400,
    );
    assert_eq!(
        request_with("Transfer-Encoding: chunked \r\n")
            .unwrap()
            .framing,
        Framing::Chunked
    );
}

#[test]
fn http_1_0_has_no_transfer_encoding() {
    refused(
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        Error::EncodingInHttp10,
        400,
    );
}

#[test]
fn header_lines_are_strict() {
    for (lines, error) in [
        ("X : 1\r\n", Error::SpaceBeforeColon),
        ("X\t: 1\r\n", Error::SpaceBeforeColon),
        ("Transfer-Encoding : chunked\r\n", Error::SpaceBeforeColon),
        (" X: 1\r\n", Error::ObsFold),
        ("X: 1\r\n folded\r\n", Error::ObsFold),
        ("X: 1\r\n\tfolded\r\n", Error::ObsFold),
        (": 1\r\n", Error::FieldName),
        ("no colon\r\n", Error::FieldName),
        ("X\u{0}Y: 1\r\n", Error::FieldName),
        ("X(Y): 1\r\n", Error::FieldName),
        ("Ünlaut: 1\r\n", Error::FieldName),
        ("X: a\u{0}b\r\n", Error::FieldValue),
        ("X: a\rb\r\n", Error::FieldValue),
        ("X: a\u{7f}\r\n", Error::FieldValue),
        ("X: a\u{1}\r\n", Error::FieldValue),
        ("X: 1\n", Error::BareLf),
        ("X: 1\n\r\n", Error::BareLf),
    ] {
        lines_refused(lines, error, 400);
    }
    assert_eq!(
        request_with("X: caf\u{e9}\r\n").unwrap().headers["x"].as_bytes(),
        "caf\u{e9}".as_bytes()
    );
}

#[test]
fn bare_line_feeds_are_refused_as_soon_as_they_are_seen() {
    for bytes in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET / HTTP/1.1\r\n",
    ] {
        assert_eq!(
            HeadScan::default().advance(bytes.as_bytes(), &Limits::default()),
            Err(Error::BareLf)
        );
    }
}

#[test]
fn request_lines_are_strict() {
    for (line, error, status) in [
        ("GET  / HTTP/1.1", Error::RequestLine, 400),
        ("GET /  HTTP/1.1", Error::RequestLine, 400),
        ("GET / HTTP/1.1 ", Error::RequestLine, 400),
        (" GET / HTTP/1.1", Error::Method, 400),
        ("GET /", Error::RequestLine, 400),
        ("GET / http/1.1", Error::RequestLine, 400),
        ("GET / HTTP/1.10", Error::RequestLine, 400),
        ("GET / HTTP/2.0", Error::Version, 505),
        ("GET / HTTP/0.9", Error::Version, 505),
        ("GET / HTTP/1.2", Error::Version, 505),
        ("G@T / HTTP/1.1", Error::Method, 400),
        ("GET\t/ HTTP/1.1", Error::RequestLine, 400),
        ("GET /a#b HTTP/1.1", Error::Target, 400),
        ("GET /\u{e9} HTTP/1.1", Error::Target, 400),
        ("GET /\u{0} HTTP/1.1", Error::Target, 400),
        ("GET a HTTP/1.1", Error::Target, 400),
        ("GET * HTTP/1.1", Error::Target, 400),
        ("GET ftp://a/ HTTP/1.1", Error::Target, 400),
        ("CONNECT a:443 HTTP/1.1", Error::Connect, 501),
    ] {
        refused(format!("{line}\r\nHost: a\r\n\r\n"), error, status);
    }
    assert_eq!(
        request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap()
            .uri,
        "*"
    );
}

#[test]
fn host_is_there_once_and_is_a_host() {
    refused("GET / HTTP/1.1\r\n\r\n", Error::MissingHost, 400);
    refused(
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        Error::DuplicateHost,
        400,
    );
    refused(
        "GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n",
        Error::DuplicateHost,
        400,
    );
    for host in ["", "user@a", "a/b", "a b", "a,b", "a:b", "a?b", "[::1"] {
        refused(
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Error::InvalidHost,
            400,
        );
    }
    assert!(
        request("GET / HTTP/1.0\r\n\r\n").is_ok(),
        "HTTP/1.0 may be without"
    );
}

#[test]
fn an_absolute_target_wins_over_host() {
    let head = request("GET http://b.example:8080/x?y HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(
        (
            head.uri.to_string().as_str(),
            head.headers["host"].to_str().unwrap()
        ),
        ("/x?y", "b.example:8080")
    );
    let head = request("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(head.uri, "/");
    refused(
        "GET http://user@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        Error::InvalidHost,
        400,
    );
    refused(
        "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
        Error::Target,
        400,
    );
}

#[test]
fn a_path_of_two_slashes_is_no_authority() {
    let head = request("GET //evil.example/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(head.uri.path(), "//evil.example/x");
    assert_eq!(head.uri.authority(), None);
}

#[test]
fn limits_hold_for_whole_and_for_unfinished_heads() {
    let limits = Limits::default();
    let scan = |bytes: &[u8]| HeadScan::default().advance(bytes, &limits);
    let long = "a".repeat(limits.line);
    assert_eq!(
        scan(format!("GET /{long} HTTP/1.1\r\n").as_bytes()),
        Err(Error::LineTooLong)
    );
    assert_eq!(
        scan(format!("GET /{long}").as_bytes()),
        Err(Error::LineTooLong)
    );
    assert_eq!(Error::LineTooLong.status(), StatusCode::URI_TOO_LONG);
    let big = "b".repeat(limits.head);
    assert_eq!(
        scan(format!("GET / HTTP/1.1\r\nX: {big}\r\n\r\n").as_bytes()),
        Err(Error::HeadTooLarge)
    );
    assert_eq!(
        scan(format!("GET / HTTP/1.1\r\nX: {big}").as_bytes()),
        Err(Error::HeadTooLarge)
    );
    let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(n));
    assert_eq!(
        scan(fields(limits.fields + 1).as_bytes()),
        Err(Error::TooManyFields)
    );
    assert!(scan(fields(limits.fields).as_bytes()).is_ok_and(|found| found.is_some()));
    assert_eq!(
        Error::TooManyFields.status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    // The largest that is allowed.
    let line = format!("GET /{} HTTP/1.1", "a".repeat(limits.line - 14));
    let value = "b".repeat(limits.head - 13);
    let largest = format!("{line}\r\nHost: a\r\nx:{value}\r\n\r\n");
    assert!(scan(largest.as_bytes()).is_ok_and(|found| found == Some((0, largest.len()))));
}

#[test]
fn fields_of_the_hop_are_taken_out() {
    let head = request_with(
        "Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic x\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\nX-Other: 2\r\nContent-Length: 3\r\n",
    )
    .unwrap();
    let mut names: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "host", "te", "x-other"]);
    assert_eq!(head.headers["te"], "trailers");
    assert!(!head.keep_alive);
    assert_eq!(head.upgrade, None, "h2c is not switched to");
    assert!(
        !request_with("TE: gzip\r\n")
            .unwrap()
            .headers
            .contains_key("te")
    );
}

#[test]
fn connection_must_not_name_what_the_gateway_relies_on() {
    for name in [
        "Authorization",
        "X-Portico-User",
        "X-Forwarded-For",
        "Host",
        "Content-Length",
        "Cookie",
        "Forwarded",
    ] {
        lines_refused(
            &format!("Connection: {name}\r\n"),
            Error::ConnectionNominates,
            400,
        );
    }
    lines_refused("Connection: a b\r\n", Error::FieldName, 400);
}

#[test]
fn keeping_the_connection_follows_version_and_fields() {
    let keep = |version: &str, line: &str| {
        request(format!("GET / {version}\r\nHost: a\r\n{line}\r\n"))
            .unwrap()
            .keep_alive
    };
    assert!(keep("HTTP/1.1", ""));
    assert!(!keep("HTTP/1.1", "Connection: close\r\n"));
    assert!(!keep("HTTP/1.1", "Connection: keep-alive, Close\r\n"));
    assert!(!keep("HTTP/1.0", ""));
    assert!(keep("HTTP/1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn an_upgrade_needs_both_fields() {
    let upgrade = |lines: &str| {
        request(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
            .unwrap()
            .upgrade
    };
    assert_eq!(
        upgrade("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n").unwrap(),
        "WebSocket"
    );
    assert_eq!(upgrade("Upgrade: websocket\r\n"), None);
    assert_eq!(upgrade("Connection: upgrade\r\n"), None);
    assert_eq!(
        request_with("Connection: upgrade\r\nUpgrade: websocket\r\n")
            .unwrap()
            .upgrade,
        None,
        "only GET switches"
    );
}

#[test]
fn expectations() {
    assert!(
        request_with("Expect: 100-Continue\r\nContent-Length: 1\r\n")
            .unwrap()
            .expect_continue
    );
    assert!(
        !request_with("Content-Length: 1\r\n")
            .unwrap()
            .expect_continue
    );
    lines_refused("Expect: 200-ok\r\n", Error::Expectation, 417);
    let old =
        request("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").unwrap();
    assert!(
        !old.expect_continue,
        "HTTP/1.0 does not know interim answers"
    );
}
