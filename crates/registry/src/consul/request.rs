//! A request as Consul reads it: decoded path, parameters, consistency, datacenter, blocking (C§1, C§2).

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use portico_base::Context;

use super::duration;
use super::reply::{Refused, Reply, refuse};

/// Longest wait of a blocking query.
const LONGEST_WAIT: Duration = Duration::from_mins(10);
/// Wait without a wish.
const DEFAULT_WAIT: Duration = Duration::from_mins(5);

/// The parameters of a query, in their order, decoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn parse(query: &str) -> Self {
        Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value, or an empty text.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Everything again as a query, in the order of names, as Go writes it.
    pub(crate) fn encode(&self) -> String {
        let mut sorted: Vec<&(String, String)> = self.0.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(sorted.into_iter().map(|(k, v)| (k, v)))
            .finish()
    }
}

/// How a read waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocking {
    /// 0 answers at once.
    pub index: u64,
    pub wait: Duration,
}

/// A request.
pub(crate) struct Request {
    pub method: Method,
    pub params: Params,
    pub headers: HeaderMap,
    /// In a lock only so that a request can be shared with its look-ups.
    body: Mutex<Option<Body>>,
    /// Whoever calls; set once access was granted.
    pub cx: Context,
}

/// What came instead of a request.
pub(crate) enum Odd {
    /// The path is not UTF-8.
    Unreadable,
    /// The path has doubled slashes or dots: where it leads.
    Unclean(String),
}

/// Decodes and cleans a path.
pub(crate) fn read_path(uri: &Uri) -> Result<String, Odd> {
    let decoded = percent_decode_str(uri.path())
        .decode_utf8()
        .map_err(|_| Odd::Unreadable)?
        .into_owned();
    match clean(&decoded) {
        None => Ok(decoded),
        Some(cleaned) => {
            let mut location = percent_encoding::utf8_percent_encode(&cleaned, PATH).to_string();
            if let Some(query) = uri.query() {
                location.push('?');
                location.push_str(query);
            }
            Err(Odd::Unclean(location))
        }
    }
}

/// Bytes of a path that Go's `URL.String` escapes.
const PATH: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The path without doubled slashes, `.` and `..`, when it has any.
fn clean(path: &str) -> Option<String> {
    let odd = path.contains("//") || path.split('/').any(|s| s == "." || s == "..");
    if !odd {
        return None;
    }
    let mut out: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    let tail = if path.ends_with('/') && !out.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{tail}", out.join("/")))
}

impl Request {
    pub(crate) fn new(
        method: Method,
        params: Params,
        headers: HeaderMap,
        body: Body,
        cx: Context,
    ) -> Self {
        Self {
            method,
            params,
            headers,
            body: Mutex::new(Some(body)),
            cx,
        }
    }

    /// Whether JSON is written for people.
    pub(crate) fn pretty(&self) -> bool {
        self.params.has("pretty")
    }

    /// JSON in the wished form.
    pub(crate) fn json<T: serde::Serialize + ?Sized>(&self, value: &T) -> Reply {
        Reply::json(value, self.pretty())
    }

    /// The body, at most `most` bytes; nothing when it is longer.
    pub(crate) async fn body(&mut self, most: usize) -> Result<Option<Bytes>, Refused> {
        let Some(body) = self.body.get_mut().take() else {
            return Ok(Some(Bytes::new()));
        };
        match Limited::new(body, most).collect().await {
            Ok(collected) => Ok(Some(collected.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Ok(None),
            Err(_) => refuse(400, "the body ended early"),
        }
    }

    /// The length that the request announces.
    pub(crate) fn announced(&self) -> Option<u64> {
        let value = self.headers.get(http::header::CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }

    /// Refuses other datacenters.
    pub(crate) fn datacenter(&self, own: &str) -> Result<(), Refused> {
        match self.params.text("dc") {
            "" => Ok(()),
            dc if dc == own => Ok(()),
            _ => refuse(500, "No path to datacenter"),
        }
    }

    /// Reads `?index`, `?wait` and the consistency, which has nothing to choose here.
    pub(crate) fn blocking(&self) -> Result<Blocking, Refused> {
        if self.params.has("stale") && self.params.has("consistent") {
            return refuse(
                400,
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            );
        }
        let wait = match self.params.text("wait") {
            "" => DEFAULT_WAIT,
            text => match duration::parse_wait(text) {
                Some(wait) => wait,
                None => return refuse(400, "Invalid wait time"),
            },
        };
        let index = match self.params.text("index") {
            "" => 0,
            text => match text.parse() {
                Ok(index) => index,
                Err(_) => return refuse(400, "Invalid index"),
            },
        };
        let wait = if wait.is_zero() {
            DEFAULT_WAIT
        } else {
            wait.min(LONGEST_WAIT)
        };
        Ok(Blocking { index, wait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, want) in [
            ("/v1/kv//lead", Some("/v1/kv/lead")),
            ("/v1/kv/a//", Some("/v1/kv/a/")),
            ("/v1/kv/a/../b", Some("/v1/kv/b")),
            ("/v1/kv/a/./b", Some("/v1/kv/a/b")),
            ("/v1/kv/a/", None),
            ("/v1/kv/a.b", None),
            ("/../..", Some("/")),
        ] {
            assert_eq!(clean(path).as_deref(), want, "{path}");
        }
        let uri: Uri = "/v1/kv//a%20b?x=1".parse().unwrap();
        assert!(matches!(read_path(&uri), Err(Odd::Unclean(to)) if to == "/v1/kv/a%20b?x=1"));
        let uri: Uri = "/v1/kv/a%2Fb%C3%A9".parse().unwrap();
        assert!(matches!(read_path(&uri), Ok(path) if path == "/v1/kv/a/bé"));
        let uri: Uri = "/v1/kv/%ff".parse().unwrap();
        assert!(matches!(read_path(&uri), Err(Odd::Unreadable)));
    }

    #[test]
    fn parameters_keep_their_order_and_are_written_sorted() {
        let params = Params::parse("cas=0&acquire=a+b&tag=x&tag=y&stale");
        assert_eq!(params.get("acquire"), Some("a b"));
        assert_eq!(params.all("tag").collect::<Vec<_>>(), ["x", "y"]);
        assert!(params.has("stale"));
        assert_eq!(params.encode(), "acquire=a+b&cas=0&stale=&tag=x&tag=y");
    }
}
