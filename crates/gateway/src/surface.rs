//! The public listeners as a surface of the host: plain and TLS, served by the same workers.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico_contract::streams::{StreamCloser, StreamOwner};
use portico_host::{Drained, Open, Spawner, Surface};

use crate::serve::{Bound, CertStore, Control, Listener, Server, bind};

/// Starts the workers on bound listeners.
pub(crate) type StartWorkers = Box<dyn FnMut(Vec<Bound>) -> io::Result<Server> + Send>;

/// The door's listeners.
pub(crate) struct Door {
    /// Plain HTTP; absent when off.
    pub(crate) http: Option<SocketAddr>,
    /// HTTP over TLS; absent when off.
    pub(crate) https: Option<(SocketAddr, Arc<CertStore>)>,
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
        if self.http.is_some() { "http" } else { "https" }
    }

    fn scheme(&self) -> &'static str {
        self.name()
    }

    fn address(&self) -> SocketAddr {
        self.http
            .or(self.https.as_ref().map(|(address, _)| *address))
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn bind(&mut self, address: SocketAddr) -> io::Result<Box<dyn Open>> {
        let mut bound = Vec::new();
        if self.http.is_some() {
            bound.push(bind(&Listener::plain("http", address), self.workers)?);
        }
        if let Some((tls_address, certificates)) = &self.https {
            let listener = Listener {
                tls: Some(Arc::clone(certificates)),
                ..Listener::plain("https", *tls_address)
            };
            bound.push(bind(&listener, self.workers)?);
        }
        let addresses: Vec<(&'static str, SocketAddr)> = bound
            .iter()
            .map(|bound| (bound.name, bound.address))
            .collect();
        let server = (self.start)(bound)?;
        // Bound once: a second call only follows a failed one.
        let _ = self.control.cell.set(server.control().clone());
        Ok(Box::new(OpenDoor { server, addresses }))
    }
}

struct OpenDoor {
    server: Server,
    addresses: Vec<(&'static str, SocketAddr)>,
}

impl Open for OpenDoor {
    fn local_address(&self) -> SocketAddr {
        self.addresses
            .first()
            .map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)), |(_, a)| *a)
    }

    fn others(&self) -> Vec<(&'static str, &'static str, SocketAddr)> {
        self.addresses
            .iter()
            .skip(1)
            .map(|(name, address)| (*name, *name, *address))
            .collect()
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
