//! Changes of headers, query and status on the way (GW-26), with values that may name the principal and the request.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use indexmap::IndexMap;

use crate::objects::doc::{HeaderOps, QueryOps, TransformDoc};

/// A text with places to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    User,
    Tenant,
    RequestId,
    Param(Box<str>),
    /// `{path}`, `{query}`, `{host}` of redirects.
    Other(Box<str>),
}

/// What the places are filled with.
#[derive(Clone, Copy)]
pub struct Fill<'a> {
    pub user: &'a str,
    pub tenant: &'a str,
    pub request_id: &'a str,
    pub params: &'a [(&'a str, &'a str)],
    pub other: &'a [(&'a str, &'a str)],
}

impl Template {
    /// Splits a text; braces that name nothing known stay as they are.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let Some(close) = rest[open..].find('}') else {
                break;
            };
            let name = &rest[open + 1..open + close];
            let part = match name {
                "principal.user" => Part::User,
                "principal.tenant" => Part::Tenant,
                "request.id" => Part::RequestId,
                _ => match name.strip_prefix("route.") {
                    Some(param) => Part::Param(param.into()),
                    None => Part::Other(name.trim_start_matches('*').into()),
                },
            };
            if open > 0 {
                parts.push(Part::Text(rest[..open].into()));
            }
            parts.push(part);
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Self(parts.into())
    }

    /// The text with all places filled.
    #[must_use]
    pub fn fill(&self, with: &Fill<'_>) -> String {
        let find = |list: &[(&str, &str)], name: &str| {
            list.iter()
                .find(|(n, _)| *n == name)
                .map_or(String::new(), |(_, v)| (*v).to_owned())
        };
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.to_string(),
                Part::User => with.user.to_owned(),
                Part::Tenant => with.tenant.to_owned(),
                Part::RequestId => with.request_id.to_owned(),
                Part::Param(name) => find(with.params, name),
                Part::Other(name) => find(with.other, name),
            })
            .collect()
    }

    /// As a header's value; nothing when what was filled in cannot stand in one (CR, LF, NUL).
    #[must_use]
    pub fn header(&self, with: &Fill<'_>) -> Option<HeaderValue> {
        match &*self.0 {
            [Part::Text(text)] => HeaderValue::from_str(text).ok(),
            _ => HeaderValue::try_from(self.fill(with)).ok(),
        }
    }
}

/// A compiled document.
#[derive(Debug, Default)]
pub struct Transform {
    request: Ops,
    response: Ops,
    query: QueryOps,
    status: Box<[(u16, StatusCode)]>,
    pub force_security_headers: bool,
    pub frame_same_origin: bool,
}

#[derive(Debug, Default)]
struct Ops {
    rename: Box<[(HeaderName, HeaderName)]>,
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, Template)]>,
    add: Box<[(HeaderName, Template)]>,
}

impl Ops {
    fn compile(doc: &HeaderOps) -> Self {
        let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).ok();
        let values = |map: &IndexMap<String, String>| {
            map.iter()
                .filter_map(|(n, v)| Some((name(n)?, Template::parse(v))))
                .collect()
        };
        Self {
            rename: doc
                .rename
                .iter()
                .filter_map(|(a, b)| Some((name(a)?, name(b)?)))
                .collect(),
            remove: doc.remove.iter().filter_map(|n| name(n)).collect(),
            set: values(&doc.set),
            add: values(&doc.add),
        }
    }

    fn apply(&self, headers: &mut HeaderMap, with: &Fill<'_>) {
        for (from, to) in &self.rename {
            let values: Vec<HeaderValue> = headers.get_all(from).iter().cloned().collect();
            headers.remove(from);
            for value in values {
                headers.append(to.clone(), value);
            }
        }
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, template) in &self.set {
            match template.header(with) {
                Some(value) => headers.insert(name.clone(), value),
                None => headers.remove(name),
            };
        }
        for (name, template) in &self.add {
            if let Some(value) = template.header(with) {
                headers.append(name.clone(), value);
            }
        }
    }
}

