//! Heads of requests.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Version};
use memchr::memchr;

use crate::fields::{Facts, read_fields};
use crate::{Error, Framing, host};

/// A request's head, with what belongs to the hop taken out of its headers.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    /// Origin form, or `*`. An absolute target's authority is in `Host` (RFC 9112 §3.2.2).
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub framing: Framing,
    /// The client wants the connection kept.
    pub keep_alive: bool,
    /// `Expect: 100-continue` was sent and may be answered.
    pub expect_continue: bool,
    /// The protocol to switch to, when asked for properly.
    pub upgrade: Option<HeaderValue>,
}

/// Parses a whole head as found by [`crate::HeadScan`]; header values share its memory.
///
/// # Errors
/// Whatever is not exactly as RFC 9112 wants it.
pub fn parse_request(head: &Bytes) -> Result<RequestHead, Error> {
    let lf = memchr(b'\n', head).ok_or(Error::RequestLine)?;
    let line = &head[..lf.saturating_sub(1)];
    let first = memchr(b' ', line).ok_or(Error::RequestLine)?;
    let second = first + 1 + memchr(b' ', &line[first + 1..]).ok_or(Error::RequestLine)?;
    let method = Method::from_bytes(&line[..first]).map_err(|_| Error::Method)?;
    let version = read_version(&line[second + 1..])?;
    if method == Method::CONNECT {
        return Err(Error::Connect);
    }
    let (mut headers, facts) = read_fields(head, lf + 1, 16)?;
    check_host(&headers, &facts, version)?;
    let uri = read_target(head.slice(first + 1..second), &method, &mut headers)?;
    let framing = request_framing(&facts, version)?;
    let expect_continue = read_expect(&facts, version)?;
    let keep_alive = if version == Version::HTTP_11 {
        !facts.close
    } else {
        facts.keep_alive && !facts.close
    };
    // Other protocols, h2c among them, are not switched to: the field is dropped (RFC 9110 §7.8).
    let upgrade = facts
        .upgrade
        .filter(|_| {
            facts.connection_upgrade && version == Version::HTTP_11 && method == Method::GET
        })
        .filter(|p| p.as_bytes().eq_ignore_ascii_case(b"websocket"));
    Ok(RequestHead {
        method,
        uri,
        version,
        headers,
        framing,
        keep_alive,
        expect_continue,
        upgrade,
    })
}

fn read_version(bytes: &[u8]) -> Result<Version, Error> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Error::Version)
        }
        _ => Err(Error::RequestLine),
    }
}

fn check_host(headers: &HeaderMap, facts: &Facts, version: Version) -> Result<(), Error> {
    match facts.hosts {
        0 if version == Version::HTTP_10 => return Ok(()),
        0 => return Err(Error::MissingHost),
        1 => {}
        _ => return Err(Error::DuplicateHost),
    }
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .ok_or(Error::InvalidHost)?;
    if host::is_valid_host(host) {
        Ok(())
    } else {
        Err(Error::InvalidHost)
    }
}

fn read_target(target: Bytes, method: &Method, headers: &mut HeaderMap) -> Result<Uri, Error> {
    // A fragment never travels; bytes that are not ASCII must be percent-encoded.
    if target
        .iter()
        .any(|b| !(0x21..=0x7e).contains(b) || *b == b'#')
    {
        return Err(Error::Target);
    }
    match target.first() {
        Some(b'/') => Ok(Uri::from(
            PathAndQuery::from_maybe_shared(target).map_err(|_| Error::Target)?,
        )),
        Some(b'*') if target.len() == 1 && *method == Method::OPTIONS => Ok(Uri::from_static("*")),
        Some(_) => read_absolute(target, headers),
        None => Err(Error::RequestLine),
    }
}

fn read_absolute(target: Bytes, headers: &mut HeaderMap) -> Result<Uri, Error> {
    let uri = Uri::from_maybe_shared(target).map_err(|_| Error::Target)?;
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Error::Target);
    };
    if !host::is_valid_host(authority.as_str()) {
        return Err(Error::InvalidHost);
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Error::InvalidHost)?;
    headers.insert(header::HOST, host);
    Ok(Uri::from(
        uri.into_parts()
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
    ))
}

fn request_framing(facts: &Facts, version: Version) -> Result<Framing, Error> {
    if facts.is_encoded() && version == Version::HTTP_10 {
        return Err(Error::EncodingInHttp10);
    }
    Ok(match (facts.chunked, facts.length) {
        (true, _) => Framing::Chunked,
        (false, Some(0) | None) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
    })
}

fn read_expect(facts: &Facts, version: Version) -> Result<bool, Error> {
    match &facts.expect {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Ok(version == Version::HTTP_11)
        }
        Some(_) => Err(Error::Expectation),
    }
}
