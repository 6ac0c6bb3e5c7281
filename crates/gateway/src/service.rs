//! The gateway as a service of the house: what it is built from and what it brings.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use futures_util::future::BoxFuture;
use http::StatusCode;
use portico_contract::address::AddressGuard;
use portico_contract::directory::DirectorySource;
use portico_contract::documents::ApiDocuments;
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::settings::{Declaration, Settings};
use portico_contract::streams::StreamCloser;
use portico_db::Migrations;
use portico_host::{
    BuildCx, Health, ListenerTls, Running, Service, StartError, Surface, Worker, exit,
};
use portico_telemetry::access::{AccessLog, AccessMode};
use portico_telemetry::metrics::Registry;
use portico_web::extract::Ambient;
use portico_web::{Failures, Reporter};
use utoipa::openapi::OpenApi;

use crate::apidocs::{self, ApiDocs};
use crate::cache::Cache;
use crate::caching::{self, Warmth};
use crate::entering;
use crate::http::{self as api, Api};
use crate::listening;
use crate::objects::{Book, Ops};
use crate::operating::{Crew, Operating};
use crate::pipeline::errand::Errands;
use crate::pipeline::settings::{ACCESS_LOG, DECLARATIONS};
use crate::pipeline::{BreakerListener, Builtins, Entrance, Families, Gate, Parts};
use crate::purges::Purges;
use crate::release::{self, Serving};
use crate::route::build::Names;
use crate::surface::DoorControl;

/// The service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gateway;

impl Service for Gateway {
    fn name(&self) -> &'static str {
        "gateway"
    }

    /// Routes, keys and directory are in memory.
    fn serves_without_database(&self) -> bool {
        true
    }

    fn migrations(&self) -> Migrations {
        crate::migrations::all()
    }

    fn settings(&self) -> &'static [Declaration] {
        DECLARATIONS
    }

    fn permissions(&self) -> &'static [PermissionDeclaration] {
        crate::permissions::ALL
    }

    fn build<'a>(&'a self, cx: &'a mut BuildCx<'_>) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(build(cx))
    }
}

/// The gateway's own part of the OpenAPI document.
#[must_use]
pub fn openapi() -> OpenApi {
    api::openapi()
}

/// Declares all metrics, for the documentation.
pub fn declare_metrics(registry: &Registry) {
    let _declared = Families::new(registry);
    crate::figures::declare(registry);
    crate::cache::declare_metrics(registry);
    release::declare(registry);
}

/// Takes over the networks of trusted proxies after each reload of the configuration (CF-5).
fn follow_proxies(cx: &BuildCx<'_>, gate: &Arc<Gate>) {
    let (mut reloads, gate) = (cx.reloads.clone(), Arc::clone(gate));
    let stop = cx.spawner.stopping().clone();
    cx.spawner.spawn("gateway-trusted-proxies", async move {
        while let Some(Ok(())) = stop.run_until_cancelled(reloads.changed()).await {
            let config = Arc::clone(&reloads.borrow_and_update());
            gate.set_trusted(config.server.trusted_proxies.networks().to_vec());
        }
    });
}

async fn build(cx: &mut BuildCx<'_>) -> Result<Running, StartError> {
    let book = Book::load(cx.db).await.map_err(|error| {
        StartError::new(exit::DEPENDENCY, "the gateway's objects could not be read").because(error)
    })?;
    let ops = Ops {
        db: cx.db.clone(),
        audit: Arc::clone(cx.audit),
        book: book.clone(),
        serving: Serving::default(),
    };
    let serving = ops.serving.clone();
    let (releases, mut jobs) = release::build(cx, &ops, &book);
    let mut workers = Vec::new();
    let cache = caching::build(cx, &mut workers).await;
    let purges = Purges {
        cache: cache.clone(),
        db: cx.db.clone(),
        audit: Arc::clone(cx.audit),
        purged: Arc::default(),
        gate: Arc::default(),
    };
    let following = purges.clone();
    workers.push(Worker::new("gateway-purges", move |stop| {
        following.follow(stop)
    }));
    let access = cx.telemetry.access.clone();
    follow_access_log(cx.settings, &access);
    let control = DoorControl::new(cx.spawner.clone());
    let operating = Operating::new(cx, &control);
    let routes = api::routes(Api {
        ops,
        purges: purges.clone(),
        releases,
        access,
        breakers: operating.breakers.clone(),
        builtins: Arc::clone(&operating.builtins),
    });
    operating.know(cx, &routes);
    let builtins = builtins(cx, &routes);
    let listener = Arc::clone(&operating.listener);
    let house = operating.builtins.get().cloned().unwrap_or_default();
    let entrance = entering::entrance(cx, &house, &mut workers)?;
    entering::close_revoked(cx, &control);
    let gate = gate(cx, &book, builtins, entrance, cache.clone(), listener)?;
    follow_proxies(cx, &gate);
    purges.know(&gate);
    serving.attach(&gate);
    let follower = Arc::clone(&gate);
    book.subscribe(Arc::new(move |objects| {
        follower.set_objects(Arc::clone(objects))
    }));
    workers.push(Worker::new("gateway-objects", move |stop| {
        book.follow(stop)
    }));
    let crew = operating.crew.clone();
    operating.attach(cx, &gate, &mut workers);
    cx.provide::<dyn StreamCloser>(Arc::new(control.clone()));
    // The table follows in every process: a surface that opens later must not start on an old one.
    let rebuilding = Arc::clone(&gate);
    cx.spawner.spawn(
        "gateway-table",
        rebuilding.run(cx.spawner.stopping().clone()),
    );
    let errands = Errands::default();
    let surfaces: Vec<Box<dyn Surface>> =
        match listening::door(cx, &gate, control, &errands, &crew)? {
            Some(door) => vec![Box::new(door)],
            None => Vec::new(),
        };
    share_certificates(cx, &crew);
    let warmth = (!surfaces.is_empty()).then(|| Warmth::new(cx, &gate, errands));
    jobs.extend(caching::jobs(&cache, cx.clock, warmth.as_ref()));
    workers.extend(warmth.map(|warmth| warmth.worker(&purges.purged)));
    Ok(Running {
        routes: Some(routes),
        surfaces,
        workers,
        jobs,
        ..Running::default()
    })
}

