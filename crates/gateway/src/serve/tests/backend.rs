//! Instances that answer as a test wants, and tell what reached them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::upstream::{Endpoint, Protocol, Target};

/// A raw TCP server: `serve` has the connection and its number.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    /// Every byte that came, over all connections.
    pub(super) received: Arc<Mutex<Vec<u8>>>,
    over: Arc<AtomicBool>,
}

/// The server's side of one connection.
pub(super) struct Served {
    pub(super) stream: TcpStream,
    pub(super) number: usize,
    early: Vec<u8>,
    received: Arc<Mutex<Vec<u8>>>,
}

/// A request exactly as it came.
pub(super) struct Raw {
    pub(super) head: String,
    /// With its chunk framing, if it has any.
    pub(super) body: Vec<u8>,
}

impl Backend {
    pub(super) fn new(serve: impl Fn(Served) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let received: Arc<Mutex<Vec<u8>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let (count, log, ended, serve) = (
            Arc::clone(&connections),
            Arc::clone(&received),
            Arc::clone(&over),
            Arc::new(serve),
        );
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                stream
                    .set_read_timeout(Some(Duration::from_secs(15)))
                    .unwrap();
                let served = Served {
                    stream,
                    number,
                    early: Vec::new(),
                    received: Arc::clone(&log),
                };
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(served));
            }
        });
        Self {
            address,
            connections,
            received,
            over,
        }
    }

    /// Answers every request with `answer`, whatever it was.
    pub(super) fn answering(answer: &'static [u8]) -> Self {
        Self::new(move |mut served| {
            while served.request().is_some() {
                if served.stream.write_all(answer).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers with exactly what came.
    pub(super) fn echo() -> Self {
        Self::new(|mut served| {
            while let Some(raw) = served.request() {
                let length = raw.head.len() + raw.body.len();
                let mut answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}",
                    raw.head
                )
                .into_bytes();
                answer.extend_from_slice(&raw.body);
                if served.stream.write_all(&answer).is_err() {
                    return;
                }
            }
        })
    }

    pub(super) fn target(&self) -> Target {
        let endpoint = Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port: self.address.port(),
        };
        Target::new("backend", endpoint, Protocol::Http1, None)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock()).into_owned()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
    }
}

impl Served {
    /// The next request; `None` when the connection ended before one began.
    pub(super) fn request(&mut self) -> Option<Raw> {
        let end = loop {
            if let Some(at) = find(&self.early, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8(self.early.drain(..end).collect()).unwrap();
        let lower = head.to_ascii_lowercase();
        let end = if let Some(at) = lower.find("content-length: ") {
            let length: usize = lower[at + 16..]
                .lines()
                .next()
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            while self.early.len() < length {
                self.fill()?;
            }
            length
        } else if lower.contains("transfer-encoding: chunked") {
            loop {
                // The last chunk is the first line that is a lone zero; bodies of tests have none.
                let last = if self.early.starts_with(b"0\r\n") {
                    Some(0)
                } else {
                    find(&self.early, b"\r\n0\r\n").map(|at| at + 2)
                };
                if let Some(end) =
                    last.and_then(|at| find(&self.early[at..], b"\r\n\r\n").map(|e| at + e + 4))
                {
                    break end;
                }
                self.fill()?;
            }
        } else {
            0
        };
        let body = self.early.drain(..end).collect();
        Some(Raw { head, body })
    }

    /// Only the head, so that the answer can come before the body.
    pub(super) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.early, b"\r\n\r\n") {
                return Some(String::from_utf8(self.early.drain(..at + 4).collect()).unwrap());
            }
            self.fill()?;
        }
    }

    /// Bytes that are there, or the next that come.
    pub(super) fn some(&mut self) -> Option<Vec<u8>> {
        if self.early.is_empty() {
            self.fill()?;
        }
        Some(std::mem::take(&mut self.early))
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The gateway may have gone: tests look at its side.
        let _gone = self.stream.write_all(bytes.as_ref());
    }

    fn fill(&mut self) -> Option<()> {
        let mut room = [0; 64 * 1024];
        let n = self.stream.read(&mut room).ok().filter(|n| *n > 0)?;
        self.early.extend_from_slice(&room[..n]);
        let mut received = self.received.lock();
        if received.len() < 1 << 20 {
            received.extend_from_slice(&room[..n]);
        }
        Some(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
