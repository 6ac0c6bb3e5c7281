//! Routes that declare who may call them: a route without an [`Access`] does not compile.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use portico_base::{Access, Caller, Refusal, authorise};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::extract::Ambient;
use crate::problem::{Problem, refusal};

/// A declared route, for the matrix test and the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Upper-case method.
    pub method: &'static str,
    /// Path below `/api/{service}`, with `{name}` parameters.
    pub path: String,
    /// Who may call it.
    pub access: Access,
}

/// Collects the routes of a service below `/api/{service}`.
pub struct Routes<S> {
    router: OpenApiRouter<S>,
    table: Vec<RouteInfo>,
}

/// What a service gives to the host.
#[derive(Clone)]
pub struct Built {
    /// Serves the paths below `/api/{service}` (the prefix already removed).
    pub router: Router,
    /// Its part of the OpenAPI document, paths below the prefix.
    pub openapi: OpenApi,
    /// All routes with their access.
    pub table: Arc<[RouteInfo]>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self {
            router: OpenApiRouter::default(),
            table: Vec::new(),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what `routes!(handler, …)` made, callable by `access` only.
    #[must_use]
    pub fn add(mut self, access: Access, routes: UtoipaMethodRouter<S>) -> Self {
        for (path, item) in &routes.1.paths {
            let methods = [
                ("GET", item.get.is_some()),
                ("POST", item.post.is_some()),
                ("PUT", item.put.is_some()),
                ("PATCH", item.patch.is_some()),
                ("DELETE", item.delete.is_some()),
                ("HEAD", item.head.is_some()),
            ];
            self.table
                .extend(
                    methods
                        .into_iter()
                        .filter(|(_, there)| *there)
                        .map(|(method, _)| RouteInfo {
                            method,
                            path: path.clone(),
                            access: access.clone(),
                        }),
                );
        }
        let (schemas, paths, methods) = routes;
        let access = Arc::new(access);
        let guarded = methods.route_layer(from_fn(move |request: Request, next: Next| {
            let access = Arc::clone(&access);
            async move { guard(&access, request, next).await }
        }));
        self.router = self.router.routes((schemas, paths, guarded));
        self
    }

    /// The OpenAPI document so far.
    #[must_use]
    pub fn openapi(&self) -> OpenApi {
        self.router.get_openapi().clone()
    }

    /// Binds the state. Bodies are limited to `body_limit` bytes.
    #[must_use]
    pub fn build(self, state: S, body_limit: usize) -> Built {
        let (router, openapi) = self.router.split_for_parts();
        let router = router
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(body_limit))
            .layer(from_fn(finish))
            .with_state(state);
        Built {
            router,
            openapi,
            table: self.table.into(),
        }
    }
}

async fn guard(access: &Access, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return Problem::new(500, "system.internal").into_response();
    };
    let ambient = request.extensions().get::<Ambient>();
    // Without the host's clock nothing is fresh.
    let now_s = ambient.map_or(i64::MAX, |a| a.clock.now().timestamp());
    match authorise(&caller.principal, access, now_s) {
        Ok(()) => next.run(request).await,
        Err(Refusal::StepUp) => {
            let problem = refusal(&Refusal::StepUp);
            let Some(step_up) = ambient.and_then(|a| a.step_up.clone()) else {
                return problem.into_response();
            };
            let Some(challenge) = step_up.challenge(&caller.principal).await else {
                return problem.into_response();
            };
            problem
                .with_member("methods", challenge.methods.into())
                .with_member("ticket", challenge.ticket.expose().as_str().into())
                .into_response()
        }
        Err(why) => refusal(&why).into_response(),
    }
}

/// Puts the request id into problems, and tells browsers not to guess content types.
async fn finish(request: Request, next: Next) -> Response {
    let id = request
        .extensions()
        .get::<Caller>()
        .map(|c| Arc::clone(&c.request_id));
    let mut response = next.run(request).await;
    if let (Some(id), Some(problem)) = (id, response.extensions_mut().remove::<Problem>()) {
        let body = problem.with_request_id(&id).body();
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    response
        .headers_mut()
        .entry(http::header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    response
}

async fn not_found() -> Problem {
    Problem::new(404, "system.not_found").with_detail("there is nothing at this path")
}

async fn method_not_allowed() -> Problem {
    Problem::new(405, "system.method_not_allowed").with_detail("this path has no such method")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use portico_base::{Permission, Principal};
    use tower_service::Service as _;

    use super::*;

    #[utoipa::path(get, path = "/things/{id}", responses((status = 200)))]
    async fn get_thing() -> &'static str {
        "thing"
    }

    async fn call(path: &str, principal: Principal) -> (StatusCode, serde_json::Value) {
        let built = Routes::new()
            .add(
                Access::Permission(Permission::new("test:thing:read")),
                utoipa_axum::routes!(get_thing),
            )
            .build((), 1024);
        assert_eq!(built.table.len(), 1);
        assert!(built.openapi.paths.paths.contains_key("/things/{id}"));
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(Caller::internal(principal, "req-1"));
        let response = built.router.clone().call(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_route_is_closed_to_whom_it_does_not_name() {
        assert_eq!(
            call("/things/1", Principal::operator()).await.0,
            StatusCode::OK
        );
        let (status, problem) = call("/things/1", Principal::anonymous()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(problem["code"], "identity.token_missing");
        assert_eq!(problem["request_id"], "req-1");
        let (status, problem) = call("/nothing", Principal::operator()).await;
        assert_eq!(
            (status.as_u16(), problem["code"].as_str()),
            (404, Some("system.not_found"))
        );
    }
}
