#![doc = include_str!("../README.md")]

mod domain;
mod error;
mod http;
mod hub;
mod live;
mod metrics;
mod migrations;
mod ops;
mod permissions;
mod plugins;
mod rpc;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod views;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::settings_tree::{PluginSettings, SettingsTree};
use portico_db::Migrations;
use portico_host::{BuildCx, Running, Service, StartError, exit};

use crate::hub::{Core, Parts};
use crate::live::Layer;
use crate::ops::rotate::Own;
use crate::plugins::Plugins;
use crate::store::sealed::Table;
use crate::tree::Tree;

/// Settings: what was decided, changed while everything runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings;

/// The part of settings in the OpenAPI document, paths below `/api/settings`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::openapi()
}

/// Declares all metrics, for the documentation.
pub fn declare_metrics(registry: &portico_telemetry::metrics::Registry) {
    metrics::declare(registry);
}

impl Service for Settings {
    fn name(&self) -> &'static str {
        "settings"
    }

    fn migrations(&self) -> Migrations {
        migrations::all()
    }

    fn permissions(&self) -> &'static [PermissionDeclaration] {
        permissions::ALL
    }

    fn build<'a>(&'a self, cx: &'a mut BuildCx<'_>) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(build(cx))
    }
}

async fn build(cx: &mut BuildCx<'_>) -> Result<Running, StartError> {
    let core = Core::new(Parts::new(cx));
    // Every other service finds the stored values in force when it is built.
    live::catch_up(&core).await.map_err(|error| {
        StartError::new(
            exit::DEPENDENCY,
            format!("settings could not be loaded: {error}"),
        )
        .because(error)
    })?;
    cx.layers.put(Arc::new(Layer(Arc::clone(&core))));
    cx.provide::<dyn SettingsTree>(Arc::new(Tree(Arc::clone(&core))));
    let plugins = Plugins::new(&core);
    cx.provide::<dyn PluginSettings>(plugins.clone());
    for table in [Table::Values, Table::History] {
        let core = Arc::clone(&core);
        cx.sealed.add(Arc::new(Own { core, table }));
    }
    let stop = || cx.spawner.stopping().clone();
    cx.spawner
        .spawn("settings.live", live::follow(Arc::clone(&core), stop()));
    cx.spawner.spawn("settings.plugins", plugins.follow(stop()));
    Ok(Running {
        rpc: rpc::routes(&core, stop()),
        routes: Some(http::routes(core)),
        ..Running::default()
    })
}
