//! `/explain`: what a request would meet, step by step, without being sent.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::State;
use http::{HeaderMap, Method, Uri, header};
use portico_base::{Access, FieldFault, Permission};
use portico_web::{ApiResult, Cx, Json, Query, Routes, routes};
use serde::Deserialize;

use super::Api;
use crate::error::Error;
use crate::explaining;
use crate::pipeline::operate::Audience;
use crate::route::explain::{Explanation, Question};

/// Longest address.
const LONGEST: usize = 8_192;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Method; GET when absent.
    method: Option<String>,
    /// Address with or without scheme and host (`/api/hello/x?y=1`); without a host the one of this
    /// request is meant.
    url: String,
    /// Who would send it: `me` (the default), `anonymous`, `operator`, or
    /// `user;sub=alice;tenant=default;roles=editor,admin;scopes=…;permissions=notes:note:write;aal=2`.
    principal: Option<String>,
    /// From which address; the caller's own when absent.
    #[param(value_type = Option<String>)]
    address: Option<String>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = Permission::new("gateway:route:read");
    let write = Permission::new("gateway:route:write");
    all.add(Access::AnyOf(vec![read, write]), routes!(explain))
}

/// Explain a request
///
/// Which route, access checks, limits, cache rule, version and instance a request would meet, and why,
/// without sending it.
#[utoipa::path(get, path = "/explain", tag = "gateway", params(Asked), responses((status = 200, body = Explanation)))]
async fn explain(
    State(api): State<Api>,
    Cx(cx): Cx,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> ApiResult<Json<Explanation>> {
    let principal = explaining::principal(
        asked.principal.as_deref().unwrap_or_default(),
        cx.principal(),
    )?;
    let method = method(asked.method.as_deref())?;
    let url = address(&asked.url)?;
    let own = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let from = from(asked.address.as_deref(), cx.caller.address)?;
    let gate = api.breakers.topology.gate()?;
    let question = Question {
        method: &method,
        host: url.authority().map_or(own.unwrap_or(""), |a| a.as_str()),
        path: url.path(),
        query: url.query(),
        headers: &HeaderMap::new(),
        principal: &principal,
        address: from,
        now_ms: 0,
    };
    let mut told = gate.explain(&question, cx.now());
    if let Some(builtins) = api.builtins.get() {
        explaining::builtin(
            &mut told,
            builtins,
            &method,
            &principal,
            cx.now().timestamp(),
        );
    }
    if Audience::of(cx.principal()) != Audience::All {
        // Where instances of the house are is for those who run it.
        told.instances.iter_mut().for_each(|i| i.address.clear());
    }
    Ok(Json(told))
}

fn method(text: Option<&str>) -> Result<Method, Error> {
    let text = text.unwrap_or("GET");
    Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|m| m.as_str().bytes().all(|b| b.is_ascii_uppercase()) && text.len() <= 20)
        .ok_or_else(|| Error::field("method", "invalid", "must be a method in upper case"))
}

fn address(text: &str) -> Result<Uri, Error> {
    let fault = || {
        let message = "must be an http or https address, or begin with a slash";
        Error::Invalid(vec![FieldFault::new("url", "invalid", message)])
    };
    let text = text.split('#').next().unwrap_or_default();
    let uri: Uri = text.parse().map_err(|_| fault())?;
    let form = match uri.scheme_str() {
        Some("http" | "https") => uri.authority().is_some(),
        None => text.starts_with('/') && !text.starts_with("//"),
        Some(_) => false,
    };
    if form && text.len() <= LONGEST {
        Ok(uri)
    } else {
        Err(fault())
    }
}

fn from(text: Option<&str>, own: Option<IpAddr>) -> Result<IpAddr, Error> {
    match text {
        None => Ok(own.unwrap_or(Ipv4Addr::LOCALHOST.into())),
        Some(text) => text
            .parse()
            .map_err(|_| Error::field("address", "invalid", "must be an IP address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_absolute_or_begin_with_a_slash() {
        for (text, host, path) in [
            ("/api/x?y=1#z", None, "/api/x"),
            (
                "http://a.example:8080/api/x",
                Some("a.example:8080"),
                "/api/x",
            ),
            ("https://a.example", Some("a.example"), "/"),
        ] {
            let uri = address(text).unwrap();
            let authority = uri.authority().map(http::uri::Authority::as_str);
            assert_eq!((authority, uri.path()), (host, path), "{text}");
        }
        for text in ["", "api/x", "//a/b", "ftp://a/b", "http://", "a b"] {
            assert!(address(text).is_err(), "{text}");
        }
        assert!(method(Some("get")).is_err() && method(Some("PATCH")).is_ok());
        assert!(from(Some("::1"), None).is_ok() && from(Some("host"), None).is_err());
    }
}
