//! Routes that declare who may call them: a route without an [`Access`] does not compile.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, Uri};
use portico_base::{Access, Caller, Context, FieldFault, Refusal, authorise};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::describe;
use crate::extract::Ambient;
use crate::failures::Failed;
use crate::problem::{Problem, refusal};

/// A request with more unknown parameters than this is not told of all of them.
const MOST_FAULTS: usize = 20;

/// A declared route, for the matrix test and the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Upper-case method.
    pub method: &'static str,
    /// Path below `/api/{service}`, with `{name}` parameters.
    pub path: String,
    /// Who may call it.
    pub access: Access,
    /// Pages of other origins may send their forms here.
    pub foreign: bool,
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
    /// Its part of the OpenAPI document as JSON, paths below the prefix: kept as text, because it is large
    /// and seldom asked for.
    pub openapi: Arc<str>,
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
    pub fn add(self, access: Access, routes: UtoipaMethodRouter<S>) -> Self {
        self.declare(access, false, routes)
    }

    /// The same for anybody, and pages of other origins may send their forms there: for a provider that sends
    /// browsers back to us. The handler finds out by itself whether the browser was sent away by us.
    #[must_use]
    pub fn add_foreign(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.declare(Access::Public, true, routes)
    }

    fn declare(mut self, access: Access, foreign: bool, routes: UtoipaMethodRouter<S>) -> Self {
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
                            foreign,
                        }),
                );
        }
        let (schemas, mut paths, methods) = routes;
        describe::complete(&mut paths, &access);
        let rule = Arc::new((access, describe::without_query(&paths)));
        let guarded = methods.route_layer(from_fn(move |request: Request, next: Next| {
            let rule = Arc::clone(&rule);
            async move { guard(&rule.0, &rule.1, request, next).await }
        }));
        self.router = self.router.routes((schemas, paths, guarded));
        self
    }

    /// The OpenAPI document so far.
    #[must_use]
    pub fn openapi(&self) -> OpenApi {
        let mut openapi = self.router.get_openapi().clone();
        describe::define(&mut openapi);
        openapi
    }

    /// Binds the state. Bodies are limited to `body_limit` bytes.
    #[must_use]
    pub fn build(self, state: S, body_limit: usize) -> Built {
        let (router, mut openapi) = self.router.split_for_parts();
        describe::define(&mut openapi);
        let router = router
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(body_limit))
            .layer(from_fn(finish))
            .with_state(state);
        let openapi = serde_json::to_string(&openapi).expect("OpenAPI documents are JSON");
        Built {
            router,
            openapi: openapi.into(),
            table: self.table.into(),
        }
    }
}

async fn guard(access: &Access, silent: &[Method], request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return Problem::new(500, "system.internal").into_response();
    };
    let ambient = request.extensions().get::<Ambient>();
    let witness = ambient.and_then(|ambient| Witness::new(ambient, caller, &request));
    // Without the host's clock nothing is fresh.
    let now_s = ambient.map_or(i64::MAX, |a| a.clock.now().timestamp());
    let response = match authorise(&caller.principal, access, now_s) {
        Ok(()) => match unknown(silent, &request) {
            None => next.run(request).await,
            Some(fault) => fault.into_response(),
        },
        Err(why) => refused(&why, caller, ambient).await,
    };
    if let Some(witness) = witness {
        witness.look(&response);
    }
    response
}

