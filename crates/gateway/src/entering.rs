//! Puts together what decides who comes in: what identity provides, and a foreign issuer from configuration.

use std::sync::Arc;

use portico_config::Config;
use portico_contract::address_rules::AddressRules;
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::streams::StreamCloser;
use portico_contract::tenants::Tenants;
use portico_contract::tokens::{IdentityStatements, IssuerCell, Revocations, TokenVerifier};
use portico_host::{BuildCx, StartError, Worker, exit};

use crate::calls::{self, Calls};
use crate::explaining::BuiltinRoutes;
use crate::identify::jwt::{Expected, JwtVerifier};
use crate::identify::load::Loader;
use crate::identify::source::{self, KeySource};
use crate::identify::{Chain, KeySet};
use crate::pipeline::Entrance;
use crate::route::house::HouseRoutes;
use crate::surface::DoorControl;

/// The entrance of a process, and the work behind it.
///
/// # Errors
/// When the foreign issuer's keys cannot be read.
pub(crate) fn entrance(
    cx: &BuildCx<'_>,
    routes: &BuiltinRoutes,
    workers: &mut Vec<Worker>,
) -> Result<Entrance, StartError> {
    let statements = cx.provided.get::<dyn IdentityStatements>();
    if let (Some(cell), Some(issuer)) = (
        cx.provided.get::<IssuerCell>(),
        statements.as_ref().and_then(|s| s.issuer()),
    ) {
        cell.set(issuer);
    }
    let own = cx.provided.get::<dyn TokenVerifier>();
    let foreign = foreign(cx.config, workers)?;
    let declared: Vec<PermissionDeclaration> = { cx.permissions.iter() }
        .flat_map(|(_, declared)| declared.iter().copied())
        .collect();
    let (listener, refused) = calls::queue();
    let calls = Calls::new(
        cx.db.clone(),
        Arc::clone(cx.audit),
        Arc::clone(cx.clock),
        Arc::clone(cx.random),
    );
    workers.push(Worker::new("gateway-calls", move |stop| {
        calls.run(refused, stop)
    }));
    Ok(Entrance {
        verifier: Chain::of(own, foreign),
        tenants: cx.provided.get::<dyn Tenants>(),
        statements,
        rules: cx.provided.get::<dyn AddressRules>(),
        loader: Some(Loader::new(cx.spawner.clone())),
        house: Arc::new(HouseRoutes::new(routes, &declared)),
        own_console: cx.config.listen.console.addr().is_some(),
        calls: Some(listener),
    })
}

/// Closes the open streams of whoever is revoked, here or on another replica.
pub(crate) fn close_revoked(cx: &BuildCx<'_>, control: &DoorControl) {
    if let Some(revocations) = cx.provided.get::<dyn Revocations>() {
        let control = control.clone();
        revocations.subscribe(Arc::new(move |owner| control.close(owner)));
    }
}

/// Verifies tokens of a foreign issuer, when one is configured (`auth`).
fn foreign(
    config: &Config,
    workers: &mut Vec<Worker>,
) -> Result<Option<Arc<dyn TokenVerifier>>, StartError> {
    let auth = &config.auth;
    let source = match (&auth.jwks_file, &auth.jwks_url) {
        (Some(file), _) => KeySource::File(file.clone()),
        (None, Some(url)) => KeySource::Url(url.url().clone()),
        (None, None) => return Ok(None),
    };
    let expected = Expected {
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        tenant_claim: auth.tenant_claim.clone(),
        roles_claim: auth.roles_claim.clone(),
    };
    let keys = match &source {
        KeySource::File(file) => source::read_file(file).map_err(|error| {
            let text = portico_web::problem::chain(&error);
            StartError::new(exit::USAGE, format!("auth.jwks_file: {text}")).because(error)
        })?,
        KeySource::Url(_) => KeySet::default(),
    };
    let verifier = Arc::new(JwtVerifier::new(expected, keys));
    let following = Arc::clone(&verifier);
    workers.push(Worker::new("gateway-keys", move |stop| {
        source::follow(source, following, stop)
    }));
    Ok(Some(verifier))
}
