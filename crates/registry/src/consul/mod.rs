//! The Consul-compatible API on its own listener (§2.15 of the specification).

mod access;
mod agent;
mod alias;
mod blocking;
mod catalog;
mod decode;
mod dispatch;
mod duration;
mod events;
mod filter;
mod fixed;
mod fuzz;
mod health;
mod input;
mod keeper;
mod kv;
mod kv_settings;
mod kv_store;
mod listener;
mod register;
mod reply;
mod request;
mod sessions;
mod state;
mod txn;
mod txn_catalog;
mod views;
mod wire;

pub use fuzz::{fuzz_consul_body, fuzz_consul_query, fuzz_filter, fuzz_registration};

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use portico_config::Listen;
use portico_contract::tenants::TenantsCell;
use portico_host::{BuildCx, HttpSurface, Surface, Worker};
use portico_web::serve::Limits;

use crate::hub::Core;
pub(crate) use state::declare as declare_metrics;
pub(crate) use state::{ConsulState, Options};

/// All routes of this listener.
pub(crate) fn router(state: ConsulState) -> Router {
    Router::new().fallback(move |request: http::Request<Body>| {
        let state = state.clone();
        async move { dispatch::serve(state, request).await }
    })
}

/// What the registry runs for this API: its listener, and the work beside it.
pub(crate) struct Parts {
    pub surface: Option<Box<dyn Surface>>,
    pub workers: Vec<Worker>,
}

/// Builds the API from configuration.
pub(crate) fn build(cx: &BuildCx<'_>, core: &Arc<Core>) -> Parts {
    let config = &cx.config;
    let options = Options {
        datacenter: Arc::from(config.consul.datacenter.as_str()),
        deregister_min_ms: u64::try_from(config.consul.deregister_min_s.get().as_millis())
            .unwrap_or(60_000),
        list_builtin: config.consul.list_builtin,
        anonymous: config.anonymous_consul().is_ok(),
        hosts: config
            .server
            .domain
            .iter()
            .map(ToString::to_string)
            .chain([cx.node.host.to_string()])
            .collect(),
    };
    let leave = cx.spawner.stopping().child_token();
    let who = (
        cx.credentials.clone(),
        cx.provided.get::<TenantsCell>().unwrap_or_default(),
    );
    let state = ConsulState::new(Arc::clone(core), options, who, leave.clone());
    if let Some(tree) = core.settings_tree.get() {
        kv_settings::follow(&state, &**tree);
    }
    let surface = match config.listen.consul {
        Listen::Off => None,
        Listen::At(address) => {
            let runtime = cx.spawner.runtime().clone();
            let router = router(state.clone());
            let inner = HttpSurface::new("consul", address, router, Limits::default(), runtime);
            Some(Box::new(listener::Listener { inner, leave }) as Box<dyn Surface>)
        }
    };
    let follower = state.clone();
    let workers = vec![
        Worker::new("registry.sessions", move |stop| keeper::run(state, stop)),
        Worker::new("registry.kv_follow", move |stop| {
            keeper::follow(follower, stop)
        }),
    ];
    Parts { surface, workers }
}
