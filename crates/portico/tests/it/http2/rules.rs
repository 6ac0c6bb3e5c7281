//! The MUSTs of RFC 9113 and RFC 7541 as a table: bytes in, the kind of refusal out.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::frames::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, GOAWAY, Got, HEADERS, NO_ERROR, PADDED, PING, PRIORITISED, PRIORITY,
    PROTOCOL_ERROR, PUSH_PROMISE, Peer, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED,
    WINDOW_UPDATE, fields, frame, get, headers, request, reset, settings, window_update,
};
use crate::house::House;
use crate::raw::{RawServer, read_head};

/// What must come of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// GOAWAY with one of these codes, or the end of the connection.
    End(&'static [u32]),
    /// RST_STREAM with one of these codes, or a 4xx, or what [`Must::End`] says.
    Refuse(&'static [u32]),
    /// Nothing of the kind: the connection lives, and no stream was reset.
    Live,
    /// The stream is answered with 200.
    Answer,
}
use Must::{Answer, End, Live, Refuse};

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    must: Must,
}

fn case(name: &'static str, parts: &[Vec<u8>], must: Must) -> Case {
    Case {
        name,
        bytes: parts.concat(),
        must,
    }
}

const P: &[u32] = &[PROTOCOL_ERROR];
const S: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
const C: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
const H: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
const W: &[u32] = &[FLOW_CONTROL_ERROR];

/// A request to the service that answers with the body's length.
fn post(stream: u32, flags: u8, more: &[(&str, &str)]) -> Vec<u8> {
    headers(stream, flags, &request("POST", "/api/target/", more))
}

/// HEADERS whose block is `block`, on stream 1, ended.
fn raw(block: &[u8]) -> Vec<u8> {
    headers(1, END_STREAM, block)
}

#[rustfmt::skip]
fn framing() -> Vec<Case> {
    let block = request("GET", "/healthz", &[]);
    let (first, second) = block.split_at(10);
    let part = |kind, flags, stream, bytes: &[u8]| frame(kind, flags, stream, bytes);
    vec![
        case("4.1 an unknown frame is ignored", &[frame(0x16, 0, 0, b"????????"), get(1, "/healthz")], Answer),
        case("4.1 unknown flags are ignored", &[frame(PING, 0xf6, 0, b"12345678"), get(1, "/healthz")], Answer),
        case("4.1 the reserved bit is ignored", &[frame(PING, 0, 0x8000_0000, b"12345678"), get(1, "/healthz")], Answer),
        case("4.2 DATA of the largest size", &[post(1, 0, &[("content-length", "16384")]), frame(DATA, END_STREAM, 1, &[b'x'; 16384])], Answer),
        case("4.2 DATA above the largest size", &[post(1, 0, &[]), frame(DATA, END_STREAM, 1, &[b'x'; 16385])], Refuse(S)),
        case("4.2 HEADERS above the largest size", &[frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82; 16385])], End(S)),
        case("4.3 PRIORITY inside a field block", &[part(HEADERS, END_STREAM, 1, first), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), part(CONTINUATION, END_HEADERS, 1, second)], End(P)),
        case("4.3 HEADERS of another stream inside a field block", &[part(HEADERS, END_STREAM, 1, first), get(3, "/healthz")], End(P)),
        case("4.3 an unknown frame inside a field block", &[part(HEADERS, END_STREAM, 1, first), frame(0x16, 0, 1, b"x"), part(CONTINUATION, END_HEADERS, 1, second)], End(P)),
        case("4.3 a block in pieces", &[part(HEADERS, END_STREAM, 1, first), part(CONTINUATION, 0, 1, &second[..3]), part(CONTINUATION, END_HEADERS, 1, &second[3..])], Answer),
        case("6.10 CONTINUATION of another stream", &[part(HEADERS, END_STREAM, 1, first), part(CONTINUATION, END_HEADERS, 3, second)], End(P)),
        case("6.10 CONTINUATION of stream 0", &[part(HEADERS, END_STREAM, 1, first), part(CONTINUATION, END_HEADERS, 0, second)], End(P)),
        case("6.10 CONTINUATION behind END_HEADERS", &[get(1, "/healthz"), part(CONTINUATION, END_HEADERS, 1, second)], End(&[PROTOCOL_ERROR, STREAM_CLOSED])),
        case("6.10 CONTINUATION behind DATA", &[post(1, 0, &[]), frame(DATA, 0, 1, b"x"), part(CONTINUATION, END_HEADERS, 1, second)], End(P)),
        case("6.1 DATA on stream 0", &[frame(DATA, END_STREAM, 0, b"x")], End(P)),
        case("6.1 padding longer than DATA", &[post(1, 0, &[]), frame(DATA, PADDED | END_STREAM, 1, &[9, b'x'])], End(P)),
        case("6.1 padded DATA", &[post(1, 0, &[]), frame(DATA, PADDED | END_STREAM, 1, &[2, b'x', 0, 0])], Answer),
        case("6.2 HEADERS on stream 0", &[headers(0, END_STREAM, &block)], End(P)),
        case("6.2 padding longer than HEADERS", &[frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[[200].as_slice(), &block].concat())], End(P)),
        case("6.2 padded HEADERS", &[frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[[2].as_slice(), &block, &[0, 0]].concat())], Answer),
        case("6.2 HEADERS with a priority", &[frame(HEADERS, PRIORITISED | END_HEADERS | END_STREAM, 1, &[[0, 0, 0, 0, 15].as_slice(), &block].concat())], Answer),
        case("6.3 PRIORITY on stream 0", &[frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 9])], End(P)),
        case("6.3 PRIORITY of another size", &[frame(PRIORITY, 0, 1, &[0, 0, 0, 3])], Refuse(S)),
        case("6.4 RST_STREAM on stream 0", &[reset(0)], End(P)),
        case("6.4 RST_STREAM of another size", &[post(1, 0, &[]), frame(RST_STREAM, 0, 1, &[0, 0, 0])], End(S)),
        case("6.6 PUSH_PROMISE of a client", &[frame(PUSH_PROMISE, END_HEADERS, 1, &[[0, 0, 0, 2].as_slice(), &block].concat())], End(P)),
        case("6.7 PING on a stream", &[frame(PING, 0, 1, b"12345678")], End(P)),
        case("6.7 PING of another size", &[frame(PING, 0, 0, b"123456")], End(S)),
        case("6.8 GOAWAY on a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], End(P)),
        case("6.8 GOAWAY of another size", &[frame(GOAWAY, 0, 0, &[0; 7])], End(S)),
    ]
}

