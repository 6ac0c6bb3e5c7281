//! A switched connection: bytes are relayed both ways, and only the ends of frames are looked for, so
//! that a drain can say goodbye between two of them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use super::link::Link;
use super::pool::Permit;
use super::target::Target;
use crate::serve::Worker;
use crate::serve::buffers::Block;
use crate::serve::io::Io;

/// The instance's side of a tunnel.
pub(crate) struct Tunnel {
    io: Io,
    /// Bytes that came right behind the head of its 101.
    early: Option<Block>,
    /// Set once the instance leaves.
    leaving: Arc<AtomicBool>,
    _permit: Permit,
}

impl Tunnel {
    pub(super) fn new(link: Link, target: &Target) -> Self {
        let (io, early, permit) = link.into_tunnel();
        Self {
            io,
            early,
            leaving: target.leaving(),
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

/// "Going away" (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;
/// How long the sockets of an instance that leaves may go on, and how often that is looked at.
const GRACE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(2);
/// How long both sides have to answer our Close.
const CLOSING: Duration = Duration::from_secs(1);

/// Relays until both directions have ended, one of them failed, or nothing moved for `idle`.
/// The end of one direction is passed on, the other goes on (half-close). A drain, ours or the
/// instance's, ends it with a Close frame to both sides.
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
    let mut up = Direction::new(early);
    let mut down = Direction::new(tunnel.early);
    let timer = worker.timers.timer();
    timer.set(idle);
    let mut goodbye = Goodbye::Unsaid;
    let goodbye_timer = worker.timers.timer();
    goodbye_timer.set(LOOK);
    worker.stats.tunnels.add(1);
    let _count = OnDrop(|| worker.stats.tunnels.sub(1));
    let mut timed_out = false;
    poll_fn(|cx| {
        if goodbye == Goodbye::Unsaid {
            if worker.is_draining() {
                goodbye = Goodbye::Due;
                goodbye_timer.set(worker.farewell.get().mul_f64(rand::random()));
            } else if goodbye_timer.poll(cx).is_ready() {
                if tunnel.leaving.load(Ordering::Relaxed) {
                    goodbye = Goodbye::Due;
                    goodbye_timer.set(GRACE);
                } else {
                    goodbye_timer.set(LOOK);
                    let _later = goodbye_timer.poll(cx);
                }
            }
        }
        if goodbye == Goodbye::Due && goodbye_timer.poll(cx).is_ready() {
            goodbye = Goodbye::Saying;
            up.last_words = Some(LastWords::masked(rand::random()));
            down.last_words = Some(LastWords::plain());
        }
        let before = up.moved + down.moved;
        let upward = up.poll(client, &mut instance, worker, cx);
        let downward = down.poll(&mut instance, client, worker, cx);
        let moved = up.moved + down.moved - before;
        if moved > 0 {
            worker.stats.tunnel_bytes.add(moved);
            timer.set(idle);
        }
        if goodbye == Goodbye::Saying && up.has_said() && down.has_said() {
            goodbye = Goodbye::Said;
            goodbye_timer.set(CLOSING);
        }
        match (upward, downward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(())))
            | (Poll::Ready(Err(_)), _)
            | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            _ if goodbye == Goodbye::Said && goodbye_timer.poll(cx).is_ready() => Poll::Ready(()),
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

/// How far we are with leaving.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    Unsaid,
    /// At its time: not all connections of a process leave at the same moment.
    Due,
    /// As soon as the present frames have passed.
    Saying,
    /// Both sides may answer.
    Said,
}

/// Our Close frame, and how much of it was written.
struct LastWords {
    bytes: [u8; 8],
    length: usize,
    written: usize,
}

impl LastWords {
    fn plain() -> Self {
        let [a, b] = GOING_AWAY.to_be_bytes();
        Self {
            bytes: [0x88, 2, a, b, 0, 0, 0, 0],
            length: 4,
            written: 0,
        }
    }

    /// A client's frames are masked (RFC 6455 §5.3).
    fn masked(mask: [u8; 4]) -> Self {
        let [a, b] = GOING_AWAY.to_be_bytes();
        let [m0, m1, m2, m3] = mask;
        Self {
            bytes: [0x88, 0x82, m0, m1, m2, m3, a ^ m0, b ^ m1],
            length: 8,
            written: 0,
        }
    }

    fn is_said(&self) -> bool {
        self.written == self.length
    }
}

#[derive(Default)]
struct Direction {
    block: Option<Block>,
    frames: Frames,
    unflushed: bool,
    ended: bool,
    shut: bool,
    moved: u64,
    last_words: Option<LastWords>,
}

impl Direction {
    fn new(early: Option<Block>) -> Self {
        let block = early.filter(|b| !b.is_empty());
        let mut frames = Frames::default();
        if let Some(block) = &block {
            frames.advance(block.data());
        }
        Self {
            block,
            frames,
            ..Self::default()
        }
    }

    fn has_said(&self) -> bool {
        self.ended || self.last_words.as_ref().is_some_and(LastWords::is_said)
    }

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
            ready!(self.poll_write(to, cx))?;
            if self.ended {
                if !self.shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            if self.frames.is_between() && self.last_words.is_some() {
                ready!(self.poll_say(to, cx))?;
                if self.frames.is_closed() {
                    return Poll::Ready(Ok(()));
                }
            }
            match self.poll_read(from, worker, cx) {
                Poll::Ready(read) => read?,
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

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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
        Poll::Ready(Ok(()))
    }

    /// Writes our Close, unless the other side's has gone through already.
    fn poll_say<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(words) = &mut self.last_words else {
            return Poll::Ready(Ok(()));
        };
        if words.written == 0 && self.frames.is_closed() {
            words.written = words.length;
        }
        while !words.is_said() {
            let rest = &words.bytes[words.written..words.length];
            let n = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            words.written += n;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        worker: &Worker,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut block = worker.buffers.take();
        let room = block.spare();
        let said = self.last_words.as_ref().is_some_and(LastWords::is_said);
        let most = match &self.last_words {
            // Not beyond the frame behind which our own must stand.
            Some(_) if !said => usize::try_from(self.frames.left()).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let most = most.min(room.len());
        let mut buf = ReadBuf::new(&mut room[..most]);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        let n = buf.filled().len();
        block.commit(n);
        self.frames.advance(block.data());
        if n == 0 {
            self.ended = true;
        } else if !said {
            self.block = Some(block);
        }
        // Nothing is passed on behind a Close.
        Poll::Ready(Ok(()))
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
