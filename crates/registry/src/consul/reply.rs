//! Answers in Consul's form: bare sentences, JSON without a final newline, index headers (C§1).

use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use portico_base::Fault;
use serde::Serialize;

use crate::error::Error;

/// Bodies below this size are not worth compressing.
const WORTH: usize = 1_024;

/// An answer to be written.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The connection ends with it: a body was left unread.
    pub close: bool,
}

/// An answer that ends a request early.
pub(crate) struct Refused(pub Box<Reply>);

/// What handlers answer.
pub(crate) type Answer = Result<Reply, Refused>;

impl Reply {
    /// 200 without a body and without a Content-Type.
    pub(crate) fn empty() -> Self {
        Self::bare(StatusCode::OK)
    }

    /// A status alone.
    pub(crate) fn bare(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            close: false,
        }
    }

    /// A sentence.
    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Bytes::from(text.into());
        Self {
            body,
            ..Self::bare(status)
        }
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// JSON, compact or for people.
    pub(crate) fn json<T: Serialize + ?Sized>(value: &T, pretty: bool) -> Self {
        let body = if pretty {
            write_pretty(value)
        } else {
            serde_json::to_vec(value).ok()
        };
        match body {
            Some(body) => Self {
                body: Bytes::from(body),
                ..Self::bare(StatusCode::OK)
            }
            .header(CONTENT_TYPE, "application/json"),
            None => Self::text(500, "the answer cannot be written as JSON"),
        }
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn named(self, name: &'static str, value: &str) -> Self {
        self.header(HeaderName::from_static(name), value)
    }

    /// 301 to the same path without doubled slashes.
    pub(crate) fn moved(location: &str) -> Self {
        Self::bare(StatusCode::MOVED_PERMANENTLY).header(LOCATION, location)
    }

    /// The response on the wire, compressed when the client takes it.
    pub(crate) fn finish(mut self, gzip: bool) -> Response<Body> {
        self.headers
            .insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if self.body.len() >= WORTH
            && !self.headers.contains_key(CONTENT_ENCODING)
            && gzip
            && let Some(small) = compress(&self.body)
        {
            self.body = Bytes::from(small);
            self.headers
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if self.close {
            self.headers
                .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// An answer that refuses with a sentence.
pub(crate) fn refuse<T>(status: u16, text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(Box::new(Reply::text(status, text))))
}

/// 403 as Consul's ACL says it.
pub(crate) fn denied<T>() -> Result<T, Refused> {
    refuse(403, "Permission denied")
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let (status, text) = match &error {
            Error::Unauthenticated | Error::Missing(_) | Error::NameOwned => {
                (403, "Permission denied".to_owned())
            }
            Error::NotAllowed { reason, faults } => {
                let why: Vec<String> = faults
                    .iter()
                    .map(|f| format!("{}: {}", f.field, f.message))
                    .collect();
                let detail = if why.is_empty() {
                    reason.clone()
                } else {
                    why.join("; ")
                };
                (403, format!("Permission denied: {detail}"))
            }
            Error::Invalid { faults, .. } => {
                let why: Vec<String> = faults
                    .iter()
                    .map(|f| format!("{}: {}", f.field, f.message))
                    .collect();
                (400, format!("Invalid registration: {}", why.join("; ")))
            }
            Error::TooManyInstances | Error::TooManyWatchers => (429, error.to_string()),
            Error::Db(portico_db::DbError::BadText) => (400, error.to_string()),
            other => {
                if other.kind() == portico_base::ErrorKind::Internal {
                    tracing::error!(err = %other, "a request of the Consul API failed");
                    (500, "internal error".to_owned())
                } else {
                    (500, other.to_string())
                }
            }
        };
        Self(Box::new(Reply::text(status, text)))
    }
}

impl From<portico_db::DbError> for Refused {
    fn from(error: portico_db::DbError) -> Self {
        Self::from(Error::from(error))
    }
}

fn write_pretty<T: Serialize + ?Sized>(value: &T) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).ok()?;
    out.push(b'\n');
    Some(out)
}

/// Whether a client takes answers with gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let name = pieces.next().unwrap_or_default();
            let refused = pieces.any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            name.eq_ignore_ascii_case("gzip") && !refused
        })
}

fn compress(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).ok()?;
    encoder
        .finish()
        .ok()
        .filter(|small| small.len() < body.len())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn json_is_compact_or_pretty() {
        let value = serde_json::json!({"a": [1, 2], "b": {}});
        assert_eq!(
            Reply::json(&value, false).body,
            Bytes::from_static(b"{\"a\":[1,2],\"b\":{}}")
        );
        let pretty = Reply::json(&value, true).body;
        assert_eq!(
            pretty,
            "{\n    \"a\": [\n        1,\n        2\n    ],\n    \"b\": {}\n}\n"
        );
    }

    #[test]
    fn large_bodies_are_compressed_for_those_who_take_it() {
        let value = vec!["text"; 1_000];
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT_ENCODING,
            HeaderValue::from_static("deflate, gzip;q=0.5"),
        );
        let reply = Reply::json(&value, false);
        let whole = reply.body.clone();
        let response = reply.finish(accepts_gzip(&headers));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let small = compress(&whole).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&*small)
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, whole);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
        let plain = Reply::json(&value, false).finish(accepts_gzip(&headers));
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(plain.headers()[VARY], "Accept-Encoding");
    }
}
