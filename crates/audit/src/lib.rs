#![doc = include_str!("../README.md")]

#[doc(hidden)]
pub mod bench;
mod domain;
mod error;
mod http;
mod hub;
mod jobs;
mod metrics;
mod migrations;
mod ops;
mod permissions;
mod personal;
mod restored;
mod sealed;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod trail;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_contract::audit::AuditTrail;
use portico_contract::backup::AfterRestore;
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::settings::{Declaration, SettingsCheck};
use portico_db::{Db, DbError, Migrations};
use portico_host::{BuildCx, Running, Service, StartError, Worker, exit};
use portico_web::Failures;

pub use domain::report::{Fault, FaultKind, Report};
pub use ops::export::verify_lines;

use crate::hub::{Core, Parts};

/// The audit: who did what, and the proof that nobody changed it since.
#[derive(Debug, Clone, Copy, Default)]
pub struct Audit;

/// The audit's part of the OpenAPI document, paths below `/api/audit`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::openapi()
}

/// Declares all metrics, for the documentation.
pub fn declare_metrics(registry: &portico_telemetry::metrics::Registry) {
    let _declared = metrics::Metrics::new(registry);
}

/// Verifies the chain in a database, without any process: for `portico audit verify --offline`.
///
/// # Errors
/// When the database cannot be read.
pub async fn verify_database(
    db: &Db,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<Report, DbError> {
    let part = ops::verify::Part { from, to };
    ops::verify::database(db, part)
        .await
        .map_err(|error| match error {
            error::Error::Db(error) => error,
            other => DbError::Other(other.to_string()),
        })
}

impl Service for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn migrations(&self) -> Migrations {
        migrations::all()
    }

    fn after_restore(&self) -> Option<Arc<dyn AfterRestore>> {
        Some(Arc::new(restored::RestoredTrail))
    }

    fn settings(&self) -> &'static [Declaration] {
        settings::DECLARATIONS
    }

    fn settings_check(&self) -> Option<SettingsCheck> {
        Some(settings::check)
    }

    fn permissions(&self) -> &'static [PermissionDeclaration] {
        permissions::ALL
    }

    fn build<'a>(&'a self, cx: &'a mut BuildCx<'_>) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(build(cx))
    }
}

async fn build(cx: &mut BuildCx<'_>) -> Result<Running, StartError> {
    let (core, notes) = Core::new(Parts::new(cx)).await.map_err(|error| {
        StartError::new(exit::FAILED, format!("the audit cannot begin: {error}")).because(error)
    })?;
    cx.audit_switch
        .put(Arc::new(ops::write::Sink(Arc::clone(&core))));
    cx.provide::<dyn Failures>(Arc::new(ops::notes::Notes(Arc::clone(&core))));
    cx.provide::<dyn AuditTrail>(Arc::new(trail::Trail(Arc::clone(&core))));
    cx.personal
        .add(Arc::new(personal::Personal(Arc::clone(&core))));
    cx.sealed.add(Arc::new(sealed::SealedKeys {
        db: cx.db.clone(),
        master: Arc::clone(cx.keys),
        random: Arc::clone(cx.random),
    }));
    // In every process, whatever its roles: each one refuses callers.
    let stop = cx.spawner.stopping().clone();
    cx.spawner.spawn(
        "audit.notes",
        ops::notes::run(Arc::clone(&core), notes, stop),
    );
    let (sealer, holder) = (Arc::clone(&core), Arc::clone(&cx.node.name));
    Ok(Running {
        routes: Some(http::routes(Arc::clone(&core))),
        jobs: jobs::all(&core),
        workers: vec![Worker::new("audit.seal", move |stop| {
            ops::seal::run(sealer, holder, stop)
        })],
        ..Running::default()
    })
}
