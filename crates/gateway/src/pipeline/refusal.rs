//! Our own error answers: problem documents, or gRPC statuses for gRPC callers (GW-25, RFC 9457).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::body::{BodyError, RespBody};
use crate::identify::BadCredential;
use crate::limit::{self, Refused};
use crate::upstream::SendErrorKind;

/// The code of a request without a credential where one is needed.
const MISSING: &str = "identity.token_missing";
/// What is served at all; which of them a path has is known behind the door.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request gets an answer of ours instead of a service's.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: Cow<'static, str>,
    pub retry_after_s: Option<u32>,
    pub limited: Option<Box<Refused>>,
    /// With 405: what there is instead.
    pub allow: &'static str,
    /// Further members of the problem document.
    pub more: Option<Box<serde_json::Map<String, serde_json::Value>>>,
}

impl Refusal {
    #[must_use]
    pub const fn new(status: StatusCode, code: &'static str, detail: &'static str) -> Self {
        Self {
            status,
            code,
            detail: Cow::Borrowed(detail),
            retry_after_s: None,
            limited: None,
            allow: METHODS,
            more: None,
        }
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same with the methods that there are.
    #[must_use]
    pub const fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = methods;
        self
    }

    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same with a further member of the problem document.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: serde_json::Value) -> Self {
        self.more
            .get_or_insert_default()
            .insert(name.to_owned(), value);
        self
    }

    /// Where somebody is needed, whoever came with a credential that is not good is told what is wrong with it.
    #[must_use]
    pub(super) fn or_of(self, doubt: Option<BadCredential>) -> Self {
        match doubt {
            Some(bad) if self.code == MISSING => super::caller::refused(&bad),
            _ => self,
        }
    }

    /// Nobody is known, and somebody is needed.
    #[must_use]
    pub const fn nobody() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, MISSING, "a credential is needed")
    }

    /// A limit said no.
    #[must_use]
    pub fn limited(refused: Refused) -> Self {
        let detail = format!("the limit \"{}\" is used up", refused.tightest.name);
        Self {
            retry_after_s: Some(refused.retry_after_s),
            limited: Some(Box::new(refused)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "gateway.rate_limited", "")
                .with_detail(detail)
        }
    }

    /// What an instance's failure is for the client.
    #[must_use]
    pub fn upstream(kind: &SendErrorKind) -> Self {
        match kind {
            SendErrorKind::Connect(_)
            | SendErrorKind::Reset
            | SendErrorKind::Refused
            | SendErrorKind::AddressNotAllowed => Self::new(
                StatusCode::BAD_GATEWAY,
                "gateway.upstream_unreachable",
                "the service cannot be reached",
            ),
            SendErrorKind::Timeout(_) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "gateway.upstream_timeout",
                "the service did not answer in time",
            ),
            SendErrorKind::Invalid(_) => Self::new(
                StatusCode::BAD_GATEWAY,
                "gateway.upstream_invalid",
                "the service's answer is not valid",
            ),
            SendErrorKind::QueueFull => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "gateway.overloaded",
                "too many requests wait for the service",
            )
            .retry_after(1),
            SendErrorKind::HeadTooLarge => Self::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "gateway.headers_too_large",
                "the request's headers are too large to forward",
            ),
            SendErrorKind::RequestBody(error) => Self::body(error),
        }
    }

    /// What a broken request body is for the client.
    #[must_use]
    pub fn body(error: &BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "gateway.body_too_large", "")
                    .with_detail(format!("the body is longer than {limit} bytes"))
            }
            BodyError::TooSlow => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "gateway.body_timeout",
                "the body came too slowly",
            ),
            BodyError::Framing { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "gateway.bad_framing",
                "the body's framing is broken",
            ),
            _ => Self::new(client_gone(), "gateway.client_gone", "the client went away"),
        }
    }

    /// The answer; `grpc` when the request was one of gRPC.
    #[must_use]
    pub fn answer(&self, request_id: &HeaderValue, grpc: bool) -> Response<RespBody> {
        let mut response = if grpc {
            self.grpc()
        } else {
            self.problem(request_id)
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if let Some(refused) = &self.limited {
            limit::headers::write_refused(headers, refused);
        } else if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110 §15.5.6.
            headers.insert(header::ALLOW, HeaderValue::from_static(self.allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750 §3: without a credential no error is told.
            let challenge = if self.code == MISSING {
                "Bearer"
            } else {
                "Bearer error=\"invalid_token\""
            };
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        response
    }

    fn problem(&self, request_id: &HeaderValue) -> Response<RespBody> {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Client Closed Request"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id.to_str().unwrap_or(""),
        });
        if let (Some(more), Some(object)) = (&self.more, body.as_object_mut()) {
            object.extend((**more).clone());
        }
        let mut response = Response::new(RespBody::from(body.to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }

    /// A trailers-only answer: HTTP 200 and the status among the headers (gRPC over HTTP/2, "Responses").
    fn grpc(&self) -> Response<RespBody> {
        let mut response = Response::new(RespBody::empty());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert("grpc-status", HeaderValue::from(grpc_status(self.status)));
        let message = format!("{}: {}", self.code, self.detail);
        if let Ok(message) = HeaderValue::try_from(percent(&message)) {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// 499, which only logs and metrics ever show.
#[must_use]
pub fn client_gone() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is within 100 to 999")
}

/// True for requests of gRPC.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// gRPC's status for one of HTTP.
#[must_use]
pub fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 3,
        401 => 16,
        403 => 7,
        404 | 421 => 12,
        408 | 504 => 4,
        413 | 429 | 431 => 8,
        499 => 1,
        500 => 13,
        502 | 503 => 14,
        _ => 2,
    }
}

/// `grpc-message`: visible ASCII but `%`, the rest percent-encoded.
fn percent(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, b| {
            if (b' '..=b'~').contains(&b) && b != b'%' {
                out.push(char::from(b));
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn problems_have_code_and_request_id() {
        let refusal = Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "gateway.no_instance",
            "nobody is ready",
        )
        .retry_after(1);
        let response = refusal.answer(&HeaderValue::from_static("r-1"), false);
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()[header::RETRY_AFTER]
            ),
            (503, &HeaderValue::from_static("1"))
        );
        let body: serde_json::Value =
            serde_json::from_slice(&response.into_body().collect(4096).await.unwrap()).unwrap();
        assert_eq!(
            (
                body["code"].as_str(),
                body["request_id"].as_str(),
                body["status"].as_u64()
            ),
            (Some("gateway.no_instance"), Some("r-1"), Some(503))
        );
    }

    #[test]
    fn grpc_callers_get_a_status() {
        let mut headers = HeaderMap::new();
        for (kind, yes) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), yes, "{kind}");
        }
        for (status, code) in [
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 8),
            (502, 14),
            (503, 14),
            (504, 4),
            (413, 8),
        ] {
            assert_eq!(grpc_status(StatusCode::from_u16(status).unwrap()), code);
        }
        let response = Refusal::new(StatusCode::NOT_FOUND, "gateway.service_not_found", "nö")
            .answer(&HeaderValue::from_static("r"), true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "12");
        assert_eq!(
            response.headers()["grpc-message"],
            "gateway.service_not_found: n%C3%B6"
        );
    }
}
