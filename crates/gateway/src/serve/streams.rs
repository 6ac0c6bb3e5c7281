//! The streams open on one worker, so that they can be found from outside.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::handler::Stream;

/// A table of weak references; a stream takes itself out when it ends.
#[derive(Default)]
pub(crate) struct Streams {
    slots: RefCell<Vec<Option<Weak<Stream>>>>,
    free: RefCell<Vec<u32>>,
}

impl Streams {
    pub(crate) fn insert(&self, stream: &Rc<Stream>) -> u32 {
        let weak = Some(Rc::downgrade(stream));
        let mut slots = self.slots.borrow_mut();
        if let Some(index) = self.free.borrow_mut().pop() {
            slots[index as usize] = weak;
            return index;
        }
        slots.push(weak);
        u32::try_from(slots.len() - 1).expect("a worker has fewer than 2^32 streams")
    }

    pub(crate) fn remove(&self, index: u32) {
        self.slots.borrow_mut()[index as usize] = None;
        self.free.borrow_mut().push(index);
    }

    /// All that are open now.
    pub(crate) fn all(&self) -> Vec<Rc<Stream>> {
        self.slots
            .borrow()
            .iter()
            .flatten()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Cuts the HTTP/2 streams whose client has taken nothing since `tick`. HTTP/1.1 connections
    /// have a timer of their own; here the peer's window keeps our task from being asked at all.
    pub(crate) fn cut_stalled(&self, tick: u32) {
        for stream in self.all() {
            if stream.is_stalled_since(tick) {
                stream.cut();
            }
        }
    }

    /// Cuts every stream that has `key`; says how many.
    pub(crate) fn cut(&self, key: &str) -> usize {
        self.all()
            .iter()
            .filter(|s| s.has_key(key))
            .map(|s| s.cut())
            .count()
    }
}
