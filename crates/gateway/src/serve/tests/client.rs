//! A client that sends the bytes it is given and reads answers strictly.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Nothing in these tests takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Client {
    pub(super) stream: TcpStream,
    early: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) trailers: String,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|l| {
            l.split_once(": ")
                .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v)
        })
    }
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            early: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(super) fn shut(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Everything until the gateway closes; a reset counts as closing.
    pub(super) fn until_close(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.early);
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!(
                "not closed ({e}), got {:?}",
                String::from_utf8_lossy(&bytes)
            ),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Exactly `n` bytes.
    pub(super) fn exactly(&mut self, n: usize) -> Vec<u8> {
        self.fill(n);
        let rest = self.early.split_off(n);
        std::mem::replace(&mut self.early, rest)
    }

    /// Bytes read and not asked for yet.
    pub(super) fn buffered(&self) -> usize {
        self.early.len()
    }

    pub(super) fn head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.early.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill(self.early.len() + 1);
        };
        String::from_utf8(self.exactly(end)).unwrap()
    }

    /// One answer to a request that was not HEAD.
    pub(super) fn answer(&mut self) -> Answer {
        let head = self.head();
        let mut answer = Answer {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        if let Some(length) = answer.header("content-length") {
            answer.body = self.exactly(length.parse().unwrap());
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).unwrap();
                if size == 0 {
                    break;
                }
                answer.body.extend(self.exactly(size));
                assert_eq!(self.line(), "");
            }
            loop {
                let line = self.line();
                if line.is_empty() {
                    break;
                }
                answer.trailers.push_str(&line);
                answer.trailers.push('\n');
            }
        } else if !matches!(answer.status(), 100..=199 | 204 | 304) {
            answer.body = self.until_close().into_bytes();
        }
        answer
    }

    pub(super) fn line(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.early.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            self.fill(self.early.len() + 1);
        };
        let line = String::from_utf8(self.exactly(end + 2)).unwrap();
        line.trim_end().to_owned()
    }

    fn fill(&mut self, n: usize) {
        let mut room = [0; 64 * 1024];
        while self.early.len() < n {
            let got = self.stream.read(&mut room).unwrap();
            assert!(
                got > 0,
                "closed too early, got {:?}",
                String::from_utf8_lossy(&self.early)
            );
            self.early.extend_from_slice(&room[..got]);
        }
    }
}

/// Asks until there is an answer; for what happens on another thread.
pub(super) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "it never happened");
        std::thread::yield_now();
    }
}
