//! The native API below `/api/registry`.

mod manage;
mod names;
mod read;
mod register;
mod tokens;
mod watch;

use std::sync::Arc;

use portico_base::{Access, Permission};
use portico_web::{Built, Routes, routes};
use utoipa::openapi::OpenApi;

use crate::hub::Core;

/// Largest body: 500 endpoints with their descriptions.
const BODY_LIMIT: usize = 1024 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub core: Arc<Core>,
    /// Where instances find the keys that users' tokens are signed with.
    pub identity: Identity,
}

/// Public keys of the issuer of users' tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = IdentityKeys)]
pub(crate) struct Identity {
    /// Address of the keys (JWKS), absent when none are configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The `iss` of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
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
    let one = |text: &'static str| Access::Permission(Permission::new(text));
    let either = |texts: &[&'static str]| {
        Access::AnyOf(texts.iter().map(|text| Permission::new(text)).collect())
    };
    let own = || {
        either(&[
            "registry:instance:heartbeat",
            "registry:instance:register",
            "registry:instance:write",
        ])
    };
    let directory = || either(&["registry:directory:read", "registry:instance:write"]);
    Routes::new()
        .add(
            either(&["registry:instance:register", "registry:instance:heartbeat"]),
            routes!(register::register),
        )
        .add(own(), routes!(register::heartbeat))
        .add(own(), routes!(register::deregister))
        .add(own(), routes!(register::delete))
        .add(Access::Authenticated, routes!(read::list))
        .add(Access::Authenticated, routes!(read::get))
        .add(Access::Authenticated, routes!(read::catalog))
        .add(own(), routes!(read::history))
        .add(one("registry:instance:read"), routes!(read::prometheus))
        .add(directory(), routes!(watch::watch))
        .add(one("registry:instance:write"), routes!(manage::drain))
        .add(one("registry:instance:write"), routes!(manage::maintenance))
        .add(one("registry:instance:write"), routes!(manage::resume))
        .add(one("registry:instance:write"), routes!(manage::weight))
        .add(one("registry:service:write"), routes!(manage::enabled))
        .add(
            one("registry:token:write"),
            routes!(tokens::list, tokens::create),
        )
        .add(one("registry:token:write"), routes!(tokens::delete))
        .add(
            one("registry:name:write"),
            routes!(names::list, names::reserve),
        )
        .add(
            one("registry:name:write"),
            routes!(names::reserve_named, names::release),
        )
}
