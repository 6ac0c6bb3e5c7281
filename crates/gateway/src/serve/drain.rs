//! What is left of a request's body when its answer is already known (an early answer): read and
//! thrown away within limits, else the connection is closed.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWriteExt;

use super::h1_state::H1Conn;
use crate::body::{Part, RespBody};

/// Looks, before the answer's head is written, whether the connection will be usable behind it.
/// True also when the answer's own source still reads the body.
pub(super) fn before_answer(conn: &H1Conn, answer: &RespBody) -> bool {
    if conn.is_at_boundary() || answer.may_read_request() {
        return true;
    }
    // A client that waits for 100 may or may not send its body: nobody could tell what comes next.
    if conn.is_waiting_for_continue() || conn.body_fault().is_some() {
        return false;
    }
    let mut left = conn.worker.limits.drain_bytes;
    if conn.body_remaining().is_some_and(|n| n > left) {
        return false;
    }
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match conn.poll_body(&mut cx) {
            Poll::Ready(Some(Ok(part))) => match left.checked_sub(length(&part)) {
                Some(rest) => left = rest,
                None => return false,
            },
            Poll::Ready(None) | Poll::Pending => return true,
            Poll::Ready(Some(Err(_))) => return false,
        }
    }
}

/// Reads the rest of the body behind the answer; true when the connection stands at the next
/// request.
pub(super) async fn rest(conn: &Rc<H1Conn>) -> bool {
    if conn.is_at_boundary() {
        return true;
    }
    if conn.is_waiting_for_continue() {
        return false;
    }
    let limits = &conn.worker.limits;
    let mut left = limits.drain_bytes;
    let read = async {
        loop {
            match poll_fn(|cx| conn.poll_body(cx)).await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(part)) => match left.checked_sub(length(&part)) {
                    Some(rest) => left = rest,
                    None => return false,
                },
            }
        }
    };
    let done = Box::pin(tokio::time::timeout(limits.drain_time, read)).await;
    done.unwrap_or(false) && conn.is_at_boundary()
}

/// Ends our side and reads for a moment what the client still sends: closing at once would make the
/// kernel reset the connection, and the client might lose the answer.
pub(super) async fn linger(conn: &Rc<H1Conn>) {
    let io = conn.io.borrow_mut().take();
    let Some(mut io) = io else { return };
    let limits = &conn.worker.limits;
    let mut left = limits.drain_bytes;
    let read = async {
        if io.shutdown().await.is_err() {
            return;
        }
        loop {
            match poll_fn(|cx| io.poll_fill(cx, conn.worker.buffers.take().spare())).await {
                Ok(n) if n > 0 && n as u64 <= left => left -= n as u64,
                _ => return,
            }
        }
    };
    let _late = Box::pin(tokio::time::timeout(limits.drain_time, read)).await;
}

fn length(part: &Part) -> u64 {
    match part {
        Part::Data(piece) => piece.data().len() as u64,
        Part::Trailers(_) => 0,
    }
}
