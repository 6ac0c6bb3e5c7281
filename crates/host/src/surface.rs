//! Surfaces: the listeners that services open, bound last and drained first.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use futures_util::future::BoxFuture;
use portico_web::lean::serve;
use portico_web::serve::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Something that listens once it is bound.
pub trait Surface: Send {
    /// Key of its address in the `listen` section and in the ready line (`http`, `consul`).
    fn name(&self) -> &'static str;

    /// The configured address; port 0 takes a free one.
    fn address(&self) -> SocketAddr;

    /// `http` or `https`.
    fn scheme(&self) -> &'static str {
        "http"
    }

    /// Binds and begins to serve. May be called again with another address when a port is taken.
    fn bind(&mut self, address: SocketAddr) -> io::Result<Box<dyn Open>>;
}

/// A bound surface.
pub trait Open: Send {
    /// The real address.
    fn local_address(&self) -> SocketAddr;

    /// Further listeners of the same surface: name, scheme, real address.
    fn others(&self) -> Vec<(&'static str, &'static str, SocketAddr)> {
        Vec::new()
    }

    /// Asks clients to go elsewhere with their next request, while everything is still served: an
    /// answer says that it is the last on its connection. Comes as soon as the process is unready,
    /// some time before [`Open::drain`], so that nobody sends on a connection that is being closed.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Stops accepting, lets requests finish, at most for `grace`, then cuts the rest.
    fn drain(self: Box<Self>, grace: Duration) -> BoxFuture<'static, Drained>;
}

/// How a drain ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// What had to be cut, one line each.
    pub cut: Vec<String>,
}

/// A surface that serves an axum router on the shared runtime.
pub struct HttpSurface {
    name: &'static str,
    address: SocketAddr,
    router: Router,
    limits: Limits,
    runtime: tokio::runtime::Handle,
}

impl HttpSurface {
    /// A surface of a router.
    #[must_use]
    pub fn new(
        name: &'static str,
        address: SocketAddr,
        router: Router,
        limits: Limits,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            name,
            address,
            router,
            limits,
            runtime,
        }
    }
}

impl Surface for HttpSurface {
    fn name(&self) -> &'static str {
        self.name
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn bind(&mut self, address: SocketAddr) -> io::Result<Box<dyn Open>> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let _guard = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let server = serve(
            listener,
            self.router.clone(),
            self.limits,
            tasks.clone(),
            stop.clone(),
        );
        self.runtime.spawn(server);
        Ok(Box::new(OpenHttp {
            name: self.name,
            local,
            tasks,
            stop,
        }))
    }
}

struct OpenHttp {
    name: &'static str,
    local: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Open for OpenHttp {
    fn local_address(&self) -> SocketAddr {
        self.local
    }

    fn drain(self: Box<Self>, grace: Duration) -> BoxFuture<'static, Drained> {
        Box::pin(async move {
            self.stop.cancel();
            self.tasks.close();
            match tokio::time::timeout(grace, self.tasks.wait()).await {
                Ok(()) => Drained::default(),
                Err(_) => Drained {
                    cut: vec![format!("{}: {} connections", self.name, self.tasks.len())],
                },
            }
        })
    }
}