impl Transform {
    #[must_use]
    pub fn compile(doc: &TransformDoc) -> Self {
        Self {
            request: Ops::compile(&doc.request_headers),
            response: Ops::compile(&doc.response_headers),
            query: doc.query.clone(),
            status: doc
                .status
                .iter()
                .filter_map(|(a, b)| Some((*a, StatusCode::from_u16(*b).ok()?)))
                .collect(),
            force_security_headers: doc.force_security_headers,
            frame_same_origin: doc.frame_same_origin,
        }
    }

    pub fn request(&self, headers: &mut HeaderMap, with: &Fill<'_>) {
        self.request.apply(headers, with);
    }

    pub fn response(&self, headers: &mut HeaderMap, with: &Fill<'_>) {
        self.response.apply(headers, with);
    }

    /// The status that the client gets.
    #[must_use]
    pub fn status(&self, status: StatusCode) -> StatusCode {
        self.status
            .iter()
            .find(|(from, _)| *from == status.as_u16())
            .map_or(status, |(_, to)| *to)
    }

    /// The query with its changes; nothing when there are none to make.
    #[must_use]
    pub fn query(&self, query: Option<&str>, with: &Fill<'_>) -> Option<String> {
        let ops = &self.query;
        if ops.rename.is_empty() && ops.remove.is_empty() && ops.set.is_empty() {
            return None;
        }
        let mut out = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
            let name = ops.rename.get(&*name).map_or(&*name, String::as_str);
            if !ops.remove.iter().any(|n| n == name) && !ops.set.contains_key(name) {
                out.append_pair(name, &value);
            }
        }
        for (name, value) in &ops.set {
            out.append_pair(name, &Template::parse(value).fill(with));
        }
        Some(out.finish())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WITH: Fill<'static> = Fill {
        user: "ann",
        tenant: "acme",
        request_id: "r1",
        params: &[("id", "7"), ("evil", "a\r\nX: y")],
        other: &[("path", "/x")],
    };

    #[test]
    fn templates_are_filled() {
        assert_eq!(
            Template::parse("{principal.user}@{principal.tenant} {request.id}/{route.id}{path}")
                .fill(&WITH),
            "ann@acme r1/7/x"
        );
        assert_eq!(Template::parse("plain { text").fill(&WITH), "plain { text");
        assert_eq!(Template::parse("").fill(&WITH), "");
        assert_eq!(
            Template::parse("{route.evil}").header(&WITH),
            None,
            "a line end never gets into a header"
        );
    }

    #[test]
    fn headers_query_and_status_change() {
        let doc = serde_json::from_value(json!({
            "request_headers": {"rename": {"X-A": "X-B"}, "remove": ["X-C"], "set": {"X-D": "{principal.user}"}, "add": {"X-E": "2"}},
            "query": {"rename": {"old": "new"}, "remove": ["gone"], "set": {"user": "{principal.user}"}},
            "status": {"404": 410}
        }));
        let transform = Transform::compile(&doc.expect("a document"));
        let mut headers: HeaderMap = [("x-a", "1"), ("x-c", "1"), ("x-d", "forged"), ("x-e", "1")]
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .into_iter()
            .collect();
        transform.request(&mut headers, &WITH);
        assert_eq!(
            (&headers["x-b"], &headers["x-d"]),
            (
                &HeaderValue::from_static("1"),
                &HeaderValue::from_static("ann")
            )
        );
        assert!(!headers.contains_key("x-a") && !headers.contains_key("x-c"));
        assert_eq!(headers.get_all("x-e").iter().count(), 2);
        let query = transform.query(Some("old=1&gone=2&user=forged&x=a%20b"), &WITH);
        assert_eq!(query.as_deref(), Some("new=1&x=a+b&user=ann"));
        assert_eq!(transform.status(StatusCode::NOT_FOUND), StatusCode::GONE);
        assert_eq!(Transform::default().query(Some("a=b"), &WITH), None);
    }
}
