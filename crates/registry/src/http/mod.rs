//! The native API below `/api/registry`.

mod manage;
mod names;
mod read;
mod register;
mod tokens;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use portico_base::{Access, Permission};
use portico_contract::tokens::IssuerCell;
use portico_host::OwnAddresses;
use portico_web::{Built, Routes, routes};
use utoipa::openapi::OpenApi;

use crate::hub::Core;

/// Largest body: 500 endpoints with their descriptions.
const BODY_LIMIT: usize = 1024 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub core: Arc<Core>,
    /// Whose tokens and statements instances meet.
    pub issuer: Arc<IssuerCell>,
    /// The address that clients use, where it is configured.
    pub public_url: Option<String>,
    pub own: OwnAddresses,
}

impl Api {
    /// Where services call each other, as far as a caller reaches it: a listener on loopback is for this
    /// machine, and one with mutual TLS for programs that hold a certificate, which no SDK has.
    fn internal_url(&self, caller: Option<IpAddr>) -> Option<String> {
        let url = self.own.url("internal")?;
        let host = url::Url::parse(&url)
            .ok()
            .filter(|u| u.scheme() == "http")?;
        let local = match host.host()? {
            url::Host::Ipv4(ip) => ip.is_loopback(),
            url::Host::Ipv6(ip) => ip.is_loopback(),
            url::Host::Domain(name) => name == "localhost",
        };
        let near = caller.is_none_or(|ip| ip.to_canonical().is_loopback());
        (near || !local).then_some(url)
    }

    /// Where instances find the keys that tokens and statements are signed with; known once the listeners
    /// are open.
    fn identity(&self) -> Identity {
        let Some(issuer) = self.issuer.get() else {
            return Identity::default();
        };
        let open = || self.own.url("http").or_else(|| self.own.url("https"));
        let base = self.public_url.clone().or_else(open);
        Identity {
            jwks_url: base
                .map(|base| format!("{}/.well-known/jwks.json", base.trim_end_matches('/'))),
            issuer: Some(issuer.to_owned()),
        }
    }
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
