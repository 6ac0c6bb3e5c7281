//! The gateway's own API below `/api/gateway`.

mod cache;
mod objects;
mod requests;

use portico_telemetry::access::AccessLog;
use portico_web::{Built, Routes};
use utoipa::openapi::OpenApi;

use crate::objects::Ops;
use crate::purges::Purges;

/// Largest document.
const BODY_LIMIT: usize = 256 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) ops: Ops,
    pub(crate) purges: Purges,
    pub(crate) access: AccessLog,
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
    requests::add(cache::add(objects::add(Routes::new())))
}
