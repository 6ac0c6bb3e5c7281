//! The byte streams that the gateway speaks over: TCP, TLS on either side, unix sockets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// One connection, ours to a client or to an instance.
pub(crate) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Runs one expression on whichever stream it is.
macro_rules! each {
    ($self:expr, $io:ident => $do:expr) => {
        match $self {
            Io::Tcp($io) => $do,
            Io::Unix($io) => $do,
            Io::TlsServer($io) => $do,
            Io::TlsClient($io) => $do,
        }
    };
}

impl Io {
    /// Reads into `room`; `Ok(0)` is the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(room);
        match Pin::new(self).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// True when bytes or the end of the stream are known to be waiting. Costs no system call, so it
    /// can miss what the reactor has not been told yet.
    pub(crate) fn seems_readable(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Io::Tcp(io) => io.poll_read_ready(cx).is_ready(),
            Io::Unix(io) => io.poll_read_ready(cx).is_ready(),
            Io::TlsServer(io) => io.get_ref().0.poll_read_ready(cx).is_ready(),
            Io::TlsClient(io) => io.get_ref().0.poll_read_ready(cx).is_ready(),
        }
    }

    /// Asks the kernel whether the peer sent anything or closed; one system call.
    pub(crate) fn is_readable_now(&self) -> bool {
        let mut one = [std::mem::MaybeUninit::uninit(); 1];
        let peeked = match self {
            Io::Tcp(io) => socket2::SockRef::from(io).peek(&mut one),
            Io::Unix(io) => socket2::SockRef::from(io).peek(&mut one),
            Io::TlsServer(io) => socket2::SockRef::from(io.get_ref().0).peek(&mut one),
            Io::TlsClient(io) => socket2::SockRef::from(io.get_ref().0).peek(&mut one),
        };
        !matches!(peeked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
