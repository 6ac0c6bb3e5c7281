//! Serialising heads, chunks and trailers into memory that the caller lends.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};

use crate::Framing;

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Bytes that [`chunk_prefix`] needs at most.
pub const CHUNK_PREFIX_MAX: usize = 18;

/// The head does not fit into the memory lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the head does not fit into its buffer")]
pub struct Overflow;

/// A request to be written: its line and the hop's own fields.
pub struct RequestLine<'a> {
    pub method: &'a Method,
    /// Only path and query are written.
    pub uri: &'a Uri,
    pub framing: Framing,
    /// The protocol to ask for with `Connection: upgrade`.
    pub upgrade: Option<&'a HeaderValue>,
}

/// The hop's own fields of an answer.
pub struct ResponseOptions<'a> {
    pub framing: Framing,
    /// Written when the headers have no `Date`.
    pub date: &'a [u8],
    pub connection: Connection<'a>,
    /// The answer is to `HEAD`, or a 304: `Content-Length` of the headers is kept.
    pub keep_length: bool,
}

/// What `Connection` says in an answer.
#[derive(Clone, Copy)]
pub enum Connection<'a> {
    /// Nothing: the default of HTTP/1.1, keep.
    Keep,
    /// `keep-alive`, for HTTP/1.0.
    KeepAlive,
    Close,
    /// 101.
    To(&'a HeaderValue),
}

/// Writes a request's head into `room`; gives its length. `Connection`, framing and other fields of
/// the hop in `headers` are left out.
///
/// # Errors
/// [`Overflow`] when `room` is too small.
pub fn write_request(
    room: &mut [u8],
    line: &RequestLine<'_>,
    headers: &HeaderMap,
) -> Result<usize, Overflow> {
    let mut out = Out { room, at: 0 };
    out.put(line.method.as_str().as_bytes())?;
    out.put(b" ")?;
    out.put(
        line.uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
            .as_bytes(),
    )?;
    out.put(b" HTTP/1.1\r\n")?;
    for (name, value) in headers {
        if !is_hop(name) {
            out.field(name, value)?;
        }
    }
    match line.framing {
        // A body of zero bytes is said to be so where a body is usual (RFC 9110 §8.6).
        Framing::None if matches!(*line.method, Method::POST | Method::PUT | Method::PATCH) => {
            out.put(b"content-length: 0\r\n")?
        }
        Framing::None | Framing::UntilClose => {}
        Framing::Length(n) => out.length(n)?,
        Framing::Chunked => out.put(b"transfer-encoding: chunked\r\n")?,
    }
    if let Some(protocol) = line.upgrade {
        out.put(b"connection: upgrade\r\n")?;
        out.field(&header::UPGRADE, protocol)?;
    }
    out.put(b"\r\n")?;
    Ok(out.at)
}

/// Writes an answer's head into `room`; gives its length.
///
/// # Errors
/// [`Overflow`] when `room` is too small.
pub fn write_response(
    room: &mut [u8],
    status: StatusCode,
    headers: &HeaderMap,
    options: &ResponseOptions<'_>,
) -> Result<usize, Overflow> {
    let mut out = Out { room, at: 0 };
    if status == StatusCode::OK {
        out.put(b"HTTP/1.1 200 OK\r\n")?;
    } else {
        out.put(b"HTTP/1.1 ")?;
        out.put(status.as_str().as_bytes())?;
        out.put(b" ")?;
        out.put(status.canonical_reason().unwrap_or("").as_bytes())?;
        out.put(b"\r\n")?;
    }
    let mut dated = false;
    for (name, value) in headers {
        if is_hop(name) && !(options.keep_length && *name == header::CONTENT_LENGTH) {
            continue;
        }
        dated |= *name == header::DATE;
        out.field(name, value)?;
    }
    if !dated {
        out.put(b"date: ")?;
        out.put(options.date)?;
        out.put(b"\r\n")?;
    }
    let bodiless =
        options.keep_length || status.is_informational() || status == StatusCode::NO_CONTENT;
    match options.framing {
        Framing::None if bodiless => {}
        Framing::None => out.put(b"content-length: 0\r\n")?,
        Framing::Length(n) => out.length(n)?,
        Framing::Chunked => out.put(b"transfer-encoding: chunked\r\n")?,
        Framing::UntilClose => {}
    }
    match options.connection {
        Connection::Keep => {}
        Connection::KeepAlive => out.put(b"connection: keep-alive\r\n")?,
        Connection::Close => out.put(b"connection: close\r\n")?,
        Connection::To(protocol) => {
            out.put(b"connection: upgrade\r\n")?;
            out.field(&header::UPGRADE, protocol)?;
        }
    }
    out.put(b"\r\n")?;
    Ok(out.at)
}

/// Writes the last chunk with `trailers`; forbidden ones are left out.
#[must_use]
pub fn write_trailers(trailers: &HeaderMap) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    for (name, value) in trailers {
        if !crate::is_forbidden_trailer(name) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The line before a chunk of `len` bytes; `CRLF` follows the data.
pub fn chunk_prefix(len: usize, room: &mut [u8; CHUNK_PREFIX_MAX]) -> &[u8] {
    let mut at = CHUNK_PREFIX_MAX - 2;
    room[at..].copy_from_slice(b"\r\n");
    let mut left = len;
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            return &room[at..];
        }
    }
}

/// Fields that are made anew for each hop (RFC 9110 §7.6.1). `TE: trailers` passes: the parser has
/// removed everything else of it.
fn is_hop(name: &HeaderName) -> bool {
    match name.as_str().len() {
        7 => *name == header::UPGRADE,
        10 => *name == header::CONNECTION || name.as_str() == "keep-alive",
        14 => *name == header::CONTENT_LENGTH,
        16 => name.as_str() == "proxy-connection",
        17 => *name == header::TRANSFER_ENCODING,
        _ => false,
    }
}

struct Out<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        let end = self.at + bytes.len();
        self.room
            .get_mut(self.at..end)
            .ok_or(Overflow)?
            .copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    fn field(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Overflow> {
        self.put(name.as_str().as_bytes())?;
        self.put(b": ")?;
        self.put(value.as_bytes())?;
        self.put(b"\r\n")
    }

    fn length(&mut self, n: u64) -> Result<(), Overflow> {
        self.put(b"content-length: ")?;
        self.put(itoa::Buffer::new().format(n).as_bytes())?;
        self.put(b"\r\n")
    }
}
