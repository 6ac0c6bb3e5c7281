//! The gateway's own API below `/api/gateway`.

mod breakers;
mod cache;
mod explain;
mod live;
mod objects;
mod releases;
mod requests;
mod topology;

use std::sync::{Arc, OnceLock};

use portico_telemetry::access::AccessLog;
use portico_web::{Built, Routes};
use utoipa::openapi::OpenApi;

use crate::breakers::Breakers;
use crate::explaining::BuiltinRoutes;
use crate::objects::Ops;
use crate::purges::Purges;
use crate::release::Releases;

/// Largest document.
const BODY_LIMIT: usize = 256 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) ops: Ops,
    pub(crate) purges: Purges,
    pub(crate) releases: Releases,
    pub(crate) access: AccessLog,
    pub(crate) breakers: Breakers,
    /// The routes of built-in services; filled once all are built.
    pub(crate) builtins: Arc<OnceLock<BuiltinRoutes>>,
}

/// All routes.
pub(crate) fn routes(api: Api) -> Built {
    all().build(api, BODY_LIMIT)
}

/// The OpenAPI document of all routes.
pub(crate) fn openapi() -> OpenApi {
    all().openapi()
}

fn all() -> Routes<Api> {
    let all = requests::add(cache::add(releases::add(objects::add(Routes::new()))));
    live::add(topology::add(explain::add(breakers::add(all))))
}
