//! Requests that the gateway makes by itself: they go through the whole pipeline on a worker, without a client and
//! without a connection (GW-73).

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body as _;
use parking_lot::Mutex;
use portico_base::Principal;
use tokio::sync::{mpsc, oneshot};

use super::door::Door;
use super::gate::Gate;
use crate::body::{ReqBody, RespBody};
use crate::cache::{CACHE_STATUS, X_CACHE};
use crate::route::explain::{Question, explain};
use crate::serve::{Bound, ConnInfo, End, Handler as _, Outcome, Protocol, Stream, TlsInfo};

/// Longest time for one errand, its body included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Errands that wait for the worker; whoever sends more waits.
const QUEUE: usize = 16;
const AGENT: HeaderValue = HeaderValue::from_static("portico-warm-up");

/// What to fetch, always with GET.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    /// Path and query.
    pub(crate) uri: Uri,
    /// As clients write it, with a port that is not the scheme's own.
    pub(crate) host: HeaderValue,
    pub(crate) https: bool,
    /// In whose name; nobody's when absent.
    pub(crate) principal: Option<Arc<Principal>>,
}

/// In whose name a request of our own is made. Clients cannot set it: it is no header.
#[derive(Clone)]
pub(super) struct InTheNameOf(pub(super) Arc<Principal>);

type Order = (Errand, oneshot::Sender<Result<(), String>>);

/// Sends errands to whichever worker took the queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Errands {
    sender: mpsc::Sender<Order>,
    queue: Arc<Queue>,
}

/// The workers' end.
struct Queue {
    /// The first worker takes it.
    orders: Mutex<Option<mpsc::Receiver<Order>>>,
    listener: OnceLock<OwnListener>,
}

/// The listener that clients come in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnListener {
    pub(crate) https: bool,
    pub(crate) port: u16,
}

impl Default for Errands {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let queue = Queue {
            orders: Mutex::new(Some(receiver)),
            listener: OnceLock::new(),
        };
        Self {
            sender,
            queue: Arc::new(queue),
        }
    }
}

impl Errands {
    /// Takes note of the listeners; that with TLS is what clients use when there is one.
    pub(crate) fn opened(&self, bound: &[Bound]) {
        let tls = bound.iter().find(|b| b.name == "https");
        let plain = || bound.iter().find(|b| b.name == "http");
        if let Some(own) = tls.or_else(plain) {
            let own = OwnListener {
                https: own.name == "https",
                port: own.address.port(),
            };
            // Bound again only after a failed start, at the same place.
            let _ = self.queue.listener.set(own);
        }
    }

    /// Where clients come in; nothing before the listeners are open.
    pub(crate) fn listener(&self) -> Option<OwnListener> {
        self.queue.listener.get().copied()
    }

    /// Runs an errand and waits for its end.
    ///
    /// # Errors
    /// Says why the answer is not in the cache now.
    pub(crate) async fn run(&self, errand: Errand) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let sent = self.sender.send((errand, reply)).await;
        if sent.is_err() {
            return Err("no worker runs".to_owned());
        }
        answer
            .await
            .unwrap_or_else(|_| Err("the worker ended".to_owned()))
    }
}

impl Gate {
    /// Whether an errand would find an instance that may be asked now. A refusal for any other reason counts as
    /// ready: it will not change by waiting.
    pub(crate) fn is_ready_for(&self, errand: &Errand) -> bool {
        let nobody = Principal::anonymous();
        let none = http::HeaderMap::new();
        let table = self.table();
        let told = explain(
            &table,
            &Question {
                method: &Method::GET,
                host: errand.host.to_str().unwrap_or(""),
                path: errand.uri.path(),
                query: errand.uri.query(),
                headers: &none,
                principal: errand.principal.as_deref().unwrap_or(&nobody),
                address: Ipv4Addr::UNSPECIFIED.into(),
                now_ms: self.now_ms(),
            },
        );
        // A service that nobody has registered yet may come.
        told.refused
            .is_none_or(|r| r.status != 503 && r.status != 404)
    }
}

impl Door {
    /// Takes the queue of errands, when no other worker has it, and works it off.
    pub(crate) fn serve_errands(self: &Rc<Self>, errands: &Errands) {
        let Some(mut orders) = errands.queue.orders.lock().take() else {
            return;
        };
        let door = Rc::clone(self);
        self.worker.spawn(async move {
            while let Some((errand, reply)) = orders.recv().await {
                let runner = Rc::clone(&door);
                door.worker.spawn(async move {
                    let run = tokio::time::timeout(PATIENCE, Box::pin(runner.run(errand))).await;
                    let _gone = reply.send(run.unwrap_or_else(|_| Err("took too long".to_owned())));
                });
            }
        });
    }

    async fn run(self: Rc<Self>, errand: Errand) -> Result<(), String> {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let conn = ConnInfo {
            id: 0,
            // Not loopback: what is reserved for this machine's own people is not for errands.
            peer: nowhere,
            local: nowhere,
            listener: "warm-up",
            protocol: Protocol::Http1,
            tls: errand.https.then(TlsInfo::default),
        };
        let stream = Stream::open(&self.worker, Rc::new(conn));
        let mut request = Request::new(ReqBody::empty());
        *request.uri_mut() = errand.uri;
        request.headers_mut().insert(header::HOST, errand.host);
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        if let Some(principal) = errand.principal {
            request.extensions_mut().insert(InTheNameOf(principal));
        }
        let (response, log) = Box::pin(self.handle(request, &stream)).await;
        let verdict = verdict(&response);
        let read = read_out(response.into_body()).await;
        let outcome = if read.is_ok() {
            Outcome::Complete
        } else {
            Outcome::Broken
        };
        let end = End {
            outcome,
            sent: 0,
            received: 0,
        };
        self.finished(log, &end);
        read.and(verdict)
    }
}

fn verdict(response: &Response<RespBody>) -> Result<(), String> {
    let status = response.status();
    if !status.is_success() && !status.is_redirection() {
        return Err(format!("status {}", status.as_u16()));
    }
    let field = |name| {
        let value = response.headers().get(name);
        value
            .and_then(|v: &HeaderValue| v.to_str().ok())
            .unwrap_or("")
    };
    match field(X_CACHE) {
        "L1" | "L2" | "STALE" => Ok(()),
        "MISS" if field(CACHE_STATUS).contains("; stored") => Ok(()),
        _ => Err("the answer may not be stored for everybody".to_owned()),
    }
}

async fn read_out(mut body: RespBody) -> Result<(), String> {
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        frame.map_err(|error| error.to_string())?;
    }
    Ok(())
}
