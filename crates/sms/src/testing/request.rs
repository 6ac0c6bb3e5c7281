//! A request as it arrived: nothing decoded, nothing reordered.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const LARGEST: usize = 64 * 1024;

/// Request line, headers in their order, body.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST`.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query as it was written, or empty.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The one header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(n, _)| n == name);
        let first = all.next()?;
        all.next().is_none().then_some(first.1.as_str())
    }

    /// Reads one from a connection; nothing when the peer has gone or speaks something else.
    pub(crate) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = find(&bytes, b"\r\n\r\n") {
                break at;
            }
            more(stream, &mut bytes).await?;
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).ok()?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length: usize = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map_or(Some(0), |(_, value)| value.parse().ok())?;
        let body_start = head_end + 4;
        while bytes.len() < body_start + length {
            more(stream, &mut bytes).await?;
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        Some(Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            body: bytes[body_start..body_start + length].to_vec(),
            headers,
        })
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    let n = stream.read(&mut part).await.ok().filter(|n| *n > 0)?;
    bytes.extend_from_slice(&part[..n]);
    (bytes.len() <= LARGEST).then_some(())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
