//! The listener: when it drains, whoever waits is answered at once instead of holding it open.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico_host::{Drained, HttpSurface, Open, Surface};
use tokio_util::sync::CancellationToken;

/// A surface whose blocking queries end with it.
pub(super) struct Listener {
    pub inner: HttpSurface,
    /// Cancelled when the drain begins.
    pub leave: CancellationToken,
}

struct Opened {
    inner: Box<dyn Open>,
    leave: CancellationToken,
}

impl Surface for Listener {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn address(&self) -> SocketAddr {
        self.inner.address()
    }

    fn bind(&mut self, address: SocketAddr) -> io::Result<Box<dyn Open>> {
        let inner = self.inner.bind(address)?;
        Ok(Box::new(Opened {
            inner,
            leave: self.leave.clone(),
        }))
    }
}

impl Open for Opened {
    fn local_address(&self) -> SocketAddr {
        self.inner.local_address()
    }

    fn drain(self: Box<Self>, grace: Duration) -> BoxFuture<'static, Drained> {
        self.leave.cancel();
        self.inner.drain(grace)
    }
}
