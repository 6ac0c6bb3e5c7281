#![doc = include_str!("../README.md")]

mod agenda;
mod aliases;
mod beats;
mod checks;
mod consul;
mod credentials;
mod documents;
mod domain;
mod drained;
mod error;
mod follow;
mod http;
mod hub;
mod jobs;
mod life;
mod metrics;
mod migrations;
mod model;
mod ops;
mod permissions;
mod plugin_settings;
mod resolve;
mod restored;
mod settings;
mod shards;
mod store;
mod tenant_services;
#[cfg(test)]
mod tests;
mod ttl;
mod views;
mod wake;
mod watch;
mod writer;

#[doc(hidden)]
pub use consul::{fuzz_consul_body, fuzz_consul_query, fuzz_filter, fuzz_registration};

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_contract::address::AddressGuard;
use portico_contract::backup::AfterRestore;
use portico_contract::directory::DirectorySource;
use portico_contract::documents::ApiDocuments;
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::services::TenantServices;
use portico_contract::settings::{Declaration, SettingsCheck};
use portico_contract::tenants::TenantsCell;
use portico_contract::tokens::IssuerCell;
use portico_db::{LeaseTiming, Migrations};
use portico_host::{BuildCx, RowKey, Running, Service, StartError, Worker, exit};

use crate::documents::Documents;
use crate::http::Api;
use crate::hub::{Core, Parts, Source};
use crate::metrics::Metrics;
use crate::store::instances::Sealer;
use crate::tenant_services::Switchboard;

/// The registry: knows every service and every instance behind the door.
#[derive(Debug, Clone, Copy, Default)]
pub struct Registry;

/// The registry's part of the OpenAPI document, paths below `/api/registry`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::openapi()
}

/// Declares all metrics, for the documentation.
pub fn declare_metrics(registry: &portico_telemetry::metrics::Registry) {
    let _declared = Metrics::new(registry);
}

impl Service for Registry {
    fn name(&self) -> &'static str {
        "registry"
    }

    fn migrations(&self) -> Migrations {
        migrations::all()
    }

    fn after_restore(&self) -> Option<Arc<dyn AfterRestore>> {
        Some(Arc::new(restored::RestoredDirectory))
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
    let core = Core::new(Parts {
        db: cx.db.clone(),
        clock: Arc::clone(cx.clock),
        random: Arc::clone(cx.random),
        settings: cx.settings.clone(),
        audit: Arc::clone(cx.audit),
        sealer: Sealer {
            keys: Arc::clone(cx.keys),
            random: Arc::clone(cx.random),
        },
        metrics: Metrics::new(&cx.telemetry.metrics),
        own: cx.own.clone(),
        heartbeats: cx.state.heartbeats("registry"),
        host: Arc::clone(&cx.node.host),
        replica: Arc::clone(&cx.node.name),
        lease_timing: LeaseTiming::default(),
    });
    plugin_settings::connect(cx, &core);
    for (name, column) in [
        ("registry.secret", "secret"),
        ("registry.next_secret", "next_secret"),
    ] {
        cx.add_sealed(name, "service_instances", RowKey::Uuid("id"), column);
    }
    follow::load(&core).await.map_err(|error| {
        StartError::new(
            exit::DEPENDENCY,
            format!("the registry could not be loaded: {error}"),
        )
        .because(error)
    })?;
    let own = core.own_context("registry.start");
    let off = store::services::builtin_off(core.db.reader()).await;
    let off = off.map_err(|error| {
        StartError::new(
            exit::DEPENDENCY,
            format!("the switches of built-in services could not be read: {error}"),
        )
        .because(error)
    })?;
    ops::builtin::announce(&core, &own, cx.names, cx.running, cx.node.version, &off);
    let position = Arc::downgrade(&core);
    cx.numbers.add("registry_seq", move || {
        Some(position.upgrade()?.model.read().seq as f64)
    });
    provide(cx, &core);
    plugin_settings::start(cx.spawner, &core);
    let documents = Arc::new(Documents::default());
    cx.provide::<dyn ApiDocuments>(documents.clone());
    // These run in every process, whatever its roles: its gateway needs the directory, and what its data
    // plane was refused by must be told.
    let stop = cx.spawner.stopping().clone();
    cx.spawner.spawn(
        "registry.follow",
        follow::follow(Arc::clone(&core), stop.clone()),
    );
    cx.spawner
        .spawn("registry.life", life::run(Arc::clone(&core), stop.clone()));
    cx.spawner.spawn(
        "registry.documents",
        documents::run(Arc::clone(&core), documents, stop),
    );
    Ok(running(cx, &core))
}

fn provide(cx: &mut BuildCx<'_>, core: &Arc<Core>) {
    cx.provide::<dyn DirectorySource>(Arc::new(Source(Arc::clone(core))));
    cx.provide::<dyn AddressGuard>(core.addresses.clone());
    cx.provide::<IssuerCell>(Arc::default());
    cx.provide::<TenantsCell>(Arc::default());
    cx.provide::<dyn TenantServices>(Arc::new(Switchboard(Arc::clone(core))));
    cx.add_credentials(Arc::new(credentials::Registrars(Arc::clone(core))));
    cx.add_credentials(Arc::new(credentials::Instances(Arc::clone(core))));
}

fn running(cx: &BuildCx<'_>, core: &Arc<Core>) -> Running {
    let api = Api {
        core: Arc::clone(core),
        issuer: cx.provided.get::<IssuerCell>().unwrap_or_default(),
        public_url: cx
            .config
            .server
            .public_url
            .as_ref()
            .map(ToString::to_string),
        own: cx.own.clone(),
    };
    let worker = |name,
                  run: fn(
        Arc<Core>,
        tokio_util::sync::CancellationToken,
    ) -> BoxFuture<'static, ()>| {
        let core = Arc::clone(core);
        Worker::new(name, move |stop| run(core, stop))
    };
    let consul = consul::build(cx, core);
    let mut workers = vec![
        worker("registry.shards", |core, stop| {
            Box::pin(shards::keep(core, stop))
        }),
        worker("registry.checks", |core, stop| {
            Box::pin(checks::run(core, stop))
        }),
        worker("registry.aliases", |core, stop| {
            Box::pin(aliases::run(core, stop))
        }),
        worker("registry.beats", |core, stop| {
            Box::pin(last_beats(core, stop))
        }),
    ];
    workers.extend(consul.workers);
    Running {
        routes: Some(http::routes(api)),
        surfaces: consul.surface.into_iter().collect(),
        workers,
        jobs: jobs::all(
            core,
            cx.config
                .consul
                .reap_s
                .get()
                .min(std::time::Duration::from_secs(10)),
            cx.config.consul.deregister_min_s.get(),
        ),
        ..Running::default()
    }
}

/// Heartbeats that were not flushed are written when the process stops.
async fn last_beats(core: Arc<Core>, stop: tokio_util::sync::CancellationToken) {
    stop.cancelled().await;
    if let Err(error) = beats::flush(&core).await {
        tracing::warn!(err = %error, "the last heartbeats were not written");
    }
}
