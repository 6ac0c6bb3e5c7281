//! Where a registration belongs: rights, tenant, address; everything that needs no lock.

use std::sync::Arc;

use portico_base::{Context, FieldFault, id};
use portico_contract::directory::{DefaultAccess, Protocol};
use uuid::Uuid;

use super::{Placed, Request};
use crate::domain::check::CheckSpec;
use crate::domain::instance::{Definition, default_key};
use crate::domain::registration::{Host, Registration};
use crate::domain::rights::{Rights, Tenants};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::resolve::resolve;

/// Everything that can be checked without the writer's lock.
pub(super) async fn place(
    core: &Core,
    cx: &Context,
    request: Request,
    rights: Rights,
) -> Result<Placed> {
    let r = &request.registration;
    allowed(&rights, r)?;
    let mut faults = Vec::new();
    let tenant = tenant(&rights, r.tenant.as_deref()).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    let host = match host(core, cx, r).await {
        Ok(host) => host,
        Err(fault) => {
            faults.push(fault);
            String::new()
        }
    };
    if !faults.is_empty() {
        return Err(invalid(faults));
    }
    let key = r
        .key
        .clone()
        .unwrap_or_else(|| default_key(&host, r.port, &r.base_path));
    let definition = definition(core, r, &host, rights.foreign_checks);
    Ok(Placed {
        tenant,
        key: key.into(),
        definition,
        rights,
        request,
    })
}

/// A single fault of the address is the problem's own code; several share the general one.
fn invalid(faults: Vec<FieldFault>) -> Error {
    let code = match faults.as_slice() {
        [one] if one.code == "loop" => "registry.loop",
        [one] if one.code == "address_not_allowed" => "registry.address_not_allowed",
        _ => "registry.invalid",
    };
    Error::Invalid { code, faults }
}

fn allowed(rights: &Rights, r: &Registration) -> Result<()> {
    let mut faults = Vec::new();
    if rights.names.as_ref().is_some_and(|p| !p.covers(&r.name)) {
        faults.push(FieldFault::new(
            "name",
            "not_allowed",
            "the token is not for this name",
        ));
    }
    if let Some(service) = &r.service {
        if service.default_access == DefaultAccess::Public && !rights.public {
            faults.push(FieldFault::new(
                "default_access",
                "not_allowed",
                "the token does not allow `public`",
            ));
        }
        if service.forward_credentials && !rights.credentials {
            let message = "the token does not allow the callers' credentials";
            faults.push(FieldFault::new(
                "forward_credentials",
                "not_allowed",
                message,
            ));
        }
    }
    if r.protocol == Protocol::Unix && !rights.admin {
        faults.push(FieldFault::new(
            "protocol",
            "not_allowed",
            "sockets of this machine are for administrators",
        ));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let reason = "the credential does not allow this registration".to_owned();
    Err(Error::NotAllowed { reason, faults })
}

/// The tenant of the service: the wished one where the caller may choose, else its own.
pub(crate) fn tenant(
    rights: &Rights,
    wish: Option<&str>,
) -> std::result::Result<Option<Uuid>, FieldFault> {
    let wished = match wish {
        None => None,
        Some("global") => Some(None),
        Some("default") => Some(Some(id::TENANT_DEFAULT)),
        Some("system") => Some(Some(id::TENANT_SYSTEM)),
        Some(text) => match Uuid::parse_str(text) {
            Ok(id) if !id.is_nil() => Some(Some(id)),
            _ => {
                return Err(FieldFault::new(
                    "tenant",
                    "unknown",
                    "there is no such tenant",
                ));
            }
        },
    };
    match (rights.tenants, wished) {
        (Tenants::Fixed(own) | Tenants::Any(own), None) => Ok(own),
        (Tenants::Any(_), Some(tenant)) => Ok(tenant),
        (Tenants::Fixed(own), Some(tenant)) if own == tenant => Ok(own),
        (Tenants::Fixed(_), Some(_)) => Err(FieldFault::new(
            "tenant",
            "not_allowed",
            "the credential belongs to another tenant",
        )),
    }
}

async fn host(
    core: &Core,
    cx: &Context,
    r: &Registration,
) -> std::result::Result<String, FieldFault> {
    let host = match &r.host {
        Host::Named(host) => host.clone(),
        Host::Auto => match cx.caller.address {
            Some(ip) => ip.to_canonical().to_string(),
            None if cx.caller.direct_loopback => "127.0.0.1".to_owned(),
            None => {
                return Err(FieldFault::new(
                    "host",
                    "required",
                    "the caller's address is not known",
                ));
            }
        },
    };
    // Consul's API takes services without a port, and names that nobody routes to.
    let connectable = r.protocol != Protocol::Unix && (r.port > 0 || r.consul.is_none());
    if connectable {
        match resolve(&*core.addresses, &host, r.port).await {
            // A name that does not resolve today is kept for Consul's clients, and fails at connect.
            Err(crate::resolve::Unreachable::Unknown) if r.consul.is_some() => {}
            Err(error) => return Err(error.fault("host")),
            Ok(_) => {}
        }
    }
    Ok(host)
}

fn definition(core: &Core, r: &Registration, host: &str, foreign: bool) -> Definition {
    let node = if !r.node.is_empty() {
        r.node.clone()
    } else if host
        .parse()
        .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        || r.protocol == Protocol::Unix
    {
        core.host.to_string()
    } else {
        host.to_owned()
    };
    let checks = r
        .checks
        .iter()
        .map(|c| CheckSpec {
            foreign,
            ..c.clone()
        })
        .collect();
    Definition {
        version: Arc::from(&*r.version),
        host: Arc::from(host),
        port: r.port,
        base_path: Arc::from(&*r.base_path),
        protocol: r.protocol,
        tls_pin: r.tls_pin,
        weight: r.weight,
        zone: Arc::from(&*r.zone),
        node: node.into(),
        tags: r.tags.clone().into(),
        metadata: Arc::new(r.metadata.clone()),
        heartbeat_s: r.heartbeat_s,
        checks,
        consul: r.consul.clone(),
    }
}
