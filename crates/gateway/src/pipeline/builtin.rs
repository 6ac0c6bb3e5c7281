//! Built-in services: called on this worker without a hop, with the caller as a typed value (GW-40).

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use portico_base::Caller;
use portico_telemetry::logs::in_scope;

use super::caller::{Strange, Towards};
use super::door::{Door, Local};
use super::hygiene;
use super::record::Log;
use super::refusal::Refusal;
use super::scope;
use super::target::uri;
use super::way::{Call, missed};
use crate::body::{ReqBody, RespBody};
use crate::identify::Identity;
use crate::route::table::Miss;
use crate::serve::{self, Stream};

/// Longest `User-Agent` that a caller has, in bytes.
const AGENT_MAX: usize = 200;

impl Door {
    /// A built-in service on this worker; it checks rights itself.
    pub(super) async fn in_process(
        self: &Rc<Self>,
        call: &Call<'_>,
        identity: &Rc<Identity>,
        request: Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let router = self
            .gate
            .builtins
            .services
            .get(call.name)
            .cloned()
            .ok_or_else(no_process)?;
        let answer = self
            .run_router(&router, call.name, &call.below, identity, request, log)
            .await?;
        if self.gate.is_behind() {
            // What this answer says was registered must be routable once it is out, whoever registered it.
            self.gate.settled().await;
        }
        Ok(answer)
    }

    pub(super) async fn root(
        self: &Rc<Self>,
        local: &Local,
        (prefix, path, host): (&'static str, &str, &str),
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let to = Towards {
            service: "",
            host,
            strange: Strange::Doubt,
        };
        let identity = self.identify(local, &to, &request, log).await?;
        if let Some(keys) = &identity.keys {
            stream.set_keys(Rc::clone(keys));
        }
        let router = self
            .gate
            .builtins
            .roots
            .iter()
            .find(|(p, _)| *p == prefix)
            .map(|(_, r)| r.clone());
        let router = router.ok_or(missed(Miss::Nothing))?;
        self.run_router(
            &router,
            prefix.trim_start_matches('/'),
            path,
            &identity,
            request,
            log,
        )
        .await
    }

    async fn run_router(
        self: &Rc<Self>,
        router: &axum::Router,
        service: &str,
        path: &str,
        identity: &Rc<Identity>,
        mut request: Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        if let Some(spoken) = request.headers().get("x-portico-protocol").cloned() {
            request
                .extensions_mut()
                .insert(portico_web::PluginProtocol(spoken));
        }
        let csrf = request.headers().get("x-portico-csrf");
        let came = portico_web::Came {
            https: log.client.https,
            csrf: csrf.is_some_and(|value| value == "1"),
        };
        request.extensions_mut().insert(came);
        hygiene::clean_request(request.headers_mut(), log.client.proxied);
        let original = request.uri().clone();
        *request.uri_mut() = uri(path, original.query())?;
        let agent = request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|v| v.to_str().ok());
        let caller = Caller {
            principal: Arc::clone(&identity.principal),
            request_id: log.request_id.to_str().unwrap_or("").into(),
            trace_id: Some(String::from_utf8_lossy(&log.trace.context.trace_id.hex()).into()),
            address: Some(log.client.address),
            agent: agent.map(|a| a[..a.floor_char_boundary(AGENT_MAX)].into()),
            direct_loopback: log.client.direct_loopback,
        };
        request.extensions_mut().insert(caller);
        request
            .extensions_mut()
            .insert(axum::extract::OriginalUri(original));
        let context = self.context(log, service);
        let called = in_scope(context, async {
            let mut span = scope::operation(service, &request);
            let called = span
                .around(serve::call(&self.worker, router, request, false))
                .await;
            match &called {
                Ok(answer) => span.set("http.response.status_code", answer.status().as_u16()),
                Err(_) => span.fail("panicked"),
            }
            called
        });
        called.await.map_err(|panicked| {
            tracing::error!(
                message = panicked.message,
                request_id = log.request_id.to_str().unwrap_or(""),
                "a built-in service panicked"
            );
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "system.internal",
                "something went wrong on our side",
            )
        })
    }
}

/// A built-in service whose role is not in this process (OP-1).
fn no_process() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "gateway.no_instance",
        "the service's role is in no process that this gateway reaches",
    )
    .retry_after(1)
}
