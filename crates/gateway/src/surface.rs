//! The door's listeners as a surface of the host: plain and TLS, served by the same workers.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico_contract::streams::{StreamCloser, StreamOwner};
use portico_host::{Drained, Open, Spawner, Surface};

use crate::serve::{Bound, Control, Listener, Server, bind};

/// Starts the workers on bound listeners.
pub(crate) type StartWorkers = Box<dyn FnMut(Vec<Bound>) -> io::Result<Server> + Send>;

/// The door's listeners.
pub(crate) struct Door {
    /// At least one; the first names the surface.
    pub(crate) listeners: Vec<Listener>,
    pub(crate) workers: usize,
    pub(crate) start: StartWorkers,
    /// Where the control goes once the workers run.
    pub(crate) control: DoorControl,
}

/// The workers' handle, empty until they run. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DoorControl {
    cell: Arc<OnceLock<Control>>,
    spawner: Spawner,
}

impl DoorControl {
    pub(crate) fn new(spawner: Spawner) -> Self {
        Self {
            cell: Arc::default(),
            spawner,
        }
    }

    /// The control, once the workers run.
    pub(crate) fn get(&self) -> Option<&Control> {
        self.cell.get()
    }
}

impl StreamCloser for DoorControl {
    fn close(&self, owner: &StreamOwner) {
        let Some(control) = self.get().cloned() else {
            return;
        };
        let key = match owner {
            StreamOwner::Session(id) => format!("session:{id}"),
            StreamOwner::Subject(id) => format!("user:{id}"),
            StreamOwner::Tenant(id) => format!("tenant:{id}"),
        };
        self.spawner.spawn("close-streams", async move {
            let closed = control.close_streams(&key).await;
            tracing::info!(closed, "open streams were closed by a revocation");
        });
    }
}

impl Surface for Door {
    fn name(&self) -> &'static str {
        self.listeners.first().map_or("http", |first| first.name)
    }

    fn scheme(&self) -> &'static str {
        self.listeners.first().map_or("http", scheme)
    }

    fn address(&self) -> SocketAddr {
        self.listeners.first().map_or_else(
            || SocketAddr::from(([127, 0, 0, 1], 0)),
            |first| first.address,
        )
    }

    fn bind(&mut self, address: SocketAddr) -> io::Result<Box<dyn Open>> {
        let mut bound = Vec::new();
        for (at, listener) in self.listeners.iter().enumerate() {
            let listener = match at {
                0 => Listener {
                    address,
                    ..listener.clone()
                },
                _ => listener.clone(),
            };
            bound.push(bind(&listener, self.workers)?);
        }
        let schemes = self.listeners.iter().map(scheme);
        let addresses: Vec<Place> = bound
            .iter()
            .zip(schemes)
            .map(|(bound, scheme)| (bound.name, scheme, bound.address))
            .collect();
        let server = (self.start)(bound)?;
        // Bound once: a second call only follows a failed one.
        let _ = self.control.cell.set(server.control().clone());
        Ok(Box::new(OpenDoor { server, addresses }))
    }
}

struct OpenDoor {
    server: Server,
    addresses: Vec<Place>,
}

/// Name, scheme and address of a bound listener.
type Place = (&'static str, &'static str, SocketAddr);

fn scheme(listener: &Listener) -> &'static str {
    if listener.tls.is_some() {
        "https"
    } else {
        "http"
    }
}

impl Open for OpenDoor {
    fn local_address(&self) -> SocketAddr {
        self.addresses
            .first()
            .map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)), |(_, _, a)| *a)
    }

    fn others(&self) -> Vec<(&'static str, &'static str, SocketAddr)> {
        self.addresses.iter().skip(1).copied().collect()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.server.control().leave())
    }

    fn drain(self: Box<Self>, grace: Duration) -> BoxFuture<'static, Drained> {
        Box::pin(async move {
            let cut = self.server.stop(grace).await;
            Drained {
                cut: cut
                    .into_iter()
                    .map(|cut| format!("http: {}", cut.what))
                    .collect(),
            }
        })
    }
}
