//! A strict HTTP/1.1 client: one connection, nothing retried, every byte accounted for.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection to a server.
pub(crate) struct Wire {
    stream: TcpStream,
    /// What was read and not used.
    rest: Vec<u8>,
    /// The server said that the last answer was the last.
    pub(crate) is_over: bool,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Wire {
    pub(crate) async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            rest: Vec::new(),
            is_over: false,
        })
    }

    /// True when the server has said or done that nothing more may be asked here.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        self.is_over
            || !matches!(self.stream.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request and reads the whole answer; what comes too early or too short is an error.
    pub(crate) async fn ask(&mut self, request: &str) -> io::Result<Reply> {
        self.send(request.as_bytes()).await?;
        self.reply().await
    }

    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        let head = self.head().await?;
        let mut reply = Reply {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or(0),
            head,
            body: Vec::new(),
        };
        self.is_over = reply
            .header("connection")
            .is_some_and(|c| c.eq_ignore_ascii_case("close"));
        if let Some(length) = reply.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            self.fill(length).await?;
            reply.body = self.rest.drain(..length).collect();
        } else if reply.header("transfer-encoding").is_some() {
            while let Some(piece) = self.chunk().await? {
                reply.body.extend(piece);
            }
        }
        Ok(reply)
    }

    pub(crate) async fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.more().await?;
        }
    }

    /// The next chunk of a chunked body; nothing behind the last.
    pub(crate) async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = loop {
            if let Some(end) = self.rest.windows(2).position(|w| w == b"\r\n") {
                break end;
            }
            self.more().await?;
        };
        let line = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        self.fill(end + 2 + length + 2).await?;
        let mut whole: Vec<u8> = self.rest.drain(..end + 2 + length + 2).collect();
        let piece = whole.drain(end + 2..end + 2 + length).collect();
        Ok((length > 0).then_some(piece))
    }

    async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.rest.len() < length {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        let mut room = [0; 4096];
        match self.stream.read(&mut room).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.rest.extend_from_slice(&room[..n]);
                Ok(())
            }
        }
    }
}
