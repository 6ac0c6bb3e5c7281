//! HTTP/1.1 to an instance: a connection, the request, the answer's head, and one retry when a
//! pooled connection turns out to be dead.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use http::request::Parts;
use http::{Request, Response, StatusCode, Version, header};
use portico_h1::ResponseHead;
use tokio::time::Instant;

use super::link::Link;
use super::tunnel::Tunnel;
use super::{SendError, SendErrorKind, SendOptions, Target, TimeoutKind, Upstreams, connect};
use crate::body::{Origin, ReqBody, RespBody};
use crate::serve::UpgradeTo;

pub(super) async fn send(
    upstreams: &Rc<Upstreams>,
    target: &Arc<Target>,
    request: Request<ReqBody>,
    options: &SendOptions,
) -> Result<Response<RespBody>, SendError> {
    let (mut parts, mut body) = request.into_parts();
    add_host(&mut parts, target);
    let mut only_new = false;
    loop {
        let link = match link(upstreams, target, &parts, only_new, options).await {
            Ok(link) => link,
            Err(kind) => return Err(give_back(kind, parts, Some(body), false)),
        };
        let reused = link.is_reused();
        match within_total(options, attempt(target, link, &parts, body, options)).await {
            Ok(response) => return Ok(response),
            Err(Failed {
                kind,
                body: Some(again),
                wrote,
            }) if reused
                && !only_new
                && matches!(kind, SendErrorKind::Reset)
                && (!wrote || parts.method.is_idempotent()) =>
            {
                upstreams.worker.stats.upstream_reconnects.add(1);
                body = again;
                only_new = true;
            }
            Err(failed) => return Err(give_back(failed.kind, parts, failed.body, failed.wrote)),
        }
    }
}

/// An HTTP/1.0 client may leave `Host` out; what goes out is HTTP/1.1 and must have it.
fn add_host(parts: &mut Parts, target: &Target) {
    if parts.version == Version::HTTP_10
        && let header::Entry::Vacant(host) = parts.headers.entry(header::HOST)
    {
        host.insert(target.authority());
    }
}

struct Failed {
    kind: SendErrorKind,
    body: Option<ReqBody>,
    wrote: bool,
}

/// A connection from the pool, or a new one.
async fn link(
    upstreams: &Rc<Upstreams>,
    target: &Arc<Target>,
    parts: &Parts,
    only_new: bool,
    options: &SendOptions,
) -> Result<Box<Link>, SendErrorKind> {
    let pool = upstreams.pool(target);
    // Whoever waits already comes first.
    let mut queue = pool.has_waiters();
    let mut deadline = None;
    loop {
        if queue {
            let until =
                *deadline.get_or_insert_with(|| Instant::now() + upstreams.limits.get().queue_wait);
            pool.wait(until).await?;
        }
        let now = upstreams.worker.timers.now();
        // The readiness is only looked at; the exchange registers its own task.
        let mut cx = Context::from_waker(Waker::noop());
        if !only_new && let Some(link) = pool.take_idle(now, &parts.method, &mut cx) {
            return Ok(link);
        }
        if let Some(permit) = pool.try_permit() {
            return connect::link(upstreams, target, permit, options).await;
        }
        queue = true;
    }
}

async fn attempt(
    target: &Target,
    mut link: Box<Link>,
    parts: &Parts,
    body: ReqBody,
    options: &SendOptions,
) -> Result<Response<RespBody>, Failed> {
    let upgrade = parts.extensions.get::<UpgradeTo>().map(|u| &u.0);
    if let Err(kind) = link.begin(parts, body, upgrade, options) {
        let body = link.take_back();
        return Err(Failed {
            kind,
            body,
            wrote: false,
        });
    }
    match poll_fn(|cx| link.poll_head(&parts.method, cx)).await {
        Ok(head) => answer(target, link, head, upgrade.is_some()),
        Err(kind) => {
            let body = if link.has_seen_answer() {
                None
            } else {
                link.take_back()
            };
            Err(Failed {
                kind,
                body,
                wrote: link.written() > 0,
            })
        }
    }
}

fn answer(
    target: &Target,
    link: Box<Link>,
    mut head: ResponseHead,
    asked_upgrade: bool,
) -> Result<Response<RespBody>, Failed> {
    let origin = if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let (true, Some(protocol)) = (asked_upgrade, head.upgrade.take()) else {
            return Err(Failed {
                kind: SendErrorKind::Invalid("unasked_upgrade"),
                body: None,
                wrote: true,
            });
        };
        head.headers.insert(header::UPGRADE, protocol);
        Origin::Tunnel(Box::new(Tunnel::new(*link, target)))
    } else if link.is_end() {
        link.release();
        Origin::Empty
    } else {
        Origin::Upstream(link)
    };
    let mut response = Response::new(RespBody::from(origin));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// Applies the total limit with the runtime's own timer: routes set it to less than the coarse
/// timers can tell apart.
async fn within_total<T>(
    options: &SendOptions,
    attempt: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let Some(total) = options.total else {
        return attempt.await;
    };
    tokio::time::timeout(total, attempt)
        .await
        .unwrap_or(Err(Failed {
            kind: SendErrorKind::Timeout(TimeoutKind::Total),
            body: None,
            wrote: true,
        }))
}

pub(super) fn give_back(
    kind: SendErrorKind,
    parts: Parts,
    body: Option<ReqBody>,
    wrote: bool,
) -> SendError {
    SendError {
        kind,
        request: body.map(|body| Box::new(Request::from_parts(parts, body))),
        wrote,
    }
}
