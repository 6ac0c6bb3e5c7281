//! The API below `/api/control`, one file a resource.

mod cron;
mod jobs;
mod queues;
mod system;

use std::sync::Arc;

use portico_web::{Built, Routes};
use utoipa::openapi::OpenApi;

use crate::hub::Core;

/// Largest body.
const BODY_LIMIT: usize = 1024 * 1024;

/// What the handlers share.
pub(crate) type Api = Arc<Core>;

/// All routes.
pub(crate) fn routes(api: Api) -> Built {
    all().build(api, BODY_LIMIT)
}

/// The OpenAPI document of all routes.
pub(crate) fn openapi() -> OpenApi {
    all().openapi()
}

fn all() -> Routes<Api> {
    crate::backups::add(parts())
}

fn parts() -> Routes<Api> {
    let all = jobs::add(Routes::new());
    let all = queues::add(all);
    let all = cron::add(all);
    system::add(all)
}
