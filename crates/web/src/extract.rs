//! Extractors that name the field at fault, and the context of a use-case.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, header};
use portico_base::{Caller, Clock, Context, FieldFault, Random};

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::failures::Reporter;
use crate::problem::Problem;
use crate::step_up::StepUp;
use crate::strict::Strict;

/// Clock and randomness of the process; put on every router by the host.
#[derive(Clone)]
pub struct Ambient {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub random: Arc<dyn Random>,
    /// Who tells how a session becomes stronger, once there is somebody who knows.
    pub step_up: Option<Arc<dyn StepUp>>,
    /// Who hears of requests that were refused or failed.
    pub failures: Option<Reporter>,
}

/// What `X-Portico-Protocol` said (PL-1): read at the door before every `X-Portico-*` is removed, and
/// put on requests to built-in services.
#[derive(Debug, Clone)]
pub struct PluginProtocol(pub HeaderValue);

/// How a request came to the door, read before headers that only clients write are removed. Put on requests
/// to built-in services; without it nothing is taken for granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    /// Over TLS, or a trusted proxy says so.
    pub https: bool,
    /// It carried `X-Portico-CSRF: 1`.
    pub csrf: bool,
}

/// The context of a use-case, from the caller that the door found and the process's ambient values.
#[derive(Debug, Clone)]
pub struct Cx(pub Context);

impl<S: Sync> FromRequestParts<S> for Cx {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let (Some(caller), Some(ambient)) = (
            parts.extensions.get::<Caller>(),
            parts.extensions.get::<Ambient>(),
        ) else {
            // Only possible when a router is served without the host's layers.
            return Err(Problem::new(500, "system.internal").with_detail("no caller is known"));
        };
        Ok(Self(Context {
            caller: caller.clone(),
            clock: Arc::clone(&ambient.clock),
            random: Arc::clone(&ambient.random),
        }))
    }
}

/// A JSON body, in and out. A fault names the path of the field; unknown fields are faults when the
/// type says `deny_unknown_fields`, which ours do.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_none_or(is_json);
        if !json {
            return Err(one_fault(
                "content-type",
                "unsupported",
                "must be application/json",
            ));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let status = rejection.status().as_u16();
                Problem::new(
                    status,
                    if status == 413 {
                        "system.body_too_large"
                    } else {
                        "system.bad_body"
                    },
                )
                .with_detail(rejection.body_text())
            })?;
        parse(&bytes).map(Self)
    }
}

/// Parses a JSON body with a fault that names the path. Bodies are objects: a list would fill the fields of a
/// struct in the order in which they happen to be declared.
///
/// # Errors
/// A problem with the path of the first field that does not fit.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        return Err(one_fault("body", "type", "must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut deserializer)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let field = if path == "." { "body".to_owned() } else { path };
        // What is no JSON at all is told first, wherever the reading ended.
        match serde_json::from_slice::<IgnoredAny>(bytes) {
            Err(broken) => one_fault(&field, "syntax", &broken.to_string()),
            Ok(_) => one_fault(&field, "invalid", &inner.to_string()),
        }
    })?;
    deserializer
        .end()
        .map_err(|error| one_fault("body", "syntax", &error.to_string()))?;
    Ok(value)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => (
                [(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                )],
                body,
            )
                .into_response(),
            Err(error) => {
                tracing::error!(err = %error, "an answer could not be serialised");
                Problem::new(500, "system.internal").into_response()
            }
        }
    }
}

/// Query parameters; unknown ones are faults when the type says `deny_unknown_fields`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let deserializer = serde_urlencoded::Deserializer::new(form_pairs(query));
        serde_path_to_error::deserialize(deserializer)
            .map(Self)
            .map_err(|error| {
                let path = error.path().to_string();
                let message = error.into_inner().to_string();
                let field = match (path.as_str(), message.split('`').nth(1)) {
                    (".", Some(name)) => name.to_owned(),
                    (".", None) => "query".to_owned(),
                    _ => path,
                };
                one_fault(&field, "invalid", &message)
            })
    }
}

fn form_pairs(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

fn one_fault(field: &str, code: &str, message: &str) -> Problem {
    Problem::invalid(
        "system.invalid",
        vec![FieldFault::new(field, code, message)],
    )
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only parsed")]
        items: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        port: u16,
    }

    #[test]
    fn faults_name_the_path() {
        let problem = parse::<Outer>(br#"{"items":[{"port":1},{"port":70000}]}"#).unwrap_err();
        assert_eq!(problem.status, 400);
        assert_eq!(problem.errors[0].field, "items[1].port");
        let problem = parse::<Outer>(br#"{"items":[],"more":1}"#).unwrap_err();
        assert!(
            problem.errors[0].message.contains("unknown field"),
            "{problem:?}"
        );
        assert_eq!(parse::<Outer>(b"{").unwrap_err().errors[0].code, "syntax");
        assert!(parse::<Outer>(br#"{"items":[]} x"#).is_err());
    }

    #[test]
    fn a_body_is_an_object() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Lenient {
            name: String,
            count: u32,
        }
        assert_eq!(parse::<Lenient>(b" {} ").unwrap(), Lenient::default());
        for body in ["[]", r#"["a", 1]"#, " [ ]", "null", "1", "\"a\"", "true"] {
            let problem = parse::<Lenient>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status, 400, "{body}");
            let fault = &problem.errors[0];
            assert_eq!((&*fault.field, &*fault.code), ("body", "type"), "{body}");
        }
        assert!(parse::<serde_json::Value>(b"[1]").is_err());
        // What is no JSON at all says so.
        for body in ["[", "", "x", "[] []"] {
            let problem = parse::<Lenient>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.errors[0].code, "syntax", "{body}");
        }
    }

    #[tokio::test]
    async fn query_names_the_parameter() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Q {
            limit: Option<u32>,
        }
        let of = async |query: &str| {
            let (mut parts, ()) = Request::builder()
                .uri(format!("/x?{query}"))
                .body(())
                .unwrap()
                .into_parts();
            Query::<Q>::from_request_parts(&mut parts, &()).await
        };
        assert_eq!(of("limit=5").await.unwrap().0.limit, Some(5));
        assert_eq!(of("limit=x").await.unwrap_err().errors[0].field, "limit");
        assert_eq!(
            of("nonsense=1").await.unwrap_err().errors[0].field,
            "nonsense"
        );
    }
}
