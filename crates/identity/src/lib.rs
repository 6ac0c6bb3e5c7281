#![doc = include_str!("../README.md")]

mod address_rules;
mod apple;
mod domain;
mod edge;
mod error;
mod http;
mod hub;
mod jobs;
mod keyring;
mod limits;
mod links;
mod mail;
mod metrics;
mod migrations;
mod notices;
mod ops;
mod pages;
mod passwords;
mod permissions;
mod restored;
mod rpc;
mod settings;
mod sms;
mod store;
#[cfg(test)]
mod tests;
mod unit;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_contract::address_rules::AddressRules;
use portico_contract::backup::AfterRestore;
use portico_contract::directory::DirectorySource;
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::settings::{Declaration, SettingsCheck};
use portico_contract::tenants::{Tenants, TenantsCell};
use portico_contract::tokens::{IdentityStatements, Revocations, TokenVerifier};
use portico_db::Migrations;
use portico_host::{BuildCx, RowKey, Running, Service, StartError, exit};
use portico_web::StepUp;

use crate::hub::{Core, Parts};
use crate::ops::step_up::Challenger;

/// Identity: who may enter, and out at once when told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

/// Identity's part of the OpenAPI document, paths below `/api/identity`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::openapi()
}

/// Declares all metrics, for the documentation.
pub fn declare_metrics(registry: &portico_telemetry::metrics::Registry) {
    metrics::declare(registry);
    edge::metrics::declare(registry);
    sms::metrics::declare(registry);
    keyring::declare(registry);
    passwords::pool::declare(registry);
    limits::declare(registry);
    address_rules::declare(registry);
}

impl Service for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn migrations(&self) -> Migrations {
        migrations::all()
    }

    fn after_restore(&self) -> Option<Arc<dyn AfterRestore>> {
        Some(Arc::new(restored::RestoredPeople))
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
        Box::pin(build(cx))
    }
}

async fn build(cx: &mut BuildCx<'_>) -> Result<Running, StartError> {
    let core = Core::new(Parts::new(cx));
    ops::seed::seed(&core, cx.permissions)
        .await
        .map_err(|error| {
            StartError::new(
                exit::DEPENDENCY,
                format!("the first rows of identity could not be written: {error}"),
            )
            .because(error)
        })?;
    // What was revoked is known before any port opens (ID-113).
    core.edge.load().await.map_err(|error| {
        StartError::new(
            exit::DEPENDENCY,
            format!("identity could not be loaded: {error}"),
        )
        .because(error)
    })?;
    core.address_rules.load().await.map_err(|error| {
        StartError::new(
            exit::DEPENDENCY,
            format!("address rules could not be loaded: {error}"),
        )
        .because(error)
    })?;
    cx.provide::<dyn AddressRules>(core.address_rules.clone());
    let rules = Arc::clone(&core.address_rules);
    let rules_stop = cx.spawner.stopping().clone();
    cx.spawner.spawn("identity.address_rules", async move {
        rules.follow(rules_stop).await;
    });
    keyring::start(cx, &core);
    cx.add_sealed(
        "identity.totp",
        "user_secrets",
        RowKey::Uuid("user_id"),
        "totp_secret",
    );
    cx.add_sealed(
        "identity.signing_keys",
        "signing_keys",
        RowKey::Text("kid"),
        "private",
    );
    cx.add_sealed(
        "identity.external_tokens",
        "identities",
        RowKey::Uuid("id"),
        "refresh_token",
    );
    cx.provide::<dyn StepUp>(Arc::new(Challenger(Arc::clone(&core))));
    if let Some(directory) = cx.provided.get::<dyn DirectorySource>() {
        ops::plugins::start(cx.spawner, &core, &*directory);
        core.edge.serve(directory);
    }
    let edge = Arc::clone(&core.edge);
    provide(cx, &edge);
    let mismatches = Arc::clone(&core);
    let mismatches_stop = cx.spawner.stopping().clone();
    cx.spawner.spawn("identity.mismatches", async move {
        ops::mismatches::follow(&mismatches, &mismatches_stop).await;
    });
    let stop = cx.spawner.stopping().clone();
    cx.spawner
        .spawn("identity.edge", async move { edge.follow(stop).await });
    Ok(Running {
        jobs: jobs::all(&core),
        rpc: rpc::routes(&core, cx.credentials),
        root: vec![
            (
                http::well_known::PREFIX,
                http::well_known::routes(Arc::clone(&core)),
            ),
            (pages::PREFIX, pages::router()),
        ],
        routes: Some(http::routes(core)),
        ..Running::default()
    })
}

/// What others ask the edge.
fn provide(cx: &mut BuildCx<'_>, edge: &Arc<edge::Edge>) {
    cx.provide::<dyn TokenVerifier>(edge.clone());
    cx.provide::<dyn Tenants>(edge.clone());
    if let Some(cell) = cx.provided.get::<TenantsCell>() {
        cell.set(edge.clone());
    }
    cx.provide::<dyn IdentityStatements>(edge.clone());
    cx.provide::<dyn Revocations>(edge.clone());
}
