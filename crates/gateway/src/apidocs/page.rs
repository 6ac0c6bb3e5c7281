//! `/docs` and `/openapi.json`: the page and its script are in the binary, nothing is loaded from elsewhere.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use portico_base::Access;
use portico_web::{Cx, Json, Problem, problem::refusal};

use super::ApiDocs;

/// The npm package `@scalar/api-reference` 1.46.4 (MIT), its stand-alone build, compressed.
const SCRIPT: &[u8] = include_bytes!("../../assets/scalar-1.46.4.js.gz");
const SCRIPT_PATH: &str = "/docs/scalar-1.46.4.js";

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Portico API</title>
</head>
<body>
  <div id="app"></div>
  <script src="/docs/scalar-1.46.4.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"#;
const START: &str = "Scalar.createApiReference('#app', {\n  url: '/openapi.json',\n  withDefaultFonts: false,\n  telemetry: false,\n  hideClientButton: true,\n  showDeveloperTools: 'never',\n  defaultOpenAllTags: false,\n  agent: { disabled: true },\n});\n";
/// The script of the page makes styles; nothing else comes from anywhere but here.
const POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The routes, with their full paths.
pub(crate) fn router(docs: ApiDocs) -> Router {
    Router::new()
        .route("/openapi.json", get(document))
        .route("/docs", get(page))
        .route("/docs/", get(page))
        .route("/docs/start.js", get(start))
        .route(SCRIPT_PATH, get(script))
        .with_state(docs)
}

async fn document(State(docs): State<ApiDocs>, Cx(cx): Cx) -> Result<Response, Problem> {
    // The page's own fetch carries no token on a machine that nobody else reaches; elsewhere the
    // document is for known callers only.
    if !cx.caller.direct_loopback {
        cx.authorise(&Access::Authenticated)
            .map_err(|why| refusal(&why))?;
    }
    let document = tokio::task::spawn_blocking(move || docs.document(cx.principal()));
    let document = document
        .await
        .map_err(|_| Problem::new(500, "system.internal"))?;
    Ok(Json(document).into_response())
}

async fn page() -> Response {
    let mut response = text("text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_static(POLICY);
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

async fn start() -> Response {
    text("text/javascript; charset=utf-8", START)
}

async fn script(headers: HeaderMap) -> Response {
    let takes_gzip = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("gzip"));
    if !takes_gzip {
        return Problem::new(406, "gateway.gzip_needed")
            .with_detail("this file is only kept compressed")
            .into_response();
    }
    (
        StatusCode::OK,
        [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/javascript; charset=utf-8"),
            ),
            (header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            (
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=31536000, immutable"),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ],
        SCRIPT,
    )
        .into_response()
}

fn text(content_type: &'static str, body: &'static str) -> Response {
    (
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ],
        body,
    )
        .into_response()
}
