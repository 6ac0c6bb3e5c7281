//! Errors as `application/problem+json` (RFC 9457) with a stable code, the request id and all faults of the input.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use portico_base::{ErrorKind, Fault, FieldFault, Permission, Refusal};
use serde::Serialize;

/// What handlers answer.
pub type ApiResult<T> = Result<T, Problem>;

/// An error on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` is what programs compare.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status's reason phrase.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code, `service.reason`.
    pub code: String,
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `X-Request-Id` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// All faults of the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<FieldProblem>)]
    pub errors: Vec<FieldFault>,
    /// Further members (RFC 9457 §3.2), named by the code that they belong to.
    #[serde(flatten)]
    #[schema(ignore)]
    pub members: serde_json::Map<String, serde_json::Value>,
    /// Seconds for the `Retry-After` header.
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
}

/// One fault of one input field.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FieldProblem {
    /// Path of the field (`endpoints[2].path`).
    pub field: String,
    /// Stable code.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl Problem {
    /// A problem with a status and a code.
    #[must_use]
    pub fn new(status: u16, code: impl Into<String>) -> Self {
        let title = StatusCode::from_u16(status)
            .ok()
            .and_then(|s| s.canonical_reason())
            .unwrap_or("Error");
        Self {
            kind: "about:blank",
            title: title.to_owned(),
            status,
            code: code.into(),
            detail: None,
            request_id: None,
            errors: Vec::new(),
            members: serde_json::Map::new(),
            retry_after_s: None,
        }
    }

    /// Bad input, with all its faults.
    #[must_use]
    pub fn invalid(code: impl Into<String>, errors: Vec<FieldFault>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.field, one.message),
            several => format!("{} fields are wrong", several.len()),
        };
        Self {
            errors,
            ..Self::new(400, code)
        }
        .with_detail(detail)
    }

    /// The same with a sentence for people.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with a further member.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: serde_json::Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The same with `Retry-After`.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same with the request's id.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }

    /// The body as bytes.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a problem has only text keys and serialises")
    }
}

impl<F: Fault> From<F> for Problem {
    fn from(fault: F) -> Self {
        let internal = fault.kind() == ErrorKind::Internal;
        if internal {
            // Logged here once, at the boundary, with its chain; the client learns only the request id.
            tracing::error!(code = fault.code(), err = %chain(&fault), "request failed");
        }
        let detail = if internal {
            "something went wrong on our side".to_owned()
        } else {
            fault.to_string()
        };
        Self {
            errors: fault.fields().to_vec(),
            members: fault.members(),
            retry_after_s: fault.retry_after_s(),
            ..Self::new(fault.status(), fault.code())
        }
        .with_detail(detail)
    }
}

/// A refusal of [`portico_base::authorise`] as a problem.
#[must_use]
pub fn refusal(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Unauthenticated => {
            Problem::new(401, "identity.token_missing").with_detail("a credential is needed")
        }
        Refusal::Missing(permission) => missing(permission),
        Refusal::StepUp => Problem::new(401, "identity.step_up_required")
            .with_detail("show a second factor, or authenticate again"),
    }
}

fn missing(permission: &Permission) -> Problem {
    Problem::new(403, "identity.permission_denied")
        .with_detail(format!("the permission {permission} is needed"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == 401 {
            // RFC 6750 §3: without a credential no error is told.
            let challenge = if self.code == "identity.token_missing" {
                "Bearer"
            } else {
                "Bearer error=\"invalid_token\""
            };
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Kept for the outer layer, which knows the request id and renders the body again with it.
        response.extensions_mut().insert(self);
        response
    }
}

/// An error and its sources on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        out.push_str(": ");
        out.push_str(&inner.to_string());
        source = inner.source();
    }
    out
}
