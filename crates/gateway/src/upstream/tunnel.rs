//! A switched connection: bytes are relayed both ways and not looked at.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;
use super::pool::Permit;
use crate::serve::Worker;
use crate::serve::buffers::Block;
use crate::serve::io::Io;

/// The instance's side of a tunnel.
pub(crate) struct Tunnel {
    io: Io,
    /// Bytes that came right behind the head of its 101.
    early: Option<Block>,
    _permit: Permit,
}

impl Tunnel {
    pub(super) fn new(link: Link) -> Self {
        let (io, early, permit) = link.into_tunnel();
        Self {
            io,
            early,
            _permit: permit,
        }
    }
}

/// Why a tunnel ended, and what passed through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relayed {
    pub(crate) to_client: u64,
    pub(crate) to_instance: u64,
    /// Neither side said anything for too long.
    pub(crate) idle: bool,
}

/// Relays until both directions have ended, one of them failed, or nothing moved for `idle`.
/// The end of one direction is passed on, the other goes on (half-close).
pub(crate) async fn relay<C>(
    client: &mut C,
    early: Option<Block>,
    tunnel: Tunnel,
    worker: &Rc<Worker>,
    idle: Duration,
) -> Relayed
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut instance = tunnel.io;
    let mut up = Direction {
        block: early.filter(|b| !b.is_empty()),
        ..Direction::default()
    };
    let mut down = Direction {
        block: tunnel.early.filter(|b| !b.is_empty()),
        ..Direction::default()
    };
    let timer = worker.timers.timer();
    timer.set(idle);
    worker.stats.tunnels.add(1);
    let _count = OnDrop(|| worker.stats.tunnels.sub(1));
    let mut timed_out = false;
    poll_fn(|cx| {
        let before = up.moved + down.moved;
        let upward = up.poll(client, &mut instance, worker, cx);
        let downward = down.poll(&mut instance, client, worker, cx);
        let moved = up.moved + down.moved - before;
        if moved > 0 {
            worker.stats.tunnel_bytes.add(moved);
            timer.set(idle);
        }
        match (upward, downward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(())))
            | (Poll::Ready(Err(_)), _)
            | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            _ if timer.poll(cx).is_ready() => {
                timed_out = true;
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    })
    .await;
    Relayed {
        to_client: down.moved,
        to_instance: up.moved,
        idle: timed_out,
    }
}

#[derive(Default)]
struct Direction {
    block: Option<Block>,
    unflushed: bool,
    ended: bool,
    shut: bool,
    moved: u64,
}

impl Direction {
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        worker: &Worker,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while let Some(block) = &mut self.block {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, block.data()))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                block.advance(n);
                self.moved += n as u64;
                self.unflushed = true;
                if block.is_empty() {
                    self.block = None;
                }
            }
            if self.ended {
                if !self.shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut block = worker.buffers.take();
            let mut buf = ReadBuf::new(block.spare());
            match Pin::new(&mut *from).poll_read(cx, &mut buf) {
                Poll::Ready(read) => {
                    read?;
                    let n = buf.filled().len();
                    block.commit(n);
                    if n == 0 {
                        self.ended = true
                    } else {
                        self.block = Some(block)
                    }
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
