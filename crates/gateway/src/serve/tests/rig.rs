//! A gateway with one route: everything goes to the back end, some paths are answered here.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::backend::Backend;
use super::client::Client;
use crate::body::{BodyError, ReqBody, RespBody};
use crate::serve::{
    ConnInfo, Control, Cut, End, Handler, Listener, Options, ServeLimits, Server, Stream, bind,
    call,
};
use crate::upstream::{
    AddressPolicy, PoolLimits, SendError, SendErrorKind, SendOptions, Target, Upstreams,
};

/// What the handler was told.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) refused: Mutex<Vec<(u16, &'static str)>>,
    pub(super) ends: Mutex<Vec<End>>,
}

pub(super) struct Rig {
    pub(super) runtime: Runtime,
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
    server: Option<Server>,
}

pub(super) struct Setup {
    pub(super) limits: ServeLimits,
    pub(super) pool: PoolLimits,
    pub(super) send: SendOptions,
    pub(super) workers: usize,
    pub(super) target: Option<Arc<Target>>,
    pub(super) router: Option<Router>,
    pub(super) listener: Listener,
    pub(super) policy: AddressPolicy,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: ServeLimits::default(),
            pool: PoolLimits::default(),
            send: SendOptions::default(),
            workers: 1,
            target: None,
            router: None,
            listener: Listener::plain("test", ([127, 0, 0, 1], 0).into()),
            policy: Arc::new(|_| true),
        }
    }
}

impl Rig {
    pub(super) fn new(backend: &Backend) -> Self {
        Self::with(backend, Setup::default())
    }

    pub(super) fn with(backend: &Backend, setup: Setup) -> Self {
        Self::start(Setup {
            target: Some(Arc::new(backend.target())),
            ..setup
        })
    }

    pub(super) fn start(setup: Setup) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let bound = bind(&setup.listener, setup.workers).unwrap();
        let address = bound.address;
        let seen = Arc::new(Seen::default());
        let options = Options {
            workers: setup.workers,
            limits: setup.limits,
            shared: runtime.handle().clone(),
        };
        let told = Arc::clone(&seen);
        let (target, router, pool, send, policy) = (
            setup.target,
            setup.router,
            setup.pool,
            setup.send,
            setup.policy,
        );
        let server = Server::start(&options, vec![bound], move |worker| {
            Rc::new(Relay {
                upstreams: Upstreams::new(worker, pool, Arc::clone(&policy)),
                target: target.clone(),
                router: router.clone(),
                send,
                seen: Arc::clone(&told),
            })
        })
        .unwrap();
        Self {
            runtime,
            address,
            seen,
            server: Some(server),
        }
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own; the whole answer until the connection closes.
    pub(super) fn once(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.client();
        client.send(bytes);
        client.until_close()
    }

    pub(super) fn control(&self) -> Control {
        self.server.as_ref().unwrap().control().clone()
    }

    pub(super) fn stop(&mut self, deadline: Duration) -> Vec<Cut> {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.stop(deadline))
    }

    /// Waits until `n` requests have ended, and says how.
    pub(super) fn ends(&self, n: usize) -> Vec<End> {
        super::client::eventually(|| {
            let ends = self.seen.ends.lock();
            (ends.len() >= n).then(|| ends.clone())
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop(Duration::ZERO));
        }
    }
}

struct Relay {
    upstreams: Rc<Upstreams>,
    target: Option<Arc<Target>>,
    router: Option<Router>,
    send: SendOptions,
    seen: Arc<Seen>,
}

impl Handler for Relay {
    type Log = ();

    async fn handle(
        self: &Rc<Self>,
        mut request: Request<ReqBody>,
        stream: &Rc<Stream>,
    ) -> (Response<RespBody>, ()) {
        if let Some(user) = request
            .headers()
            .get("x-user")
            .and_then(|u| u.to_str().ok())
        {
            stream.set_keys(Rc::from([Box::from(format!("user:{user}"))]));
        }
        if request.uri().path() == "/limited" {
            request.body_mut().set_limit(10);
        }
        assert!(request.uri().path() != "/bug", "a bug of the handler");
        if request.uri().path() == "/early" {
            return (status(StatusCode::UNAUTHORIZED, "early"), ());
        }
        if let Some(router) = &self.router {
            return match call(stream.worker(), router, request, false).await {
                Ok(response) => (response, ()),
                Err(e) => (
                    status(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
                    (),
                ),
            };
        }
        let target = self.target.as_ref().expect("a back end or a router");
        match self.upstreams.send(target, request, &self.send).await {
            Ok(response) => (response, ()),
            Err(e) => (failed(&e), ()),
        }
    }

    fn finished(&self, (): (), end: &End) {
        self.seen.ends.lock().push(*end);
    }

    fn refused(&self, _conn: &ConnInfo, status: StatusCode, kind: &'static str) -> String {
        self.seen.refused.lock().push((status.as_u16(), kind));
        "request-1".to_owned()
    }
}

fn failed(e: &SendError) -> Response<RespBody> {
    let code = match &e.kind {
        SendErrorKind::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        SendErrorKind::QueueFull => StatusCode::SERVICE_UNAVAILABLE,
        SendErrorKind::RequestBody(BodyError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        SendErrorKind::RequestBody(BodyError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
        SendErrorKind::RequestBody(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    };
    status(code, &e.kind.to_string())
}

fn status(code: StatusCode, text: &str) -> Response<RespBody> {
    let mut response = Response::new(RespBody::from(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = code;
    response
}
