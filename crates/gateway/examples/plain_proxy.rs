//! A plain proxy on the data plane alone, for measuring: `plain_proxy LISTEN UPSTREAM [WORKERS]`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use portico_gateway::body::{ReqBody, RespBody};
use portico_gateway::serve::{
    ConnInfo, End, Handler, Listener, Options, ServeLimits, Server, Stream, bind,
};
use portico_gateway::upstream::{Endpoint, PoolLimits, Protocol, SendOptions, Target, Upstreams};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Proxy {
    upstreams: Rc<Upstreams>,
    target: Arc<Target>,
    options: SendOptions,
}

impl Handler for Proxy {
    type Log = ();

    async fn handle(
        self: &Rc<Self>,
        request: Request<ReqBody>,
        _stream: &Rc<Stream>,
    ) -> (Response<RespBody>, ()) {
        match self
            .upstreams
            .send(&self.target, request, &self.options)
            .await
        {
            Ok(response) => (response, ()),
            Err(e) => {
                let mut response = Response::new(RespBody::from(e.to_string()));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                (response, ())
            }
        }
    }

    fn finished(&self, (): (), _end: &End) {}

    fn refused(&self, _conn: &ConnInfo, _status: StatusCode, kind: &'static str) -> String {
        kind.to_owned()
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let listen: SocketAddr = args.next().expect("LISTEN").parse().expect("an address");
    let upstream: SocketAddr = args.next().expect("UPSTREAM").parse().expect("an address");
    let workers = args.next().map_or(1, |n| n.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = bind(&Listener::plain("public", listen), workers).expect("a free port");
    let endpoint = Endpoint::Tcp {
        host: upstream.ip().to_string().into(),
        port: upstream.port(),
    };
    let target = Arc::new(Target::new("upstream", endpoint, Protocol::Http1, None));
    let limits = ServeLimits::default();
    let options = Options {
        workers,
        limits,
        shared: runtime.handle().clone(),
    };
    let server = Server::start(&options, vec![listener], move |worker| {
        let upstreams = Upstreams::new(worker, PoolLimits::default(), Arc::new(|_| true));
        Rc::new(Proxy {
            upstreams,
            target: Arc::clone(&target),
            options: SendOptions::default(),
        })
    })
    .expect("workers");
    runtime.block_on(async {
        tokio::signal::ctrl_c().await.expect("signals");
        server.stop(Duration::from_secs(1)).await;
    });
}
