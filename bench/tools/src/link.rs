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
        }
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
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse())?;
    Ok(Some(Head {
        status,
        end: end + 4,
        length,
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
        };
        assert_eq!(head(text).unwrap(), Some(none));
        assert_eq!(head(&text[..20]).unwrap(), None);
        let long = head(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\n\r\nabc").unwrap();
        assert_eq!(long.map(|h| (h.status, h.length)), Some((200, 12)));
        assert!(head(b"rubbish\r\n\r\n").is_err());
    }
}