#[rustfmt::skip]
fn states() -> Vec<Case> {
    let trailer = || headers(1, END_STREAM, &fields(&[("x-trailer", "1")]));
    let many: Vec<Vec<u8>> = (0..200).map(|n| post(2 * n + 1, 0, &[])).collect();
    vec![
        case("5.1 DATA on an idle stream", &[frame(DATA, END_STREAM, 1, b"x")], End(P)),
        case("5.1 RST_STREAM on an idle stream", &[reset(1)], End(P)),
        case("5.1 WINDOW_UPDATE on an idle stream", &[window_update(1, 1)], End(P)),
        case("5.1 CONTINUATION on an idle stream", &[frame(CONTINUATION, END_HEADERS, 1, &request("GET", "/", &[]))], End(P)),
        case("5.1 PRIORITY on an idle stream", &[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), get(1, "/healthz")], Answer),
        case("5.1 DATA behind the end", &[get(1, "/healthz"), frame(DATA, END_STREAM, 1, b"x")], Refuse(C)),
        case("5.1 HEADERS behind the end", &[get(1, "/healthz"), get(1, "/healthz")], Refuse(C)),
        case("5.1 DATA behind our RST_STREAM", &[post(1, 0, &[]), reset(1), frame(DATA, END_STREAM, 1, b"x")], Refuse(C)),
        case("5.1 HEADERS behind our RST_STREAM", &[post(1, 0, &[]), reset(1), get(1, "/healthz")], Refuse(C)),
        case("5.1 WINDOW_UPDATE behind our RST_STREAM is ignored", &[post(1, 0, &[]), reset(1), window_update(1, 1)], Live),
        case("5.1.1 an even stream", &[get(2, "/healthz")], End(P)),
        case("5.1.1 a smaller stream than before", &[get(5, "/healthz"), get(3, "/healthz")], End(&[PROTOCOL_ERROR, STREAM_CLOSED])),
        case("5.1.2 more streams than allowed", &many, Refuse(&[REFUSED_STREAM, PROTOCOL_ERROR])),
        case("8.1 trailers", &[post(1, 0, &[]), frame(DATA, 0, 1, b"x"), trailer()], Answer),
        case("8.1 second HEADERS that do not end the stream", &[post(1, 0, &[]), headers(1, 0, &fields(&[("x", "1")]))], Refuse(P)),
        // The RFC calls it malformed; the library drops it. It never reaches an instance.
        case("8.1 pseudo fields in trailers", &[post(1, 0, &[]), headers(1, END_STREAM, &fields(&[(":method", "GET")]))], Answer),
    ]
}

