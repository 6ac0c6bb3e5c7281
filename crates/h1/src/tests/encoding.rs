//! What is written: heads with framing of our own, chunks, trailers.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::{
    CHUNK_PREFIX_MAX, Connection, Framing, Overflow, RequestLine, ResponseOptions, chunk_prefix,
    write_request, write_response, write_trailers,
};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
        .collect()
}

fn written_request(method: &Method, framing: Framing, map: &HeaderMap) -> String {
    let mut room = vec![0; 4096];
    let uri = Uri::from_static("/p?q");
    let n = write_request(
        &mut room,
        &RequestLine {
            method,
            uri: &uri,
            framing,
            upgrade: None,
        },
        map,
    )
    .unwrap();
    String::from_utf8(room[..n].to_vec()).unwrap()
}

fn written_response(
    status: StatusCode,
    map: &HeaderMap,
    framing: Framing,
    connection: Connection<'_>,
    keep_length: bool,
) -> String {
    let mut room = vec![0; 4096];
    let options = ResponseOptions {
        framing,
        date: b"DATE",
        connection,
        keep_length,
    };
    let n = write_response(&mut room, status, map, &options).unwrap();
    String::from_utf8(room[..n].to_vec()).unwrap()
}

#[test]
fn incoming_framing_is_never_written_again() {
    let map = headers(&[
        ("host", "a"),
        ("transfer-encoding", "gzip, chunked"),
        ("content-length", "999"),
        ("connection", "x"),
        ("keep-alive", "timeout=1"),
        ("proxy-connection", "y"),
        ("upgrade", "z"),
    ]);
    assert_eq!(
        written_request(&Method::GET, Framing::None, &map),
        "GET /p?q HTTP/1.1\r\nhost: a\r\n\r\n"
    );
    assert_eq!(
        written_request(&Method::POST, Framing::None, &map),
        "POST /p?q HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        written_request(&Method::POST, Framing::Length(12), &map),
        "POST /p?q HTTP/1.1\r\nhost: a\r\ncontent-length: 12\r\n\r\n"
    );
    assert_eq!(
        written_request(&Method::POST, Framing::Chunked, &map),
        "POST /p?q HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn an_answer_has_a_date_and_a_length() {
    let map = headers(&[("x", "y")]);
    assert_eq!(
        written_response(
            StatusCode::OK,
            &map,
            Framing::Length(3),
            Connection::Keep,
            false
        ),
        "HTTP/1.1 200 OK\r\nx: y\r\ndate: DATE\r\ncontent-length: 3\r\n\r\n"
    );
    let dated = headers(&[("date", "mine")]);
    assert_eq!(
        written_response(
            StatusCode::NOT_FOUND,
            &dated,
            Framing::None,
            Connection::Close,
            false
        ),
        "HTTP/1.1 404 Not Found\r\ndate: mine\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn bodiless_answers_keep_or_lose_their_length() {
    let map = headers(&[("date", "d"), ("content-length", "9")]);
    let head = written_response(StatusCode::OK, &map, Framing::None, Connection::Keep, true);
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 9\r\n\r\n"
    );
    let none = written_response(
        StatusCode::NO_CONTENT,
        &map,
        Framing::None,
        Connection::KeepAlive,
        false,
    );
    assert_eq!(
        none,
        "HTTP/1.1 204 No Content\r\ndate: d\r\nconnection: keep-alive\r\n\r\n"
    );
}

#[test]
fn a_switch_names_its_protocol_once() {
    let map = headers(&[("date", "d"), ("upgrade", "websocket")]);
    let protocol = HeaderValue::from_static("websocket");
    let text = written_response(
        StatusCode::SWITCHING_PROTOCOLS,
        &map,
        Framing::None,
        Connection::To(&protocol),
        false,
    );
    assert_eq!(
        text,
        "HTTP/1.1 101 Switching Protocols\r\ndate: d\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
}

#[test]
fn too_little_room_is_an_error_not_a_panic() {
    let map = headers(&[("host", "a")]);
    let uri = Uri::from_static("/");
    let line = RequestLine {
        method: &Method::GET,
        uri: &uri,
        framing: Framing::None,
        upgrade: None,
    };
    let whole = write_request(&mut [0; 64], &line, &map).unwrap();
    for n in 0..whole {
        assert_eq!(write_request(&mut vec![0; n], &line, &map), Err(Overflow));
    }
}

#[test]
fn chunk_prefixes_are_hexadecimal() {
    let mut room = [0; CHUNK_PREFIX_MAX];
    assert_eq!(chunk_prefix(0, &mut room), b"0\r\n");
    assert_eq!(chunk_prefix(255, &mut room), b"ff\r\n");
    assert_eq!(chunk_prefix(usize::MAX, &mut room), b"ffffffffffffffff\r\n");
}

#[test]
fn trailers_are_written_without_the_forbidden() {
    let map = headers(&[
        ("x-sum", "1"),
        ("content-length", "5"),
        ("grpc-status", "0"),
    ]);
    assert_eq!(
        write_trailers(&map),
        b"0\r\nx-sum: 1\r\ngrpc-status: 0\r\n\r\n"
    );
}
