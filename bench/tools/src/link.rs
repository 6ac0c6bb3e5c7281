//! A connection of HTTP/1.1 as a measuring client needs it: one request, one answer with a length.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// An answer that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection and what was read from it.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// The last answer said that none follows.
    ended: bool,
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Without them the measurement would be of Nagle's algorithm, or would never end.
        let _plain = stream.set_nodelay(true);
        let _waits = stream.set_read_timeout(Some(PATIENCE));
        Self {
            stream,
            buffer: vec![0; 64 * 1024],
            filled: 0,
            ended: false,
        }
    }

    /// True after an answer of [`Link::whole`] that closes the connection.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads one answer with a length and gives its status; the body is dropped.
    pub(crate) fn answer(&mut self) -> Result<u16> {
        self.filled = 0;
        let (status, mut left) = loop {
            self.fill()?;
            if let Some(head) = head(&self.buffer[..self.filled])? {
                let early = self.filled - head.end;
                break (
                    head.status,
                    head.length
                        .checked_sub(early)
                        .context("too long an answer")?,
                );
            }
        };
        while left > 0 {
            self.filled = 0;
            self.fill()?;
            left = left
                .checked_sub(self.filled)
                .context("too long an answer")?;
        }
        Ok(status)
    }

    /// Reads one answer with a length and gives its status and body.
    pub(crate) fn whole(&mut self) -> Result<(u16, Vec<u8>)> {
        self.filled = 0;
        let found = loop {
            self.fill()?;
            if let Some(head) = head(&self.buffer[..self.filled])? {
                break head;
            }
        };
        let mut body = self.buffer[found.end..self.filled].to_vec();
        while body.len() < found.length {
            self.filled = 0;
            self.fill()?;
            body.extend_from_slice(&self.buffer[..self.filled]);
        }
        self.ended = found.closes;
        Ok((found.status, body))
    }

    fn fill(&mut self) -> Result<()> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => bail!("the connection ended in the middle"),
                Ok(n) => {
                    self.filled += n;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    length: usize,
    /// `Connection: close`.
    closes: bool,
}

/// The head of an answer, once it is whole.
fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end])?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("no status line")?
        .parse()?;
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let field = |wanted: &str| {
        let mut named = fields.iter().filter(|f| f.0.eq_ignore_ascii_case(wanted));
        named.next().map(|(_, value)| value.trim())
    };
    let length = field("content-length").map_or(Ok(0), str::parse)?;
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Head {
        status,
        end: end + 4,
        length,
        closes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let text = b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n";
        let none = Head {
            status: 204,
            end: text.len(),
            length: 0,
            closes: false,
        };
        assert_eq!(head(text).unwrap(), Some(none));
        assert_eq!(head(&text[..20]).unwrap(), None);
        let text = b"HTTP/1.1 200 OK\r\nConnection: Close\r\ncontent-LENGTH: 12\r\n\r\nabc";
        let long = head(text).unwrap();
        assert_eq!(
            long.map(|h| (h.status, h.length, h.closes)),
            Some((200, 12, true))
        );
        assert!(head(b"rubbish\r\n\r\n").is_err());
    }
}
