//! The chunked transfer coding (RFC 9112 §7.1), read incrementally and strictly.

use http::HeaderMap;

use crate::{Decoded, Error, trailers};

/// Bytes of all chunk extensions of one body together.
const EXTENSIONS: u32 = 16 * 1024;
/// Bytes of the trailer section.
const TRAILERS: usize = 8 * 1024;
const SIZE_DIGITS: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    /// White space behind the size; only an extension may follow.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    Done,
}

/// Reads one chunked body.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    digits: u8,
    left: u64,
    extensions: u32,
    section: Vec<u8>,
    line: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self {
            state: State::Size,
            digits: 0,
            left: 0,
            extensions: 0,
            section: Vec::new(),
            line: 0,
        }
    }
}

impl ChunkedDecoder {
    /// Reads on in `buf`, closing the gaps between the chunks in place: the data is
    /// `buf[start..start + len]`, and what follows `consumed` was not looked at (the body is done).
    ///
    /// # Errors
    /// A size, extension, end or trailer that is not exactly as written in RFC 9112, or a limit.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, Error> {
        let (mut at, mut start, mut end) = (0, 0, 0);
        while at < buf.len() && self.state != State::Done {
            if self.state == State::Data {
                let n = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(buf.len() - at);
                if end == start {
                    (start, end) = (at, at);
                }
                if end != at {
                    buf.copy_within(at..at + n, end);
                }
                (end, at) = (end + n, at + n);
                self.left -= n as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.step(buf[at])?;
                at += 1;
            }
        }
        Ok(Decoded {
            start,
            len: end - start,
            consumed: at,
            done: self.is_done(),
        })
    }

    /// True behind the last byte of the trailer section.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailers of a body that is done, without those that may not be merged into headers.
    ///
    /// # Errors
    /// A malformed line.
    pub fn take_trailers(&mut self) -> Result<Option<HeaderMap>, Error> {
        if self.section.is_empty() {
            return Ok(None);
        }
        trailers::parse_trailers(std::mem::take(&mut self.section))
            .map(|map| (!map.is_empty()).then_some(map))
    }

    fn step(&mut self, byte: u8) -> Result<(), Error> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, _) if self.digits == 0 => return Err(Error::ChunkSize),
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::Space, b';')
            | (State::Extension, b'\t' | 0x20..=0x7e | 0x80..) => self.extension()?,
            (State::Size | State::Space, b' ' | b'\t') => {
                self.extension()?;
                State::Space
            }
            (State::Size, _) => return Err(Error::ChunkSize),
            (State::Space | State::Extension, _) => return Err(Error::ChunkExtension),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left == 0 {
                    State::Trailer
                } else {
                    State::Data
                }
            }
            (State::SizeLf, _) => return Err(Error::ChunkSize),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(Error::ChunkEnd),
            (State::Trailer, _) => return self.trailer(byte),
            (State::Data | State::Done, _) => self.state,
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, Error> {
        if self.digits == 0 {
            self.left = 0;
        }
        self.digits += 1;
        let value = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
        self.left = self
            .left
            .checked_mul(16)
            .and_then(|n| n.checked_add(value))
            .ok_or(Error::ChunkSize)?;
        if self.digits > SIZE_DIGITS || self.left > i64::MAX as u64 {
            return Err(Error::ChunkSize);
        }
        Ok(State::Size)
    }

    fn extension(&mut self) -> Result<State, Error> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS {
            Err(Error::ChunkExtension)
        } else {
            Ok(State::Extension)
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<(), Error> {
        if self.section.len() >= TRAILERS {
            return Err(Error::TrailerTooLarge);
        }
        self.section.push(byte);
        if byte != b'\n' {
            // A carriage return is only right before the line feed.
            let before = self.section.len().checked_sub(2).map(|i| self.section[i]);
            return if before == Some(b'\r') {
                Err(Error::Trailer)
            } else {
                Ok(())
            };
        }
        let line = &self.section[self.line..];
        match line {
            [b'\r', b'\n'] => {
                self.section.truncate(self.line);
                self.state = State::Done;
            }
            [.., b'\r', b'\n'] => self.line = self.section.len(),
            _ => return Err(Error::Trailer),
        }
        Ok(())
    }
}
