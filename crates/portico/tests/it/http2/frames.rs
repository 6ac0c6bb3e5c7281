//! Frames written by hand (RFC 9113 §4) and field blocks in HPACK's plainest form (RFC 7541 §6.2.2).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITISED: u8 = 0x20;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;
pub(super) const COMPRESSION_ERROR: u32 = 9;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// SETTINGS with these values.
pub(super) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values
        .iter()
        .flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes()))
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(super) fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A field as a literal that is not remembered.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "longer ones need more bytes of length");
        out.push(u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The fields of a list.
pub(super) fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// A request's pseudo fields, then `more`.
pub(super) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut out = fields(&[
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
    ]);
    out.extend(fields(more));
    out
}

/// HEADERS with a whole block.
pub(super) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, block)
}

/// GET that ends at once.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM, &request("GET", path, &[]))
}

/// A frame that came.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) payload: Vec<u8>,
}

impl Got {
    /// The error code of a RST_STREAM or GOAWAY.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let bytes = self.payload.get(at..at + 4).and_then(|b| b.try_into().ok());
        u32::from_be_bytes(bytes.unwrap_or_default())
    }
}

/// A connection behind its preface.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    rest: Vec<u8>,
    pub(super) closed: bool,
}

impl Peer {
    /// Connects, and says the preface with empty settings.
    pub(super) fn connect(address: &str) -> Self {
        let mut peer = Self::silent(address);
        peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        peer.send(&settings(&[]));
        peer
    }

    /// Connects and says nothing.
    pub(super) fn silent(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self {
            stream,
            rest: Vec::new(),
            closed: false,
        }
    }

    /// False when the other side takes nothing more.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame within `patience`; nothing when none came or the connection has ended.
    pub(super) fn next(&mut self, patience: Duration) -> Option<Got> {
        let end = Instant::now() + patience;
        loop {
            if let Some(got) = self.take() {
                return Some(got);
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.closed || left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut room = [0; 16 * 1024];
            match self.stream.read(&mut room) {
                Ok(0) => self.closed = true,
                Ok(n) => self.rest.extend_from_slice(&room[..n]),
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => self.closed = true,
            }
        }
    }

    fn take(&mut self) -> Option<Got> {
        let head: [u8; 9] = self.rest.get(..9)?.try_into().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.rest.get(9..9 + length)?.to_vec();
        self.rest.drain(..9 + length);
        Some(Got {
            kind: head[3],
            flags: head[4],
            payload,
        })
    }

    /// Everything that comes until our PING is answered, the connection ends, or `patience` is over.
    pub(super) fn until_ping(&mut self, patience: Duration) -> Vec<Got> {
        self.send(&frame(PING, 0, 0, b"the end!"));
        self.until(patience, |got| {
            got.kind == PING && got.flags & ACK != 0 && got.payload == b"the end!"
        })
    }

    /// Everything that comes up to a frame that is the last.
    pub(super) fn until(&mut self, patience: Duration, is_last: impl Fn(&Got) -> bool) -> Vec<Got> {
        let end = Instant::now() + patience;
        let mut all = Vec::new();
        while let Some(got) = self.next(end.saturating_duration_since(Instant::now())) {
            let last = is_last(&got);
            all.push(got);
            if last {
                break;
            }
        }
        all
    }
}
