//! Conditions of a route on method, headers and query.

use http::{HeaderMap, HeaderName, Method};
use regex::Regex;

use crate::objects::doc::FieldMatch;

/// Largest compiled expression in bytes; the engine runs in linear time whatever the text is.
const MAX_REGEX: usize = 64 * 1024;

/// Compiles an expression that must match a whole value.
///
/// # Errors
/// Says what is wrong with it, on one line.
pub fn regex(text: &str) -> Result<Regex, String> {
    let whole = format!("^(?:{text})$");
    regex::RegexBuilder::new(&whole)
        .size_limit(MAX_REGEX)
        .build()
        .map_err(|e| {
            let text = e.to_string();
            let last = text.lines().next_back().unwrap_or("is not an expression");
            last.trim_start_matches("error: ").to_owned()
        })
}

/// All conditions of one route.
#[derive(Debug, Default)]
pub struct Conditions {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Test)>,
    query: Vec<(Box<str>, Test)>,
}

#[derive(Debug)]
enum Test {
    Is(Box<str>),
    Regex(Regex),
    Present(bool),
}

impl Test {
    fn of(condition: &FieldMatch) -> Option<Self> {
        match condition {
            FieldMatch { is: Some(text), .. } => Some(Self::Is(text.as_str().into())),
            FieldMatch {
                regex: Some(text), ..
            } => regex(text).ok().map(Self::Regex),
            FieldMatch {
                present: Some(wanted),
                ..
            } => Some(Self::Present(*wanted)),
            _ => None,
        }
    }

    fn holds<'v>(&self, mut values: impl Iterator<Item = &'v str>) -> bool {
        match self {
            Self::Is(text) => values.any(|v| v == &**text),
            Self::Regex(regex) => values.any(|v| regex.is_match(v)),
            Self::Present(wanted) => values.next().is_some() == *wanted,
        }
    }
}

impl Conditions {
    /// Compiles conditions; nothing when one of them cannot be (the document was never checked).
    #[must_use]
    pub fn compile(
        methods: &[String],
        headers: &[FieldMatch],
        query: &[FieldMatch],
    ) -> Option<Self> {
        let methods = methods
            .iter()
            .map(|m| Method::from_bytes(m.as_bytes()).ok())
            .collect::<Option<_>>()?;
        let headers = headers
            .iter()
            .map(|c| {
                Some((
                    HeaderName::from_bytes(c.name.as_bytes()).ok()?,
                    Test::of(c)?,
                ))
            })
            .collect::<Option<_>>()?;
        let query = query
            .iter()
            .map(|c| Some((c.name.as_str().into(), Test::of(c)?)))
            .collect::<Option<_>>()?;
        Some(Self {
            methods,
            headers,
            query,
        })
    }

    /// How many there are: more conditions come first (GW-14).
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len()
    }

    /// True when the path alone decides.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// True when a request fits. `HEAD` fits wherever `GET` does (RFC 9110 §9.3.2).
    #[must_use]
    pub fn hold(&self, method: &Method, headers: &HeaderMap, query: Option<&str>) -> bool {
        let method_fits = self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET));
        method_fits
            && self.headers.iter().all(|(name, test)| {
                test.holds(headers.get_all(name).iter().filter_map(|v| v.to_str().ok()))
            })
            && self.query.iter().all(|(name, test)| {
                let pairs: Vec<_> =
                    url::form_urlencoded::parse(query.unwrap_or("").as_bytes()).collect();
                test.holds(
                    pairs
                        .iter()
                        .filter(|(n, _)| **n == **name)
                        .map(|(_, v)| &**v),
                )
            })
    }

    /// The methods, for a preflight's look-up and for the editor.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(
        name: &str,
        is: Option<&str>,
        regex: Option<&str>,
        present: Option<bool>,
    ) -> FieldMatch {
        FieldMatch {
            name: name.into(),
            is: is.map(Into::into),
            regex: regex.map(Into::into),
            present,
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let conditions = Conditions::compile(
            &["GET".to_owned()],
            &[
                field("x-a", None, Some("v[0-9]+"), None),
                field("x-b", None, None, Some(false)),
            ],
            &[field("q", Some("1 2"), None, None)],
        )
        .unwrap();
        assert_eq!(conditions.count(), 4);
        let mut headers = HeaderMap::new();
        headers.insert("x-a", "v12".parse().unwrap());
        assert!(conditions.hold(&Method::GET, &headers, Some("q=1+2")));
        assert!(conditions.hold(&Method::HEAD, &headers, Some("a=b&q=1%202")));
        assert!(!conditions.hold(&Method::POST, &headers, Some("q=1+2")));
        assert!(!conditions.hold(&Method::GET, &headers, None));
        headers.insert("x-b", "".parse().unwrap());
        assert!(!conditions.hold(&Method::GET, &headers, Some("q=1+2")));
        headers.remove("x-b");
        headers.insert("x-a", "xv12".parse().unwrap());
        assert!(!conditions.hold(&Method::GET, &headers, Some("q=1+2")));
        assert!(
            regex("(").is_err()
                && Conditions::compile(&[], &[field("x", None, Some("("), None)], &[]).is_none()
        );
    }
}
