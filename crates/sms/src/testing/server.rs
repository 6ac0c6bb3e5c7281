//! The stand-in's connections: what it was told to do, and what it saw.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use portico_base::Clock;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Request, Vendor};
use crate::endpoint::Endpoint;

/// What a stand-in does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Checks it and takes it.
    Take,
    /// Checks it and answers with this code of the vendor.
    Code(String),
    /// Checks it and answers with this status and a body that is no JSON.
    Status(u16),
    /// Reads it and never answers.
    Hang,
    /// Resets the connection before a byte of the request can be used.
    ResetBefore,
    /// Resets the connection when it has the whole request.
    ResetAfter,
    /// Promises more than it sends.
    CutOff,
    /// Answers with more than anybody should read.
    Huge,
}

/// A request that it had whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Number that the code is for; empty when the request was refused.
    pub phone: String,
    /// The code; empty for a notice, and when the request was refused.
    pub code: String,
    /// Template or text of a notice.
    pub notice: Option<String>,
    /// Why it was refused: the vendor's code and a sentence.
    pub refused: Option<String>,
    /// True when the message would have gone to the phone.
    pub delivered: bool,
}

struct Shared {
    vendor: Vendor,
    clock: Arc<dyn Clock>,
    next: Mutex<VecDeque<Behaviour>>,
    always: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
    nonces: Mutex<HashSet<String>>,
}

/// A vendor on this machine, until it is dropped.
pub struct StandIn {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandIn {
    /// Starts one on a free port; signatures are judged by `clock`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(vendor: Vendor, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            vendor,
            clock,
            next: Mutex::default(),
            always: Mutex::new(Behaviour::Take),
            seen: Mutex::default(),
            count: watch::Sender::new(0),
            nonces: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            task,
        })
    }

    /// From now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.always.lock() = behaviour;
    }

    /// For the next connection only; several are taken in turn.
    pub fn once(&self, behaviour: Behaviour) {
        self.shared.next.lock().push_back(behaviour);
    }

    /// Requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// Waits until it has had so many requests.
    pub async fn wait_for(&self, requests: usize) {
        let mut count = self.shared.count.subscribe();
        // The sender is held by this stand-in.
        let _ = count.wait_for(|seen| *seen >= requests).await;
    }

    /// Where it listens, over plain HTTP.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&self.url()).expect("a loopback address is an endpoint")
    }

    /// The same as text.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same port as if it spoke TLS, which it does not.
    #[must_use]
    pub fn endpoint_tls(&self) -> Endpoint {
        Endpoint::parse(&format!("https://{}", self.address))
            .expect("a loopback address is an endpoint")
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let behaviour = shared
                .next
                .lock()
                .pop_front()
                .unwrap_or_else(|| shared.always.lock().clone());
            tokio::spawn(serve(stream, behaviour, Arc::clone(&shared)));
        }
    }
}

async fn serve(mut stream: TcpStream, behaviour: Behaviour, shared: Arc<Shared>) {
    if behaviour == Behaviour::ResetBefore {
        reset(stream);
        return;
    }
    let Some(request) = Request::read(&mut stream).await else {
        return;
    };
    let code = shared.judge(&request, &behaviour);
    let vendor = shared.vendor;
    match (code, behaviour) {
        (Some(refused), _) => answer(&mut stream, vendor.answer(&refused)).await,
        (None, Behaviour::Take) => answer(&mut stream, vendor.answer(vendor.ok())).await,
        (None, Behaviour::Code(code)) => answer(&mut stream, vendor.answer(&code)).await,
        (None, Behaviour::Status(status)) => {
            write(&mut stream, status, "<html>a proxy speaks</html>").await;
        }
        (None, Behaviour::ResetAfter | Behaviour::ResetBefore) => reset(stream),
        (None, Behaviour::CutOff) => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
            let _ = stream.write_all(head).await;
        }
        (None, Behaviour::Huge) => write(&mut stream, 200, &"x".repeat(300 * 1024)).await,
        (None, Behaviour::Hang) => std::future::pending().await,
    }
}

impl Shared {
    /// Checks a request and remembers it; the vendor's code when it is refused.
    fn judge(&self, request: &Request, behaviour: &Behaviour) -> Option<String> {
        let checked = self
            .vendor
            .check(request, self.clock.now().timestamp())
            .and_then(|order| match &order.nonce {
                Some(nonce) if !self.nonces.lock().insert(nonce.clone()) => Err(super::refuse(
                    "SignatureNonceUsed",
                    "the nonce was seen before",
                )),
                _ => Ok(order),
            });
        let (seen, code) = match checked {
            Ok(order) => {
                let delivered = match behaviour {
                    Behaviour::Code(code) => code == self.vendor.ok(),
                    Behaviour::Status(_) | Behaviour::ResetBefore => false,
                    _ => true,
                };
                let seen = Seen {
                    phone: order.phone,
                    code: order.code,
                    notice: order.notice,
                    refused: None,
                    delivered,
                };
                (seen, None)
            }
            Err(refused) => {
                let seen = Seen {
                    phone: String::new(),
                    code: String::new(),
                    notice: None,
                    refused: Some(format!("{}: {}", refused.code, refused.why)),
                    delivered: false,
                };
                (seen, Some(refused.code.to_owned()))
            }
        };
        self.seen.lock().push(seen);
        self.count.send_modify(|count| *count += 1);
        code
    }
}

async fn answer(stream: &mut TcpStream, (status, body): (u16, Value)) {
    write(stream, status, &body.to_string()).await;
}

/// One answer a connection, so that every request meets the behaviour of its own.
async fn write(stream: &mut TcpStream, status: u16, body: &str) {
    let head = format!(
        "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // A client that has gone is its own business.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn reset(stream: TcpStream) {
    // Closing with a linger of zero sends RST instead of FIN.
    let _ = stream.set_zero_linger();
    drop(stream);
}
