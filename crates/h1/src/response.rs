//! Heads of answers.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};
use memchr::memchr;

use crate::fields::{Facts, read_fields};
use crate::{Error, Framing};

/// An answer's head, with what belongs to the hop taken out of its headers.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub framing: Framing,
    /// The connection can carry another request when the body has ended.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=N`, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// The protocol switched to; only with 101.
    pub upgrade: Option<HeaderValue>,
}

/// Parses a whole head as found by [`crate::HeadScan`], of the answer to a request with `method`.
///
/// # Errors
/// Whatever is not exactly as RFC 9112 wants it; the connection cannot be used further.
pub fn parse_response(head: &Bytes, method: &Method) -> Result<ResponseHead, Error> {
    let lf = memchr(b'\n', head).ok_or(Error::StatusLine)?;
    let (version, status) = read_status_line(&head[..lf.saturating_sub(1)])?;
    let (mut headers, facts) = read_fields(head, lf + 1, 16)?;
    let framing = response_framing(&facts, status, version, method)?;
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    let wants = if version == Version::HTTP_11 {
        !facts.close
    } else {
        facts.keep_alive && !facts.close
    };
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    Ok(ResponseHead {
        status,
        version,
        headers,
        framing,
        keep_alive: wants && framing != Framing::UntilClose && !switching,
        keep_alive_timeout: facts.keep_alive_timeout,
        upgrade: facts
            .upgrade
            .filter(|_| switching && facts.connection_upgrade),
    })
}

fn read_status_line(line: &[u8]) -> Result<(Version, StatusCode), Error> {
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::HTTP_11,
        Some(b"HTTP/1.0 ") => Version::HTTP_10,
        _ => return Err(Error::StatusLine),
    };
    let digits = line.get(9..12).ok_or(Error::StatusLine)?;
    let reason_ok = match line.get(12) {
        None => true,
        Some(b' ') => line[13..]
            .iter()
            .all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f)),
        Some(_) => false,
    };
    if !reason_ok || !digits.iter().all(u8::is_ascii_digit) || !(b'1'..=b'5').contains(&digits[0]) {
        return Err(Error::StatusLine);
    }
    StatusCode::from_bytes(digits)
        .map(|status| (version, status))
        .map_err(|_| Error::StatusLine)
}

fn response_framing(
    facts: &Facts,
    status: StatusCode,
    version: Version,
    method: &Method,
) -> Result<Framing, Error> {
    if facts.is_encoded() && version == Version::HTTP_10 {
        return Err(Error::EncodingInHttp10);
    }
    let announces = facts.chunked || facts.length.is_some_and(|n| n > 0);
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return if announces {
            Err(Error::UnexpectedBody)
        } else {
            Ok(Framing::None)
        };
    }
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::None);
    }
    Ok(match (facts.chunked, facts.length) {
        (true, _) => Framing::Chunked,
        (false, Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    })
}
