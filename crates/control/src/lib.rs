#![doc = include_str!("../README.md")]

mod backups;
mod error;
mod http;
mod hub;
mod metrics;
mod migrations;
mod ops;
mod permissions;
mod settings;
mod system;
mod unit;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::settings::{Declaration, SettingsCheck};
use portico_db::Migrations;
use portico_host::{BuildCx, Running, Service, StartError, Worker};

pub use backups::backup_store;

use crate::hub::Core;

/// Control: how the installation is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Control;

/// Control's part of the OpenAPI document, paths below `/api/control`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::openapi()
}

/// Declares all metrics, for the documentation.
pub fn declare_metrics(registry: &portico_telemetry::metrics::Registry) {
    metrics::declare(registry);
    backups::metrics::declare(registry);
}

impl Service for Control {
    fn name(&self) -> &'static str {
        "control"
    }

    fn migrations(&self) -> Migrations {
        migrations::all()
    }

    fn settings(&self) -> &'static [Declaration] {
        settings::declarations()
    }

    fn settings_check(&self) -> Option<SettingsCheck> {
        Some(settings::check)
    }

    fn permissions(&self) -> &'static [PermissionDeclaration] {
        permissions::ALL
    }

    fn build<'a>(&'a self, cx: &'a mut BuildCx<'_>) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(std::future::ready(Ok(build(cx))))
    }
}

fn build(cx: &mut BuildCx<'_>) -> Running {
    let core = Core::new(cx);
    // Every process has a log, whatever its roles are.
    let (levels, db) = (Arc::clone(&core.system.levels), core.db.clone());
    let stop = cx.spawner.stopping().clone();
    cx.spawner.spawn("control.log_levels", async move {
        levels.follow(&db, &stop).await;
    });
    let settling = Arc::clone(&core);
    Running {
        jobs: backups::jobs(&core),
        workers: vec![Worker::new("control.backups", move |stop| {
            backups::settle_once(settling, stop)
        })],
        routes: Some(http::routes(Arc::clone(&core))),
        ..Running::default()
    }
}
