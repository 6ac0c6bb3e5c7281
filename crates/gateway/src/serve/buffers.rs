//! The worker's reading and writing blocks: 64 KiB each, shared by all its connections.
//!
//! A connection borrows a block only while bytes are in flight, so an idle one holds no buffer.

use std::cell::RefCell;
use std::rc::Rc;

/// Bytes in one block; also the most that one request buffers in one direction.
pub(crate) const BLOCK: usize = 64 * 1024;

/// Room left in front of what is read, so that a chunk's size line can be put before it in place.
const HEADROOM: usize = 32;

/// Room left behind it, for the chunk's end and the last chunk.
const TAILROOM: usize = 16;

/// Blocks kept for reuse by one worker; more are given back to the allocator.
const KEPT: usize = 16;

/// A worker's stock of blocks.
#[derive(Default)]
pub(crate) struct Buffers {
    free: RefCell<Vec<Box<[u8]>>>,
}

impl Buffers {
    /// Takes an empty block; it returns to the stock when dropped.
    pub(crate) fn take(self: &Rc<Self>) -> Block {
        let bytes = self.free.borrow_mut().pop();
        let bytes = bytes.unwrap_or_else(|| vec![0; BLOCK].into_boxed_slice());
        Block {
            bytes,
            start: HEADROOM,
            end: HEADROOM,
            stock: Rc::clone(self),
        }
    }
}

/// A borrowed block with a window of valid bytes.
pub(crate) struct Block {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    stock: Rc<Buffers>,
}

impl Block {
    /// The valid bytes.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The valid bytes, writable (the chunked decoder compacts in place).
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Room behind the valid bytes, without the last few that framing needs.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        let end = (self.bytes.len() - TAILROOM).max(self.end);
        &mut self.bytes[self.end..end]
    }

    /// Declares the first `n` bytes of the room valid.
    pub(crate) fn commit(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Drops the first `n` valid bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Keeps only the first `n` valid bytes.
    pub(crate) fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n);
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Keeps only `len` bytes from `start` on, both counted in the valid bytes.
    pub(crate) fn narrow(&mut self, start: usize, len: usize) {
        self.advance(start);
        self.truncate(len);
    }

    /// Puts `before` in front of the valid bytes and `after` behind them, where both fit.
    pub(crate) fn wrap(&mut self, before: &[u8], after: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(before.len()) else {
            return false;
        };
        let end = self.end + after.len();
        if end > self.bytes.len() {
            return false;
        }
        self.bytes[start..self.start].copy_from_slice(before);
        self.bytes[self.end..end].copy_from_slice(after);
        (self.start, self.end) = (start, end);
        true
    }

    /// Appends as much of `bytes` as fits; says how much that was.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = bytes.len().min(spare.len());
        spare[..n].copy_from_slice(&bytes[..n]);
        self.commit(n);
        n
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = self.stock.free.borrow_mut();
        if free.len() < KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_returns_to_the_stock_and_comes_back_empty() {
        let stock = Rc::new(Buffers::default());
        let mut block = stock.take();
        assert_eq!(block.push(b"abc"), 3);
        block.advance(1);
        assert_eq!(block.data(), b"bc");
        drop(block);
        assert_eq!(stock.free.borrow().len(), 1);
        let block = stock.take();
        assert!(block.is_empty());
        assert_eq!(stock.free.borrow().len(), 0);
    }

    #[test]
    fn a_full_block_still_has_room_for_chunk_framing() {
        let mut block = Rc::new(Buffers::default()).take();
        let room = block.spare().len();
        assert!(room > BLOCK - 64);
        block.commit(room);
        assert!(block.wrap(b"ffce\r\n", b"\r\n0\r\n\r\n"));
        assert!(block.data().starts_with(b"ffce\r\n") && block.data().ends_with(b"\r\n0\r\n\r\n"));
        assert!(
            !block.wrap(&[b' '; HEADROOM], b""),
            "the room in front is used up"
        );
    }

    #[test]
    fn the_stock_is_bounded() {
        let stock = Rc::new(Buffers::default());
        let blocks: Vec<_> = (0..KEPT + 5).map(|_| stock.take()).collect();
        drop(blocks);
        assert_eq!(stock.free.borrow().len(), KEPT);
    }
}
