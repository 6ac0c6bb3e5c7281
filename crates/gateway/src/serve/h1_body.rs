//! The body of a request on an HTTP/1.1 connection, read from the socket as it is polled.

use std::rc::Rc;
use std::task::{Context, Poll};

use http_body::SizeHint;

use super::h1_state::H1Conn;
use crate::body::{BodyError, Part};

pub(crate) struct H1Body {
    conn: Rc<H1Conn>,
    turn: u64,
}

impl H1Body {
    pub(super) fn new(conn: &Rc<H1Conn>) -> Self {
        Self {
            conn: Rc::clone(conn),
            turn: conn.turn(),
        }
    }

    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, BodyError>>> {
        if self.turn != self.conn.turn() {
            return Poll::Ready(Some(Err(BodyError::ClientGone)));
        }
        self.conn.poll_body(cx)
    }

    pub(crate) fn is_end(&self) -> bool {
        self.turn == self.conn.turn() && self.conn.is_body_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.conn
            .body_remaining()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