/// Other listeners for clients speak TLS with the same certificates.
fn share_certificates(cx: &mut BuildCx<'_>, crew: &Crew) {
    if let Some(store) = crew.certificates.get() {
        cx.provide::<ListenerTls>(Arc::new(ListenerTls(store.config())));
    }
}

/// `gateway.access_log`, at once and whenever it changes.
fn follow_access_log(settings: &Settings, access: &AccessLog) {
    let (values, log) = (settings.clone(), access.clone());
    let take = move || {
        if let Some(mode) = AccessMode::parse(&values.system(&ACCESS_LOG)) {
            log.set_mode(mode);
        }
    };
    take();
    settings.subscribe(Arc::new(move |changed| {
        if changed.iter().any(|key| key == ACCESS_LOG.declaration.key) {
            take();
        }
    }));
}

/// The routers of all built-in services, with the values that their handlers need.
fn builtins(cx: &BuildCx<'_>, own: &portico_web::Built) -> Builtins {
    let failures = cx.provided.get::<dyn Failures>();
    let reporter = |service| failures.clone().map(|to| Reporter { service, to });
    let ready = |service, router: Router| {
        router.layer(axum::Extension(Ambient {
            clock: Arc::clone(cx.clock),
            random: Arc::clone(cx.random),
            step_up: cx.provided.get::<dyn portico_web::step_up::StepUp>(),
            failures: reporter(service),
        }))
    };
    let mut documents = Vec::new();
    let mut services: HashMap<&'static str, Router> = HashMap::new();
    let mut roots: Vec<(&'static str, Router)> = Vec::new();
    for built in cx.built {
        if let Some(routes) = &built.routes {
            documents.push((built.name, Arc::clone(&routes.openapi)));
            services.insert(built.name, ready(built.name, routes.router.clone()));
        }
        roots.extend(
            built
                .root
                .iter()
                .map(|(prefix, router)| (*prefix, ready(built.name, router.clone()))),
        );
    }
    documents.push(("gateway", Arc::clone(&own.openapi)));
    services.insert("gateway", ready("gateway", own.router.clone()));
    let docs = ApiDocs::new(documents, cx.provided.get::<dyn ApiDocuments>());
    let pages = ready("gateway", apidocs::router(docs));
    roots.extend([("/docs", pages.clone()), ("/openapi.json", pages)]);
    roots.push(("/healthz", health(Arc::clone(cx.health))));
    Builtins { services, roots }
}

/// `/healthz`: readiness without details (HL-1).
fn health(health: Arc<std::sync::OnceLock<Health>>) -> Router {
    let answer = move || {
        let ready = health.get().is_some_and(Health::ready);
        async move {
            if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    };
    Router::new().route("/healthz", get(answer))
}

fn gate(
    cx: &BuildCx<'_>,
    book: &Book,
    builtins: Builtins,
    entrance: Entrance,
    cache: Cache,
    breakers: BreakerListener,
) -> Result<Arc<Gate>, StartError> {
    let server = &cx.config.server;
    let names = Names {
        domain: server
            .domain
            .as_ref()
            .map(|domain| domain.as_str().to_owned()),
        hosts: server
            .hosts
            .iter()
            .map(|host| host.as_str().to_owned())
            .collect(),
        builtin: builtins.services.keys().copied().collect(),
        roots: builtins.roots.iter().map(|(prefix, _)| *prefix).collect(),
    };
    Ok(Gate::new(Parts {
        names,
        builtins,
        trusted: server.trusted_proxies.networks().to_vec(),
        file_roots: server.file_roots.clone(),
        directory: cx.require::<dyn DirectorySource>()?,
        settings: cx.settings.clone(),
        objects: book.current(),
        credentials: cx.credentials.clone(),
        entrance,
        addresses: cx.require::<dyn AddressGuard>()?,
        limiter: cx.state.limiter().clone(),
        limit_seed: limit_seed(cx),
        cache,
        registry: cx.telemetry.metrics.clone(),
        access: Some(cx.telemetry.access.clone()),
        tracer: cx.telemetry.tracer.clone(),
        clock: Arc::clone(cx.clock),
        random: Arc::clone(cx.random),
        breakers,
        failures: cx.provided.get::<dyn Failures>(),
    }))
}

/// The same on every replica, because it comes from the installation's master key, and unknown to clients.
fn limit_seed(cx: &BuildCx<'_>) -> u64 {
    let hash = portico_base::secret::token_hash(&format!("limits|{}", cx.keys.check_value()));
    hash.first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
