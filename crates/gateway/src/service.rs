//! The gateway as a service of the house: what it is built from and what it brings.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_contract::documents::ApiDocuments;
use portico_contract::settings::Declaration;
use portico_db::Migrations;
use portico_host::{BuildCx, Running, Service, StartError, Worker, exit};
use portico_telemetry::metrics::Registry;
use utoipa::openapi::OpenApi;

use crate::apidocs::{self, ApiDocs};
use crate::http::{self, Api};
use crate::objects::{Book, Ops};
use crate::pipeline::settings::DECLARATIONS;

/// The service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gateway;

impl Service for Gateway {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn migrations(&self) -> Migrations {
        crate::migrations::all()
    }

    fn settings(&self) -> &'static [Declaration] {
        DECLARATIONS
    }

    fn build<'a>(
        &'a self,
        cx: &'a mut BuildCx<'_>,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(build(cx))
    }
}

/// The gateway's own part of the OpenAPI document.
#[must_use]
pub fn openapi() -> OpenApi {
    http::openapi()
}

/// Declares all metrics, for the documentation.
pub fn declare_metrics(registry: &Registry) {
    let _ = registry;
}

async fn build(cx: &mut BuildCx<'_>) -> Result<Running, StartError> {
    let book = Book::load(cx.db).await.map_err(|error| {
        StartError::new(exit::DEPENDENCY, "the gateway's objects could not be read").because(error)
    })?;
    let ops = Ops { db: cx.db.clone(), audit: Arc::clone(cx.audit), book: book.clone() };
    let routes = http::routes(Api { ops });
    let mut documents: Vec<(&str, OpenApi)> = cx
        .built
        .iter()
        .filter_map(|built| Some((built.name, built.routes.as_ref()?.openapi.clone())))
        .collect();
    documents.push(("gateway", routes.openapi.clone()));
    let docs = ApiDocs::new(&documents, cx.provided.get::<dyn ApiDocuments>());
    let pages = apidocs::router(docs);
    Ok(Running {
        routes: Some(routes),
        root: vec![("/docs", pages.clone()), ("/openapi.json", pages)],
        workers: vec![Worker::new("gateway-objects", move |stop| book.follow(stop))],
        ..Running::default()
    })
}
