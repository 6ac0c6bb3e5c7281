//! The API below `/api/audit`.

mod chain;
mod records;

use std::sync::Arc;

use portico_base::Access;
use portico_web::{Built, Routes, routes};
use utoipa::openapi::OpenApi;

use crate::hub::Core;
use crate::permissions::{READ, VERIFY};

/// Bodies are a few numbers.
const BODY_LIMIT: usize = 16 * 1024;

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
    let (read, verify) = (|| Access::Permission(READ), || Access::Permission(VERIFY));
    Routes::new()
        .add(read(), routes!(records::list))
        .add(read(), routes!(records::get))
        .add(read(), routes!(records::histogram))
        .add(read(), routes!(records::actions))
        .add(verify(), routes!(chain::state))
        .add(verify(), routes!(chain::verify))
        .add(verify(), routes!(chain::checkpoints, chain::checkpoint))
        .add(verify(), routes!(chain::links))
}
