//! Bytes on their way to a socket: a head and at most a few pieces, written together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use portico_h1::{CHUNK_PREFIX_MAX, LAST_CHUNK, chunk_prefix};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use super::buffers::{Block, Buffers};
use super::io::Io;
use crate::body::Piece;

/// Up to this size bytes are copied behind others, which is cheaper than a vectored write.
const COALESCE: usize = 16 * 1024;

/// Shared bytes up to this size are copied into a block to be framed there.
const CHUNK: usize = 60 * 1024;

#[derive(Default)]
pub(crate) struct Outbox {
    pieces: SmallVec<[Piece; 2]>,
    /// Bytes that the kernel took.
    written: u64,
    unflushed: bool,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && !self.unflushed
    }

    /// True when only bytes of ours are in it that belong to no answer yet (`100 Continue`).
    pub(crate) fn is_interim(&self) -> bool {
        self.pieces
            .iter()
            .all(|p| matches!(p, Piece::Bytes(b) if b.len() <= portico_h1::CONTINUE.len()))
    }

    /// Bytes that the kernel took since the last reset.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn reset(&mut self) {
        self.pieces.clear();
        self.written = 0;
        self.unflushed = false;
    }

    /// Forgets what cannot be written any more.
    pub(crate) fn pieces_lost(&mut self) {
        self.pieces.clear();
        self.unflushed = false;
    }

    /// Appends a serialised head.
    pub(crate) fn push_block(&mut self, block: Block) {
        self.push(Piece::Block(block));
    }

    /// Appends bytes as they are.
    pub(crate) fn push(&mut self, piece: Piece) {
        if piece.is_empty() {
            return;
        }
        if let Some(Piece::Block(last)) = self.pieces.last_mut() {
            let data = piece.data();
            if data.len() <= COALESCE && last.spare().len() >= data.len() {
                last.push(data);
                return;
            }
        }
        self.pieces.push(piece);
    }

    pub(crate) fn push_static(&mut self, bytes: &'static [u8]) {
        self.push(Piece::Bytes(Bytes::from_static(bytes)));
    }

    /// Appends bytes as one chunk, or several; `last` adds the end of the body.
    pub(crate) fn push_chunk(&mut self, piece: Piece, last: bool, buffers: &Rc<Buffers>) {
        match piece {
            Piece::Block(mut block) => {
                let mut room = [0; CHUNK_PREFIX_MAX];
                let prefix = chunk_prefix(block.len(), &mut room);
                let end: &[u8] = if last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                if block.wrap(prefix, end) {
                    self.push(Piece::Block(block));
                } else {
                    let copy = Bytes::copy_from_slice(block.data());
                    drop(block);
                    self.push_chunk(Piece::Bytes(copy), last, buffers);
                }
            }
            Piece::Bytes(bytes) if bytes.len() <= CHUNK => {
                let mut block = buffers.take();
                block.push(&bytes);
                self.push_chunk(Piece::Block(block), last, buffers);
            }
            Piece::Bytes(bytes) => {
                // Too long for a block of ours, and too long to be worth a copy.
                let mut room = [0; CHUNK_PREFIX_MAX];
                let prefix = Bytes::copy_from_slice(chunk_prefix(bytes.len(), &mut room));
                self.push(Piece::Bytes(prefix));
                self.push(Piece::Bytes(bytes));
                self.push_static(if last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
            }
        }
    }

    /// Appends the end of a chunked body.
    pub(crate) fn push_last_chunk(&mut self) {
        self.push_static(LAST_CHUNK);
    }

    /// Writes until everything is with the kernel.
    pub(crate) fn poll_flush(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            let n = ready!(self.poll_write(io, cx))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n as u64;
            self.unflushed = true;
            self.advance(n);
        }
        if self.unflushed {
            // Plain sockets have nothing to flush; TLS keeps records.
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.pieces.as_slice() {
            [only] => Pin::new(io).poll_write(cx, only.data()),
            pieces => {
                let mut slices = [IoSlice::new(&[]); 8];
                let mut n = 0;
                for (slice, piece) in slices.iter_mut().zip(pieces) {
                    *slice = IoSlice::new(piece.data());
                    n += 1;
                }
                Pin::new(io).poll_write_vectored(cx, &slices[..n])
            }
        }
    }

    fn advance(&mut self, mut n: usize) {
        let mut done = 0;
        for piece in &mut self.pieces {
            let len = piece.data().len();
            if n < len {
                piece.advance(n);
                break;
            }
            n -= len;
            done += 1;
        }
        if done == self.pieces.len() {
            self.pieces.clear();
        } else {
            self.pieces.drain(..done);
        }
    }
}
