//! A mail server on this machine that keeps what it is given, and refuses what it is told to (RFC 5321).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A mail as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// Envelope: from whom.
    pub from: String,
    /// Envelope: to whom.
    pub to: String,
    /// Headers and body, as sent.
    pub raw: String,
}

impl Received {
    /// The value of a header, unfolded.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.raw.split("\r\n\r\n").next()?;
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        unfolded.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }

    /// The parts of a multipart mail, decoded: their type and their text.
    #[must_use]
    pub fn parts(&self) -> Vec<(String, String)> {
        let content_type = self.header("content-type").unwrap_or_default();
        let Some((_, rest)) = content_type.split_once("boundary=") else {
            return Vec::new();
        };
        let boundary = rest.split(';').next().unwrap_or_default().trim_matches('"');
        self.raw
            .split(&format!("--{boundary}"))
            .skip(1)
            // Behind the last boundary there is nothing.
            .filter(|part| !part.starts_with("--"))
            .filter_map(|part| part.split_once("\r\n\r\n"))
            .map(|(head, body)| {
                let head = head.to_lowercase();
                let kind = if head.contains("text/html") {
                    "html"
                } else {
                    "text"
                };
                (kind.to_owned(), decoded(&head, body))
            })
            .collect()
    }

    /// The plain text.
    #[must_use]
    pub fn text(&self) -> String {
        let parts = self.parts().into_iter();
        let mut texts = parts.filter(|(kind, _)| kind == "text");
        texts.next().map(|(_, text)| text).unwrap_or_default()
    }
}

/// The server. Dropping it stops it.
#[derive(Debug)]
pub struct SmtpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    mails: watch::Sender<Vec<Received>>,
    /// Answers to the next recipients, instead of taking them.
    refusals: Mutex<Vec<String>>,
    /// Connections so far.
    connections: Mutex<u32>,
}

impl SmtpServer {
    /// Starts on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *lock(&serving.connections) += 1;
                let shared = Arc::clone(&serving);
                tokio::spawn(async move { talk(stream, &shared).await });
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Refuses the next recipients with these lines (`451 later`), one each.
    pub fn refuse(&self, lines: &[&str]) {
        *lock(&self.shared.refusals) = lines.iter().rev().map(ToString::to_string).collect();
    }

    /// The mails so far.
    #[must_use]
    pub fn mails(&self) -> Vec<Received> {
        self.shared.mails.borrow().clone()
    }

    /// Waits until there are so many mails, and gives them.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut mails = self.shared.mails.subscribe();
        let waiting = mails.wait_for(|mails| mails.len() >= count);
        let limit = std::time::Duration::from_secs(30);
        let all = tokio::time::timeout(limit, waiting).await;
        all.expect("the mails come in time")
            .expect("the server is there")
            .clone()
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u32 {
        *lock(&self.shared.connections)
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk(stream: TcpStream, shared: &Shared) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let (mut from, mut to) = (String::new(), String::new());
    write.write_all(b"220 test\r\n").await.ok()?;
    while let Some(line) = lines.next_line().await.ok()? {
        let upper = line.to_uppercase();
        let answer = if upper.starts_with("EHLO") {
            "250-test\r\n250 8BITMIME".to_owned()
        } else if upper.starts_with("MAIL FROM:") {
            from = address(&line);
            "250 ok".to_owned()
        } else if upper.starts_with("RCPT TO:") {
            to = address(&line);
            let refusal = lock(&shared.refusals).pop();
            refusal.unwrap_or_else(|| "250 ok".to_owned())
        } else if upper == "DATA" {
            write.write_all(b"354 go on\r\n").await.ok()?;
            let mut raw = String::new();
            while let Some(line) = lines.next_line().await.ok()? {
                if line == "." {
                    break;
                }
                raw.push_str(line.strip_prefix('.').unwrap_or(&line));
                raw.push_str("\r\n");
            }
            let mail = Received {
                from: from.clone(),
                to: to.clone(),
                raw,
            };
            shared.mails.send_modify(|mails| mails.push(mail));
            "250 kept".to_owned()
        } else if upper == "QUIT" {
            write.write_all(b"221 bye\r\n").await.ok()?;
            return Some(());
        } else {
            "250 ok".to_owned()
        };
        write
            .write_all(format!("{answer}\r\n").as_bytes())
            .await
            .ok()?;
    }
    Some(())
}

fn address(line: &str) -> String {
    let inner = line.split_once('<').map_or("", |(_, rest)| rest);
    inner.split('>').next().unwrap_or_default().to_owned()
}

fn decoded(head: &str, body: &str) -> String {
    if head.contains("base64") {
        let joined: String = body
            .split_whitespace()
            .take_while(|l| !l.starts_with("--"))
            .collect();
        let bytes = STANDARD.decode(joined).unwrap_or_default();
        return String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    }
    if !head.contains("quoted-printable") {
        return body.replace("\r\n", "\n");
    }
    let mut bytes = Vec::new();
    let joined = body.replace("=\r\n", "");
    let mut rest = joined.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        match digits.map(|d| u8::from_str_radix(d, 16)) {
            Some(Ok(byte)) if first == b'=' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