#[rustfmt::skip]
fn windows_and_settings() -> Vec<Case> {
    let value = |id, value| settings(&[(id, value)]);
    vec![
        case("6.5 an acknowledgement with a payload", &[frame(SETTINGS, ACK, 0, &[0])], End(S)),
        case("6.5 SETTINGS on a stream", &[frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])], End(P)),
        case("6.5 SETTINGS of another size", &[frame(SETTINGS, 0, 0, &[0, 3, 0])], End(S)),
        case("6.5.2 ENABLE_PUSH of 2", &[value(2, 2)], End(P)),
        case("6.5.2 INITIAL_WINDOW_SIZE above the most", &[value(4, 0x8000_0000)], End(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR])),
        case("6.5.2 MAX_FRAME_SIZE below the least", &[value(5, 16_383)], End(P)),
        case("6.5.2 MAX_FRAME_SIZE above the most", &[value(5, 16_777_216)], End(P)),
        case("6.5.2 an unknown setting is ignored", &[value(0xff, 1), get(1, "/healthz")], Answer),
        case("6.9 a connection's window by 0", &[window_update(0, 0)], End(P)),
        case("6.9 a stream's window by 0", &[post(1, 0, &[]), window_update(1, 0)], Refuse(P)),
        case("6.9 WINDOW_UPDATE of another size", &[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])], End(S)),
        case("6.9.1 a connection's window beyond the most", &[window_update(0, 0x7fff_ffff), window_update(0, 0x7fff_ffff)], End(W)),
        case("6.9.1 a stream's window beyond the most", &[post(1, 0, &[]), window_update(1, 0x7fff_ffff), window_update(1, 0x7fff_ffff)], Refuse(W)),
        case("6.9.2 a window beyond the most by a new setting", &[post(1, 0, &[]), window_update(1, 0x7fff_0000), value(4, 0x7fff_ffff)], Refuse(W)),
    ]
}

