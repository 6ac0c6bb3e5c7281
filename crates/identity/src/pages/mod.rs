//! The plain pages below `/auth`: the first administrator, and what links in mails lead to.
//!
//! A link carries its token behind `#`, which no server, proxy or log sees; the page asks for a click before
//! anything changes, so that a scanner that follows links in mails changes nothing.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderName, HeaderValue, header};

const PAGE: &str = include_str!("../../assets/auth.html");
const STYLE: &str = include_str!("../../assets/auth.css");
const SCRIPT: &str = include_str!("../../assets/auth.js");

/// Nothing inline, nothing from elsewhere; the picture of the second factor is made by the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// What all of them begin with.
pub(crate) const PREFIX: &str = "/auth";
/// Where a page is, below the public address.
pub(crate) const SETUP: &str = "/auth/setup";
pub(crate) const VERIFY: &str = "/auth/verify";
pub(crate) const RESET: &str = "/auth/reset";
pub(crate) const UNDO: &str = "/auth/undo";
pub(crate) const STRANGER: &str = "/auth/stranger";
pub(crate) const INVITATION: &str = "/auth/invitation";

/// The pages, with their full paths.
pub(crate) fn router() -> Router {
    let pages = [SETUP, VERIFY, RESET, UNDO, STRANGER, INVITATION];
    pages
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, get(page)))
        .route("/auth/auth.css", get(style))
        .route("/auth/auth.js", get(script))
}

async fn page() -> Response {
    let mut response = file("text/html; charset=utf-8", "no-store", PAGE);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

async fn style() -> Response {
    file("text/css; charset=utf-8", "no-cache", STYLE)
}

async fn script() -> Response {
    file("text/javascript; charset=utf-8", "no-cache", SCRIPT)
}

fn file(kind: &'static str, caching: &'static str, body: &'static str) -> Response {
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, caching),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}