async fn refused(why: &Refusal, caller: &Caller, ambient: Option<&Ambient>) -> Response {
    let problem = refusal(why);
    if *why != Refusal::StepUp {
        return problem.into_response();
    }
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

/// What is known of a request, kept in case that it fails. Only of somebody who is known: whoever is not
/// fails everywhere, and what logins fail by is for identity to say.
struct Witness {
    ambient: Ambient,
    caller: Caller,
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
}

impl Witness {
    fn new(ambient: &Ambient, caller: &Caller, request: &Request) -> Option<Self> {
        let heard = ambient.failures.is_some() && caller.principal.is_authenticated();
        heard.then(|| Self {
            ambient: ambient.clone(),
            caller: caller.clone(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
        })
    }

    /// Tells of refusals, and of changes that failed.
    fn look(self, response: &Response) {
        let status = response.status().as_u16();
        let denied = status == 401 || status == 403;
        if !(denied || status >= 400 && !self.method.is_safe()) {
            return;
        }
        let Some(reporter) = &self.ambient.failures else {
            return;
        };
        let code = response.extensions().get::<Problem>();
        let route = self.route.as_ref().map_or("", MatchedPath::as_str);
        reporter.to.note(Failed {
            denied,
            route: format!("{} /api/{}{route}", self.method, reporter.service),
            path: format!("/api/{}{}", reporter.service, self.uri.path()),
            code: code.map_or_else(|| format!("http.{status}"), |p| p.code.clone()),
            context: Context {
                caller: self.caller,
                clock: self.ambient.clock,
                random: self.ambient.random,
            },
        });
    }
}

/// The fault of a request that sends parameters where none are read: whoever misspells or invents one is told.
fn unknown(silent: &[Method], request: &Request) -> Option<Problem> {
    let query = request.uri().query().filter(|query| !query.is_empty())?;
    if !silent.contains(request.method()) {
        return None;
    }
    let names = form_urlencoded::parse(query.as_bytes()).take(MOST_FAULTS);
    let faults = names
        .map(|(name, _)| FieldFault::new(name, "unknown", "this takes no such parameter"))
        .collect();
    Some(Problem::invalid("system.invalid", faults))
}

/// Puts the request id into problems, and tells browsers not to guess content types.
async fn finish(request: Request, next: Next) -> Response {
    let id = request
        .extensions()
        .get::<Caller>()
        .map(|c| Arc::clone(&c.request_id));
    let mut response = next.run(request).await;
    if let Some(problem) = bare(&response) {
        response = problem.into_response();
    }
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

/// The problem in the place of a refusal that axum wrote itself, as text: mostly a part of the path that is no id.
fn bare(response: &Response) -> Option<Problem> {
    let status = response.status();
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    let text = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !text || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    Some(match status.as_u16() {
        400 => Problem::invalid(
            "system.invalid",
            vec![FieldFault::new(
                "path",
                "form",
                "a part of the path is not of the form that it must have",
            )],
        ),
        500 => Problem::new(500, "system.internal"),
        other => Problem::new(other, "system.refused"),
    })
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
    async fn get_thing(id: axum::extract::Path<u32>) -> String {
        format!("thing {}", id.0)
    }

    async fn call(path: &str, principal: Principal) -> (StatusCode, serde_json::Value) {
        let built = Routes::new()
            .add(
                Access::Permission(Permission::new("test:thing:read")),
                utoipa_axum::routes!(get_thing),
            )
            .build((), 1024);
        assert_eq!(built.table.len(), 1);
        let told: serde_json::Value = serde_json::from_str(&built.openapi).unwrap();
        let operation = &told["paths"]["/things/{id}"]["get"];
        for status in ["400", "401", "403", "404", "429", "503"] {
            assert_eq!(
                operation["responses"][status]["$ref"],
                "#/components/responses/Problem"
            );
        }
        assert!(operation["responses"]["413"].is_null() && operation["security"].is_null());
        let refusal = &told["components"]["responses"]["Problem"]["content"];
        assert_eq!(
            refusal["application/problem+json"]["schema"]["$ref"],
            "#/components/schemas/Problem"
        );
        assert!(told["components"]["schemas"]["Problem"]["required"].is_array());
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
        let (status, problem) = call("/things/1?admin=1", Principal::operator()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(problem["errors"][0]["field"], "admin");
        let (status, problem) = call("/things/x", Principal::operator()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(problem["code"], "system.invalid");
        assert_eq!(problem["request_id"], "req-1");
        let (status, problem) = call("/nothing", Principal::operator()).await;
        assert_eq!(
            (status.as_u16(), problem["code"].as_str()),
            (404, Some("system.not_found"))
        );
    }
}
