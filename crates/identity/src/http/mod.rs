//! The API below `/api/identity`, one file a resource.

mod api_keys;
mod apple;
mod bulk;
mod devices;
mod factors;
mod identities;
mod invitations;
mod keys;
mod login;
mod mail;
mod passwords;
mod personal;
mod register;
mod roles;
mod security;
mod sessions;
mod setup;
mod sms;
mod tenants;
mod tokens;
mod user_view;
mod users;
mod way;
pub(crate) mod well_known;

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
    let all = keys::add(Routes::new());
    let all = login::add(all);
    let all = setup::add(all);
    let all = mail::add(all);
    let all = tokens::add(all);
    let all = sessions::add(all);
    let all = devices::add(all);
    let all = passwords::add(all);
    let all = security::add(all);
    let all = sms::add(all);
    let all = register::add(all);
    let all = apple::add(all);
    let all = identities::add(all);
    let all = factors::add(all);
    let all = users::add(all);
    let all = personal::add(all);
    let all = bulk::add(all);
    let all = invitations::add(all);
    let all = roles::add(all);
    let all = tenants::add(all);
    api_keys::add(all)
}