#[rustfmt::skip]
fn messages() -> Vec<Case> {
    let with = |more: &[(&str, &str)]| raw(&request("GET", "/healthz", more));
    let only = |list: &[(&str, &str)]| raw(&fields(list));
    let (method, scheme, path, authority) = (
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/healthz"),
        (":authority", "127.0.0.1"),
    );
    let sized = |length, data: &[&[u8]]| {
        let mut all = post(1, 0, &[("content-length", length)]);
        for (n, piece) in data.iter().enumerate() {
            all.extend(frame(
                DATA,
                if n + 1 == data.len() { END_STREAM } else { 0 },
                1,
                piece,
            ));
        }
        all
    };
    vec![
        case("8.2 a name in upper case", &[with(&[("X-Upper", "1")])], Refuse(P)),
        case("8.2.1 a name with a space", &[with(&[("x y", "1")])], Refuse(P)),
        case("8.2.1 a name with a colon inside", &[with(&[("x:y", "1")])], Refuse(P)),
        case("8.2.1 an empty name", &[with(&[("", "1")])], Refuse(P)),
        case("8.2.1 a value with NUL", &[with(&[("x", "a\0b")])], Refuse(P)),
        case("8.2.1 a value with LF", &[with(&[("x", "a\nb: c")])], Refuse(P)),
        case("8.2.1 a value with CR", &[with(&[("x", "a\rb")])], Refuse(P)),
        case("8.2.2 connection", &[with(&[("connection", "close")])], Refuse(P)),
        case("8.2.2 keep-alive", &[with(&[("keep-alive", "timeout=5")])], Refuse(P)),
        case("8.2.2 proxy-connection", &[with(&[("proxy-connection", "close")])], Refuse(P)),
        case("8.2.2 transfer-encoding", &[with(&[("transfer-encoding", "chunked")])], Refuse(P)),
        case("8.2.2 upgrade", &[with(&[("upgrade", "h2c")])], Refuse(P)),
        case("8.2.2 TE other than trailers", &[with(&[("te", "trailers, deflate")])], Refuse(P)),
        case("8.2.2 TE: trailers", &[with(&[("te", "trailers")])], Answer),
        case("8.3 an unknown pseudo field", &[only(&[method, scheme, path, authority, (":test", "1")])], Refuse(P)),
        case("8.3 an answer's pseudo field", &[only(&[method, scheme, path, authority, (":status", "200")])], Refuse(P)),
        case("8.3 a pseudo field behind a field", &[only(&[method, scheme, authority, ("x", "1"), path])], Refuse(P)),
        case("8.3.1 no method", &[only(&[scheme, path, authority])], Refuse(P)),
        case("8.3.1 no scheme", &[only(&[method, path, authority])], Refuse(P)),
        case("8.3.1 no path", &[only(&[method, scheme, authority])], Refuse(P)),
        case("8.3.1 an empty path", &[only(&[method, scheme, (":path", ""), authority])], Refuse(P)),
        case("8.3.1 a path without its slash", &[only(&[method, scheme, (":path", "healthz"), authority])], Refuse(P)),
        case("8.3.1 two methods", &[only(&[method, method, scheme, path, authority])], Refuse(P)),
        case("8.3.1 two schemes", &[only(&[method, scheme, scheme, path, authority])], Refuse(P)),
        case("8.3.1 two paths", &[only(&[method, scheme, path, path, authority])], Refuse(P)),
        case("8.3.1 two authorities", &[only(&[method, scheme, path, authority, authority])], Refuse(P)),
        case("8.3.1 an authority with user information", &[only(&[method, scheme, path, (":authority", "a@127.0.0.1")])], Refuse(P)),
        case("8.3.1 no authority and no host", &[only(&[method, scheme, path])], Refuse(P)),
        case("8.3.1 host instead of authority", &[only(&[method, scheme, path, ("host", "127.0.0.1")])], Answer),
        // As with an absolute target in HTTP/1.1: the authority wins, and Host is made anew.
        case("8.3.1 host that is not the authority", &[only(&[method, scheme, path, authority, ("host", "evil.example")])], Answer),
        case("8.3.1 a method with a space", &[only(&[(":method", "GET /x"), scheme, path, authority])], Refuse(P)),
        case("8.3.1 a path with a line end", &[only(&[method, scheme, (":path", "/healthz HTTP/1.1\r\nx: y"), authority])], Refuse(P)),
        case("8.5 CONNECT with a path", &[only(&[(":method", "CONNECT"), scheme, path, authority])], Refuse(P)),
        case("8.1.1 a length that is right", &[sized("5", &[b"hello"])], Answer),
        case("8.1.1 a length that is right, in two pieces", &[sized("5", &[b"hel", b"lo"])], Answer),
        case("8.1.1 less than the length", &[sized("8", &[b"hello"])], Refuse(P)),
        case("8.1.1 more than the length", &[sized("3", &[b"hello"])], Refuse(P)),
        case("8.1.1 more than the length, in two pieces", &[sized("3", &[b"he", b"llo"])], Refuse(P)),
        case("8.1.1 a length and no body", &[post(1, END_STREAM, &[("content-length", "5")])], Refuse(P)),
        case("8.1.1 two lengths", &[post(1, 0, &[("content-length", "5"), ("content-length", "6")]), frame(DATA, END_STREAM, 1, b"hello")], Refuse(P)),
        case("8.1.1 a length that is no number", &[post(1, 0, &[("content-length", "+5")]), frame(DATA, END_STREAM, 1, b"hello")], Refuse(P)),
    ]
}

