//! The seam downward: sends requests to instances and streams their answers.
//!
//! One [`Upstreams`] a worker. A request and its answer are driven inside the task that asks for
//! them; nothing is spawned for an HTTP/1.1 exchange.

mod connect;
mod error;
mod exchange;
mod frames;
mod h2;
mod link;
mod pool;
mod resolve;
mod target;
mod tls;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};

pub use error::{SendError, SendErrorKind, TimeoutKind};
pub(crate) use frames::fuzz as fuzz_frames;
pub(crate) use h2::Streamed;
pub(crate) use link::Link;
pub use pool::PoolSize;
pub use target::{Endpoint, Protocol, Target, TlsTarget};
pub(crate) use tunnel::{Tunnel, relay};

use crate::body::{ReqBody, RespBody};
use crate::serve::Worker;
use pool::Pool;

/// Says whether an address that a name resolved to may be connected to.
pub type AddressPolicy = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Time limits of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// Name lookup, TCP and TLS together.
    pub connect: Duration,
    /// From the last byte of the request sent to the first of the answer.
    pub first_byte: Duration,
    /// Between two reads of the answer's body; see [`RespBody::set_between_bytes`].
    pub between_bytes: Duration,
    /// From the call to the answer's head; what is left of the client's deadline.
    pub total: Option<Duration>,
    /// Keep up to 64 KiB of the request's body so that it can be sent again.
    pub hold_body: bool,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(30),
            between_bytes: Duration::from_secs(60),
            total: None,
            hold_body: true,
        }
    }
}

/// Limits of the pools of one process; each worker has an equal share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept for an instance and worker.
    pub idle: usize,
    /// How long they are kept when the instance does not say.
    pub idle_life: Duration,
    /// Age at which a connection is not used again; up to a tenth is taken off at random.
    pub max_age: Duration,
    /// Connections to an instance in the process.
    pub connections: usize,
    /// Requests that may wait for one in the process, and how long.
    pub queue: usize,
    pub queue_wait: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle: 64,
            idle_life: Duration::from_secs(4),
            max_age: Duration::from_secs(600),
            connections: 1024,
            queue: 100,
            queue_wait: Duration::from_secs(1),
        }
    }
}

/// The connections of one worker to all instances.
pub struct Upstreams {
    worker: Rc<Worker>,
    limits: Cell<PoolLimits>,
    policy: AddressPolicy,
    tls: tls::Connectors,
    names: resolve::Names,
    pools: RefCell<HashMap<u64, Rc<Pool>, foldhash::fast::RandomState>>,
}

impl Upstreams {
    /// Built once a worker, in the handler's factory.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, limits: PoolLimits, policy: AddressPolicy) -> Rc<Self> {
        let upstreams = Rc::new(Self {
            worker: Rc::clone(worker),
            limits: Cell::new(limits),
            policy,
            tls: tls::Connectors::default(),
            names: resolve::Names::default(),
            pools: RefCell::default(),
        });
        let weak = Rc::downgrade(&upstreams);
        worker.on_tick(Box::new(move || {
            if let Some(upstreams) = weak.upgrade() {
                upstreams.sweep();
            }
        }));
        upstreams
    }

    /// Sends `request` to `target`; the answer's body streams from the connection.
    ///
    /// The URI's path and query are forwarded as they are; hop-by-hop fields are made anew. A dead
    /// pooled connection is retried once on a new one (RFC 9112 §9.3.1): an idempotent request whose
    /// body is still held, any other only when no byte of it was written.
    ///
    /// # Errors
    /// Gives the request back when it may be sent again; see [`SendError`].
    pub async fn send(
        self: &Rc<Self>,
        target: &Arc<Target>,
        request: Request<ReqBody>,
        options: &SendOptions,
    ) -> Result<Response<RespBody>, SendError> {
        match target.protocol {
            Protocol::Http1 => exchange::send(self, target, request, options).await,
            Protocol::Http2 => h2::send(self, target, request, options).await,
        }
    }

    /// Open connections to all instances, idle ones among them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.pools.borrow().values().map(|pool| pool.open()).sum()
    }

    /// Takes new limits, for connections that are there and for new ones.
    pub fn set_limits(&self, limits: PoolLimits) {
        if self.limits.replace(limits) != limits {
            for pool in self.pools.borrow().values() {
                pool.set_limits(&self.worker, &limits);
            }
        }
    }

    /// The connections to each instance, by the key of its target.
    #[must_use]
    pub fn sizes(&self) -> Vec<(u64, PoolSize)> {
        let pools = self.pools.borrow();
        pools
            .iter()
            .map(|(key, pool)| (*key, pool.size()))
            .collect()
    }

    fn pool(self: &Rc<Self>, target: &Arc<Target>) -> Rc<Pool> {
        if let Some(pool) = self.pools.borrow().get(&target.key()) {
            return Rc::clone(pool);
        }
        let pool = Pool::new(&self.worker, &self.limits.get());
        self.pools
            .borrow_mut()
            .insert(target.key(), Rc::clone(&pool));
        pool
    }

    /// Closes what has been idle for too long and forgets empty pools.
    fn sweep(&self) {
        let now = self.worker.timers.now();
        self.pools.borrow_mut().retain(|_, pool| pool.sweep(now));
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        for pool in self.pools.borrow().values() {
            pool.close();
        }
    }
}
