//! The data plane's own refusals as problem documents (RFC 9457).

use http::{HeaderValue, Response, StatusCode, header};
use tracing::error;

use super::handler::{ConnInfo, Handler};
use super::in_process::Panicked;
use crate::body::RespBody;

/// An answer with `code` (`gateway.bare_lf`), the request id and one sentence.
pub(super) fn problem(
    status: StatusCode,
    kind: &str,
    detail: &str,
    request_id: &str,
) -> Response<RespBody> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "code": format!("gateway.{kind}"),
        "detail": detail,
        "request_id": request_id,
    });
    let mut response = Response::new(RespBody::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
    if matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The answer to a request whose handling panicked: a fault of ours, which must not end more than
/// that request.
pub(super) fn panic_answer<H: Handler>(
    handler: &H,
    conn: &ConnInfo,
    panicked: &Panicked,
) -> Response<RespBody> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let id = handler.refused(conn, status, "panic");
    error!(request_id = id, error = %panicked, "handling a request panicked");
    problem(status, "panic", "the request could not be handled", &id)
}
