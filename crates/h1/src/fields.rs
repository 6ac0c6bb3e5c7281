//! Header lines: strict reading, and what they say about framing and the connection.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use crate::Error;

/// What a header block says about its own message and hop.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) length: Option<u64>,
    /// `Transfer-Encoding: chunked`, exactly once.
    pub(crate) chunked: bool,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) connection_upgrade: bool,
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) expect: Option<HeaderValue>,
    pub(crate) keep_alive_timeout: Option<u32>,
    pub(crate) hosts: u8,
    encoded: bool,
    nominated: Vec<HeaderName>,
    te: bool,
    te_trailers: bool,
}

/// Reads the lines of `head[at..]` (whose last line is the empty one) into a map whose values share
/// `head`'s memory. Fields of the hop are left out of the map; `Content-Length` stays in it.
pub(crate) fn read_fields(
    head: &Bytes,
    mut at: usize,
    count_hint: usize,
) -> Result<(HeaderMap, Facts), Error> {
    let mut map = HeaderMap::with_capacity(count_hint);
    let mut facts = Facts::default();
    loop {
        let rest = &head[at..];
        // The scan saw that every line ends in CRLF.
        let Some(lf) = memchr(b'\n', rest) else {
            return Err(Error::BareLf);
        };
        let line = &rest[..lf.saturating_sub(1)];
        if line.is_empty() {
            break;
        }
        let (name, start, end) = read_line(line)?;
        let value = HeaderValue::from_maybe_shared(head.slice(at + start..at + end))
            .map_err(|_| Error::FieldValue)?;
        // RFC 9112 allows a tab there, but not everybody takes it away: two readings, so none.
        if name == header::TRANSFER_ENCODING && line.contains(&b'\t') {
            return Err(Error::TransferEncoding);
        }
        if facts.note(&name, &value)? {
            map.try_append(name, value)
                .map_err(|_| Error::TooManyFields)?;
        }
        at += lf + 1;
    }
    facts.finish(&mut map)?;
    Ok((map, facts))
}

/// Splits one line; the value's bounds are without the white space around it.
pub(crate) fn read_line(line: &[u8]) -> Result<(HeaderName, usize, usize), Error> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Error::ObsFold);
    }
    let colon = memchr(b':', line).ok_or(Error::FieldName)?;
    if colon > 0 && matches!(line[colon - 1], b' ' | b'\t') {
        return Err(Error::SpaceBeforeColon);
    }
    let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Error::FieldName)?;
    let mut start = colon + 1;
    let mut end = line.len();
    while start < end && matches!(line[start], b' ' | b'\t') {
        start += 1;
    }
    while end > start && matches!(line[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    Ok((name, start, end))
}

impl Facts {
    /// Takes note of one field; says whether it goes into the map.
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, Error> {
        // The length sorts out nearly all fields before any comparison of names.
        match name.as_str().len() {
            2 if *name == header::TE => {
                self.te = true;
                self.te_trailers |= tokens(value).any(|t| t.eq_ignore_ascii_case("trailers"));
                return Ok(false);
            }
            4 if *name == header::HOST => self.hosts = self.hosts.saturating_add(1),
            6 if *name == header::EXPECT => {
                self.expect = Some(value.clone());
                return Ok(false);
            }
            7 if *name == header::UPGRADE => {
                self.upgrade = Some(value.clone());
                return Ok(false);
            }
            10 if *name == header::CONNECTION => {
                self.note_connection(value)?;
                return Ok(false);
            }
            10 if name.as_str() == "keep-alive" => {
                self.keep_alive_timeout = keep_alive_timeout(value);
                return Ok(false);
            }
            14 if *name == header::CONTENT_LENGTH => {
                if self.length.is_some() {
                    return Err(Error::DuplicateLength);
                }
                self.length = Some(read_length(value.as_bytes())?);
            }
            16 if name.as_str() == "proxy-connection" => return Ok(false),
            17 if *name == header::TRANSFER_ENCODING => {
                self.note_encoding(value.as_bytes())?;
                return Ok(false);
            }
            18 if *name == header::PROXY_AUTHENTICATE => return Ok(false),
            19 if *name == header::PROXY_AUTHORIZATION => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn note_connection(&mut self, value: &HeaderValue) -> Result<(), Error> {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case("close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case("upgrade") {
                self.connection_upgrade = true;
            } else {
                self.nominated
                    .push(HeaderName::from_bytes(token.as_bytes()).map_err(|_| Error::FieldName)?);
            }
        }
        Ok(())
    }

    fn note_encoding(&mut self, value: &[u8]) -> Result<(), Error> {
        if std::mem::replace(&mut self.encoded, true) {
            return Err(Error::TransferEncoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        // A single well-formed coding that is not ours is 501; anything stranger is an attack.
        let token = !value.is_empty()
            && value
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        Err(if token {
            Error::UnknownEncoding
        } else {
            self.list_of_codings(value)
        })
    }

    fn list_of_codings(&self, value: &[u8]) -> Error {
        let known = |t: &[u8]| {
            [
                &b"gzip"[..],
                b"x-gzip",
                b"deflate",
                b"compress",
                b"x-compress",
                b"br",
                b"zstd",
            ]
            .contains(&t)
        };
        let unknown = value
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .any(|t| known(&t.to_ascii_lowercase()));
        if unknown {
            Error::UnknownEncoding
        } else {
            Error::TransferEncoding
        }
    }

    fn finish(&mut self, map: &mut HeaderMap) -> Result<(), Error> {
        if self.encoded && self.length.is_some() {
            return Err(Error::LengthAndEncoding);
        }
        for name in &self.nominated {
            if is_protected(name) {
                return Err(Error::ConnectionNominates);
            }
            while map.remove(name).is_some() {}
        }
        if self.te && self.te_trailers {
            map.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Ok(())
    }

    /// True when any `Transfer-Encoding` was there.
    pub(crate) fn is_encoded(&self) -> bool {
        self.encoded
    }
}

/// Fields whose removal would change who asks, for what, or how long the message is.
fn is_protected(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "authorization"
            | "host"
            | "content-length"
            | "cookie"
            | "forwarded"
            | "x-real-ip"
            | "x-request-id"
            | "x-api-key"
    ) || name.starts_with("x-portico-")
        || name.starts_with("x-forwarded-")
}

/// The members of a comma-separated list; a value that is not text has none.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
}

/// One decimal number of at most 2⁶³ − 1.
fn read_length(value: &[u8]) -> Result<u64, Error> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Error::ContentLength);
    }
    let mut length: u64 = 0;
    for digit in value {
        length = length
            .checked_mul(10)
            .and_then(|n| n.checked_add(u64::from(digit - b'0')))
            .filter(|n| *n <= i64::MAX as u64)
            .ok_or(Error::ContentLength)?;
    }
    Ok(length)
}

fn keep_alive_timeout(value: &HeaderValue) -> Option<u32> {
    tokens(value).find_map(|t| {
        t.split_once('=')
            .filter(|(k, _)| k.trim().eq_ignore_ascii_case("timeout"))?
            .1
            .trim()
            .parse()
            .ok()
    })
}
