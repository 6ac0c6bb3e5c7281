#![doc = include_str!("../README.md")]


mod domain;
mod edge;
mod error;
mod http;
mod hub;
mod migrations;
mod ops;
mod settings;
mod store;
mod unit;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_contract::settings::Declaration;
use portico_db::Migrations;
use portico_host::{BuildCx, Running, Service, StartError, exit};

use crate::hub::Core;

/// Identity: who may enter, and out at once when told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

/// Identity's part of the OpenAPI document, paths below `/api/identity`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::openapi()
}

impl Service for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn migrations(&self) -> Migrations {
        migrations::all()
    }

    fn settings(&self) -> &'static [Declaration] {
        settings::declarations()
    }

    fn build<'a>(&'a self, cx: &'a mut BuildCx<'_>) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(build(cx))
    }
}

async fn build(cx: &mut BuildCx<'_>) -> Result<Running, StartError> {
    let core = Core::new(cx);
    // What was revoked is known before any port opens (ID-113).
    core.edge.load().await.map_err(|error| {
        StartError::new(
            exit::DEPENDENCY,
            format!("identity could not be loaded: {error}"),
        )
        .because(error)
    })?;
    let edge = Arc::clone(&core.edge);
    let stop = cx.spawner.stopping().clone();
    cx.spawner
        .spawn("identity.edge", async move { edge.follow(stop).await });
    Ok(Running {
        routes: Some(http::routes(core)),
        ..Running::default()
    })
}
