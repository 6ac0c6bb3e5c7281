//! Calls of one service by another: with the caller's own principal, and only what a rule allows (GW-100).

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, StatusCode};
use portico_base::{Principal, PrincipalKind};

use super::door::{Door, Local};
use super::entrance::RefusedCall;
use super::record::Log;
use super::refusal::Refusal;
use crate::identify::Identity;
use crate::route::callers::Asked;

/// Services of the platform that every plug-in needs: heartbeats, the directory, the check of a token, its own
/// settings. Each of their routes asks for a right, of which instances have few.
const OPEN: [&str; 3] = ["registry", "identity", "settings"];

/// How a request came to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// By a listener for clients.
    Public,
    /// By the listener between services.
    Internal,
}

impl Door {
    /// The caller as the called service sees it. An instance, and a registration token for one name, act for
    /// their service wherever they call; by the internal listener nobody else calls at all.
    pub(super) fn between(
        &self,
        local: &Local,
        came: Came,
        callee: (&Arc<str>, &str),
        method: &Method,
        identity: Rc<Identity>,
        log: &mut Log,
    ) -> Result<Rc<Identity>, Refusal> {
        let principal = &identity.principal;
        let is_service = matches!(
            principal.kind,
            PrincipalKind::Instance | PrincipalKind::Service | PrincipalKind::Registrar
        );
        if came == Came::Public && !is_service {
            return Ok(identity);
        }
        let (name, below) = callee;
        if is_service && OPEN.contains(&&**name) {
            return Ok(identity);
        }
        if !principal.is_authenticated() {
            return Err(Refusal::nobody());
        }
        let Some(caller) = principal.service.clone() else {
            return Err(not_allowed("only services call here"));
        };
        let asked = Asked {
            caller: &caller,
            tenant: principal.tenant,
            callee: name,
            method,
            below,
        };
        let Some(granted) = local.table.callers.grant(&asked) else {
            self.tell_refused(&caller, name, method, below, principal, log);
            return Err(not_allowed("no rule lets this service call that one"));
        };
        let scopes: Vec<String> = granted.iter().map(|p| p.as_str().to_owned()).collect();
        let identity = self.identifier.of(Arc::new(Principal {
            service: Some(Arc::clone(&caller)),
            permissions: granted.into(),
            scopes: scopes.into(),
            aal: 1,
            ..Principal::new(
                PrincipalKind::Service,
                format!("svc:{caller}"),
                principal.tenant,
            )
        }));
        log.identity = Some(Rc::clone(&identity));
        Ok(identity)
    }

    fn tell_refused(
        &self,
        caller: &Arc<str>,
        callee: &Arc<str>,
        method: &Method,
        below: &str,
        principal: &Principal,
        log: &Log,
    ) {
        if let Some(listener) = &self.gate.entrance.calls {
            listener(RefusedCall {
                caller: Arc::clone(caller),
                callee: Arc::clone(callee),
                tenant: principal.tenant,
                method: method.clone(),
                path: below.into(),
                address: log.client.address,
                request_id: log.request_id.to_str().unwrap_or("").into(),
            });
        }
    }
}

fn not_allowed(why: &'static str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "gateway.caller_not_allowed", why)
}
