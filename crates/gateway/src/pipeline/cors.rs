//! Cross-origin requests: preflights are answered here, answers get their headers (GW-24; WHATWG Fetch §3.2).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::objects::doc::CorsDoc;

/// Compiled rules of a group of routes.
#[derive(Debug)]
pub struct Cors {
    any: bool,
    origins: Box<[HeaderValue]>,
    methods: HeaderValue,
    headers: Box<[String]>,
    any_header: bool,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
    allowed_methods: Box<[Method]>,
}

impl Cors {
    #[must_use]
    pub fn compile(doc: &CorsDoc) -> Self {
        let join = |list: &[String]| {
            HeaderValue::try_from(list.join(", ")).unwrap_or(HeaderValue::from_static(""))
        };
        let any = doc.origins.iter().any(|o| o == "*");
        Self {
            any,
            origins: doc
                .origins
                .iter()
                .filter_map(|o| HeaderValue::from_str(o).ok())
                .collect(),
            methods: join(&doc.methods),
            headers: doc.headers.iter().map(|h| h.to_ascii_lowercase()).collect(),
            any_header: doc.headers.iter().any(|h| h == "*"),
            expose: (!doc.expose.is_empty()).then(|| join(&doc.expose)),
            // Never with a wildcard, whatever the document says.
            credentials: doc.credentials && !any,
            max_age: HeaderValue::from(doc.max_age_s),
            allowed_methods: doc
                .methods
                .iter()
                .filter_map(|m| Method::from_bytes(m.as_bytes()).ok())
                .collect(),
        }
    }

    /// True for origins that may use these routes.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || self.origins.contains(origin)
    }

    /// Headers of the answer to a preflight; nothing when the origin, method or a header is not allowed.
    #[must_use]
    pub fn preflight(&self, request: &HeaderMap) -> Option<HeaderMap> {
        let origin = request.get(ORIGIN)?;
        let method = request.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let method_fits = self
            .allowed_methods
            .iter()
            .any(|m| m.as_str().as_bytes() == method.as_bytes());
        let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let headers_fit = self.any_header
            || asked.is_none_or(|asked| {
                let names = asked
                    .to_str()
                    .unwrap_or("\u{0}")
                    .split(',')
                    .map(|n| n.trim().to_ascii_lowercase());
                names
                    .filter(|n| !n.is_empty())
                    .all(|n| self.headers.contains(&n) || is_safe_header(&n))
            });
        if !self.allows(origin) || !method_fits || !headers_fit {
            return None;
        }
        let mut out = HeaderMap::with_capacity(6);
        self.origin(&mut out, origin);
        out.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if let Some(asked) = asked {
            out.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        out.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let vary = "origin, access-control-request-method, access-control-request-headers";
        out.insert(VARY, HeaderValue::from_static(vary));
        Some(out)
    }

    /// Puts the headers into an answer; what a service said itself is replaced, so that there is one voice.
    pub fn apply(&self, request_origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            answer.remove(name);
        }
        if !self.any {
            answer.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = request_origin.filter(|o| self.allows(o)) else {
            return;
        };
        self.origin(answer, origin);
        if let Some(expose) = &self.expose {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn origin(&self, out: &mut HeaderMap, origin: &HeaderValue) {
        let value = if self.any {
            HeaderValue::from_static("*")
        } else {
            origin.clone()
        };
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
        if self.credentials {
            out.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

/// True for a preflight: `OPTIONS` with both headers that only browsers send together.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn is_safe_header(name: &str) -> bool {
    matches!(
        name,
        "accept" | "accept-language" | "content-language" | "content-type" | "range"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cors(doc: serde_json::Value) -> Cors {
        Cors::compile(&serde_json::from_value(doc).expect("a document"))
    }

    fn preflight(origin: &'static str, method: &'static str, headers: &'static str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(ORIGIN, HeaderValue::from_static(origin));
        map.insert(
            ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static(method),
        );
        if !headers.is_empty() {
            map.insert(
                ACCESS_CONTROL_REQUEST_HEADERS,
                HeaderValue::from_static(headers),
            );
        }
        map
    }

    #[test]
    fn preflights_are_exact() {
        let cors = cors(
            json!({"origins": ["https://a.example"], "methods": ["GET", "PUT"], "headers": ["X-Token"], "credentials": true}),
        );
        let good = cors
            .preflight(&preflight(
                "https://a.example",
                "PUT",
                "x-token, content-type",
            ))
            .expect("allowed");
        assert_eq!(good[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(good[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(good[ACCESS_CONTROL_MAX_AGE], "600");
        for (origin, method, headers) in [
            ("https://b.example", "PUT", ""),
            ("https://a.example.evil.test", "PUT", ""),
            ("null", "PUT", ""),
            ("https://a.example", "DELETE", ""),
            ("https://a.example", "PUT", "x-other"),
        ] {
            assert!(
                cors.preflight(&preflight(origin, method, headers))
                    .is_none(),
                "{origin} {method} {headers}"
            );
        }
    }

    #[test]
    fn answers_name_the_origin_or_nobody() {
        let exact = cors(json!({"origins": ["https://a.example"], "expose": ["X-A"]}));
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        exact.apply(
            Some(&HeaderValue::from_static("https://b.example")),
            &mut answer,
        );
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) && answer[VARY] == "origin");
        exact.apply(
            Some(&HeaderValue::from_static("https://a.example")),
            &mut answer,
        );
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "X-A");
        let any = cors(json!({"origins": ["*"], "credentials": true}));
        let mut answer = HeaderMap::new();
        any.apply(
            Some(&HeaderValue::from_static("https://b.example")),
            &mut answer,
        );
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