#[rustfmt::skip]
fn compression() -> Vec<Case> {
    let literal = |prefix: &[u8]| raw(&[request("GET", "/healthz", &[]), prefix.to_vec()].concat());
    let first = |prefix: &[u8]| raw(&[prefix.to_vec(), request("GET", "/healthz", &[])].concat());
    vec![
        case("HPACK 6.1 index 0", &[literal(&[0x80])], End(H)),
        case("HPACK 2.3.3 an index beyond the table", &[literal(&[0xff, 0x60])], End(H)),
        case("HPACK 2.3.3 a name's index beyond the table", &[literal(&[0x7f, 0x60, 1, b'x'])], End(H)),
        case("HPACK 6.3 a table larger than allowed", &[first(&[0x3f, 0xe1, 0xff, 0xff, 0x0f])], End(H)),
        case("HPACK 6.3 an allowed table", &[first(&[0x20])], Answer),
        case("HPACK 4.2 a table's size at the end of a block", &[literal(&[0x20])], End(H)),
        case("HPACK 5.1 an integer without an end", &[literal(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])], End(H)),
        case("HPACK 5.2 a string longer than the block", &[literal(&[0, 1, b'x', 0x7f])], End(H)),
        case("HPACK 5.2 padding of more than 7 bits", &[literal(&[0, 1, b'x', 0x82, 0x1f, 0xff])], End(H)),
        case("HPACK 5.2 padding with zeroes", &[literal(&[0, 1, b'x', 0x81, 0x00])], End(H)),
        case("HPACK 5.2 EOS in a string", &[literal(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])], End(H)),
        case("HPACK a block that ends in the middle", &[literal(&[0x40])], End(H)),
    ]
}

/// What came, in one word and a line.
fn judge(case: &Case, got: &[Got], closed: bool) -> Result<(), String> {
    let goaway = got
        .iter()
        .find(|g| g.kind == GOAWAY && g.code() != NO_ERROR);
    let reset = got.iter().find(|g| g.kind == RST_STREAM);
    let status = got.iter().find(|g| g.kind == HEADERS).and_then(status);
    let mut line = String::new();
    let _ = write!(
        line,
        "goaway {:?}, reset {:?}, status {status:?}, closed {closed}",
        goaway.map(Got::code),
        reset.map(Got::code)
    );
    let ended = |codes: &[u32]| goaway.map_or(closed, |g| codes.contains(&g.code()));
    let right = match case.must {
        End(codes) => ended(codes),
        Refuse(codes) => {
            goaway.is_some_and(|g| codes.contains(&g.code()))
                || reset.is_some_and(|g| codes.contains(&g.code()))
                || matches!(status, Some(400..=499 | 501))
                || (goaway.is_none() && closed)
        }
        Live => goaway.is_none() && reset.is_none() && !closed,
        Answer => status == Some(200) && goaway.is_none() && !closed,
    };
    right
        .then_some(())
        .ok_or_else(|| format!("{}: {:?}, but {line}", case.name, case.must))
}

/// The status of a HEADERS frame as our encoder writes it: an index of the static table, or a literal.
fn status(got: &Got) -> Option<u16> {
    match *got.payload.first()? {
        0x88 => Some(200),
        0x89 => Some(204),
        0x8c => Some(400),
        0x8d => Some(404),
        0x8e => Some(500),
        // A literal with the name of index 8; digits in Huffman's code have 5 or 6 bits.
        0x48 | 0x08 | 0x18 => {
            let (length, text) = (got.payload.get(1)?, got.payload.get(2..)?);
            if length & 0x80 == 0 {
                std::str::from_utf8(text.get(..3)?).ok()?.parse().ok()
            } else {
                digits(text.get(..usize::from(length & 0x7f))?)
            }
        }
        _ => None,
    }
}

