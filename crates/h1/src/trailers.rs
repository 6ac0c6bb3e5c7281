//! Trailer sections: which fields may be in one, and reading them.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use crate::fields::read_line;
use crate::{Error, Limits};

/// Reads whole trailer lines, leaving out fields that a trailer must not set.
///
/// # Errors
/// A malformed line, or too many.
pub fn parse_trailers(section: Vec<u8>) -> Result<HeaderMap, Error> {
    let section = Bytes::from(section);
    let mut map = HeaderMap::new();
    let (mut at, mut count) = (0, 0);
    while let Some(lf) = memchr(b'\n', &section[at..]) {
        let line = &section[at..at + lf.saturating_sub(1)];
        if line.is_empty() {
            return Err(Error::Trailer);
        }
        let (name, start, end) = read_line(line).map_err(|_| Error::Trailer)?;
        let value = HeaderValue::from_maybe_shared(section.slice(at + start..at + end))
            .map_err(|_| Error::Trailer)?;
        count += 1;
        if count > Limits::default().fields {
            return Err(Error::TrailerTooLarge);
        }
        if !is_forbidden_trailer(&name) {
            map.try_append(name, value)
                .map_err(|_| Error::TrailerTooLarge)?;
        }
        at += lf + 1;
    }
    Ok(map)
}

/// True for fields about framing, routing, authentication, cookies and how content is read, which
/// must not arrive behind the body (RFC 9110 §6.5.1).
#[must_use]
pub fn is_forbidden_trailer(name: &HeaderName) -> bool {
    let name = name.as_str();
    const PREFIXES: [&str; 6] = [
        "x-portico-",
        "x_portico_",
        "x-forwarded-",
        "proxy-",
        "access-control-",
        "if-",
    ];
    PREFIXES.iter().any(|p| name.starts_with(p))
        || matches!(
            name,
            "age"
                | "authorization"
                | "cache-control"
                | "connection"
                | "content-encoding"
                | "content-length"
                | "content-range"
                | "content-type"
                | "cookie"
                | "date"
                | "expect"
                | "expires"
                | "forwarded"
                | "host"
                | "keep-alive"
                | "location"
                | "max-forwards"
                | "pragma"
                | "range"
                | "retry-after"
                | "set-cookie"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "vary"
                | "via"
                | "www-authenticate"
                | "x-api-key"
                | "x-real-ip"
                | "x-request-id"
        )
}
