//! One decoder over all framings.

use http::HeaderMap;

use crate::{ChunkedDecoder, Error, Framing};

/// What one step of decoding found in the bytes given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where the data begins.
    pub start: usize,
    /// How many bytes of data there are.
    pub len: usize,
    /// How many bytes were used up; those behind belong to what follows the body.
    pub consumed: usize,
    /// The body has ended.
    pub done: bool,
}

/// Reads a body of any framing.
#[derive(Debug)]
pub enum BodyDecoder {
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

impl BodyDecoder {
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(n) => Self::Length(n),
            Framing::Chunked => Self::Chunked(ChunkedDecoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Reads on in `buf`; chunk framing is closed up in place.
    ///
    /// # Errors
    /// Broken chunked framing.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, Error> {
        match self {
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= n as u64;
                Ok(Decoded {
                    start: 0,
                    len: n,
                    consumed: n,
                    done: *left == 0,
                })
            }
            Self::Chunked(chunked) => chunked.decode(buf),
            Self::UntilClose => Ok(Decoded {
                start: 0,
                len: buf.len(),
                consumed: buf.len(),
                done: false,
            }),
        }
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Bytes still to come, when that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(chunked) => chunked.is_done().then_some(0),
            Self::UntilClose => None,
        }
    }

    /// The connection has ended: the end of the body, or too early.
    ///
    /// # Errors
    /// [`Error::BodyTooShort`] when more was announced.
    pub fn end_of_input(&self) -> Result<(), Error> {
        match self {
            Self::UntilClose => Ok(()),
            _ if self.is_done() => Ok(()),
            _ => Err(Error::BodyTooShort),
        }
    }

    /// Trailers of a chunked body that is done.
    ///
    /// # Errors
    /// A malformed trailer line.
    pub fn take_trailers(&mut self) -> Result<Option<HeaderMap>, Error> {
        match self {
            Self::Chunked(chunked) => chunked.take_trailers(),
            Self::Length(_) | Self::UntilClose => Ok(None),
        }
    }
}