/// Digits in Huffman's code: 0, 1 and 2 have five bits, the others six (RFC 7541 appendix B).
fn digits(bytes: &[u8]) -> Option<u16> {
    let bits: String = bytes.iter().map(|b| format!("{b:08b}")).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = u16::from_str_radix(bits.get(at..at + 5)?, 2).ok()?;
        let digit = if five <= 2 {
            at += 5;
            five
        } else {
            let six = u16::from_str_radix(bits.get(at..at + 6)?, 2).ok()?;
            at += 6;
            six.checked_sub(0x19)? + 3
        };
        number = number * 10 + digit;
    }
    Some(number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_must_of_the_protocol_holds() {
    let house = House::start(&[]);
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let target = RawServer::start(move |mut stream, _| {
        while let Some(head) = read_head(&mut stream) {
            counted.fetch_add(1, Ordering::SeqCst);
            if !body_of(&mut stream, &head)
                || stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .is_err()
            {
                return;
            }
        }
    });
    house.register("target", target.port(), json!({})).await;
    let mut faults = Vec::new();
    let all: Vec<Case> = [
        framing(),
        states(),
        windows_and_settings(),
        messages(),
        compression(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let count = all.len();
    for case in all {
        let mut peer = Peer::connect(house.address());
        peer.send(&case.bytes);
        let mut got = peer.until_ping(Duration::from_secs(5));
        if case.must == Answer && !got.iter().any(|g| g.kind == HEADERS) {
            got.extend(peer.until(Duration::from_secs(5), |g| g.kind == HEADERS));
        }
        if matches!(case.must, Refuse(_)) && judge(&case, &got, peer.closed).is_err() {
            // The answer to a malformed request may come from its task, behind the PING's.
            got.extend(peer.until(Duration::from_secs(2), |g| {
                matches!(g.kind, HEADERS | RST_STREAM | GOAWAY)
            }));
        }
        if matches!(case.must, End(_)) && !peer.closed {
            got.extend(peer.until(Duration::from_secs(2), |g| g.kind == GOAWAY));
        }
        faults.extend(judge(&case, &got, peer.closed).err());
    }
    assert!(
        faults.is_empty(),
        "{} of {count}:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert_eq!(house.get("/healthz").await.status, 200);
}

/// Reads the body that a head announces; false when it does not come.
fn body_of(stream: &mut std::net::TcpStream, head: &str) -> bool {
    use std::io::Read as _;
    let head = head.to_lowercase();
    if let Some((_, rest)) = head.split_once("content-length:") {
        let length: usize = rest
            .lines()
            .next()
            .and_then(|l| l.trim().parse().ok())
            .unwrap_or(0);
        return stream.read_exact(&mut vec![0; length]).is_ok();
    }
    if head.contains("transfer-encoding:") {
        let mut all = Vec::new();
        let mut byte = [0];
        let over = |all: &[u8]| {
            all.starts_with(b"0\r\n")
                || all.ends_with(b"0\r\n\r\n")
                || all.windows(5).any(|w| w == b"\r\n0\r\n")
        };
        while !over(&all) {
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return false;
            }
            all.push(byte[0]);
        }
        // Up to the empty line behind the trailers.
        while !all.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return false;
            }
            all.push(byte[0]);
        }
    }
    true
}

#[tokio::test]
async fn windows_are_kept_to_the_byte() {
    let house = House::start(&[]);
    let word = json!({ "path": { "exact": "/word" }, "target": { "fixed": { "status": 200, "body": "hello" } } });
    house.save("routes", "word", word).await;
    let mut peer = Peer::silent(house.address());
    peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    peer.send(&settings(&[(4, 1)]));
    peer.send(&get(1, "/word"));
    let got = peer.until(Duration::from_secs(5), |g| g.kind == DATA);
    assert_eq!(
        got.last().map(|g| g.payload.clone()),
        Some(b"h".to_vec()),
        "one byte, as the window allows"
    );
    // By a smaller setting the window becomes negative: one more byte of credit opens nothing yet.
    peer.send(&settings(&[(4, 0)]));
    peer.send(&window_update(1, 1));
    let got = peer.until_ping(Duration::from_secs(5));
    assert!(!got.iter().any(|g| g.kind == DATA), "{got:?}");
    peer.send(&window_update(1, 3));
    let mut text = Vec::new();
    while text.len() < 3 {
        let got = peer
            .next(Duration::from_secs(5))
            .expect("more of the answer");
        if got.kind == DATA {
            text.extend(got.payload);
        }
    }
    assert_eq!(text, b"ell");
    peer.send(&window_update(1, 100));
    let got = peer.until(Duration::from_secs(5), |g| {
        g.kind == DATA && g.flags & END_STREAM != 0
    });
    assert_eq!(
        got.iter()
            .filter(|g| g.kind == DATA)
            .flat_map(|g| g.payload.clone())
            .collect::<Vec<_>>(),
        b"o"
    );
}
