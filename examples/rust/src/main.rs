//! Notes: a complete Portico plug-in in Rust. Notes live in memory, each tenant sees its own.
//!
//! ```text
//! PORTICO_URL=http://127.0.0.1:8080 PORTICO_TOKEN=prt_… cargo run -p portico-example-notes
//! portico run --name notes -- target/debug/notes
//! ```

mod input;
mod store;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use portico_sdk::{Checked, Endpoint, Identity, Options, Plugin, Problem, ServiceConfig};
use serde_json::{Value, json};

use store::{Note, Notes};

const WRITE: &str = "notes:note:write";
const OPENAPI: &str = include_str!("../../notes.openapi.json");

fn service_config() -> ServiceConfig {
    ServiceConfig {
        display_name: Some("Notes".to_owned()),
        tags: vec!["example".to_owned(), "rust".to_owned()],
        metadata: [("language".to_owned(), "rust".to_owned())].into(),
        openapi_url: Some("/openapi.json".to_owned()),
        permissions: vec![WRITE.to_owned()],
        endpoints: vec![
            Endpoint::new("GET", "/notes", "List the notes of my tenant"),
            Endpoint::new("POST", "/notes", "Write a note").needs(WRITE),
            Endpoint::new("GET", "/notes/{id}", "Read a note"),
            Endpoint::new("DELETE", "/notes/{id}", "Delete a note").needs(WRITE),
        ],
        ..ServiceConfig::new("notes", "1.0.0")
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let plugin = Plugin::new(service_config(), Options::from_env()?)?;
    let listener = tokio::net::TcpListener::bind(plugin.bind_address()).await?;
    plugin.start(listener.local_addr()?.port());
    let stopped = {
        let plugin = plugin.clone();
        async move { plugin.stopped().await }
    };
    let server = axum::serve(listener, router(plugin.clone())).with_graceful_shutdown(stopped);
    tokio::select! {
        result = server => result?,
        // A stream that nobody ends must not keep the process.
        () = plugin.overdue() => {}
    }
    Ok(())
}

fn router(plugin: Plugin) -> Router {
    Router::new()
        .route("/notes", get(list).post(write))
        .route("/notes/{id}", get(read).delete(remove))
        .route("/openapi.json", get(openapi))
        .fallback(|| async { Failure(not_found()) })
        .method_not_allowed_fallback(|| async {
            Failure(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "notes.method_not_allowed",
                "this method is not offered",
            ))
        })
        .layer(DefaultBodyLimit::max(input::MAX_BODY))
        .layer(middleware::from_fn_with_state(plugin, verified))
        .with_state(Arc::new(Notes::default()))
}

/// Lets nothing through that the gateway did not sign.
async fn verified(State(plugin): State<Plugin>, mut request: Request, next: Next) -> Response {
    match plugin
        .check(request.method(), request.uri(), request.headers())
        .await
    {
        Checked::Answer(answer) => answer.map(Body::from),
        Checked::Unsigned => next.run(request).await,
        Checked::Identified(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
    }
}

async fn list(
    State(notes): State<Arc<Notes>>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Failure> {
    let tenant = tenant(&who)?;
    let page = input::page(query.as_deref().unwrap_or_default(), |id| {
        notes.find(tenant, id).is_some()
    })?;
    let (items, next_cursor) = notes.list(tenant, page.cursor.as_deref(), page.limit);
    Ok(Json(json!({ "items": items, "next_cursor": next_cursor })))
}

async fn write(
    State(notes): State<Arc<Notes>>,
    Extension(who): Extension<Identity>,
    request: Request,
) -> Result<(StatusCode, Json<Note>), Failure> {
    let tenant = tenant(&who)?;
    let note = input::note(request).await?;
    let note = notes
        .add(tenant, who.user.as_deref(), note)
        .ok_or_else(|| {
            Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "notes.full",
                format!("a tenant has at most {} notes", store::MAX_NOTES),
            )
        })?;
    Ok((StatusCode::CREATED, Json(note)))
}

async fn read(
    State(notes): State<Arc<Notes>>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Note>, Failure> {
    // A foreign tenant's note is answered like one that never was.
    Ok(Json(notes.find(tenant(&who)?, &id).ok_or_else(not_found)?))
}

async fn remove(
    State(notes): State<Arc<Notes>>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    if notes.remove(tenant(&who)?, &id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_found().into())
    }
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

/// The tenant of the caller, as the gateway signed it; whatever the client wrote has been removed there.
fn tenant(who: &Identity) -> Result<&str, Problem> {
    who.tenant.as_deref().ok_or_else(|| {
        Problem::new(
            StatusCode::FORBIDDEN,
            "notes.tenant_required",
            "notes belong to a tenant; log in",
        )
    })
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "notes.not_found",
        "there is no such note",
    )
}

/// A problem as an answer of axum.
struct Failure(Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.0.into_response().map(Body::from)
    }
}
