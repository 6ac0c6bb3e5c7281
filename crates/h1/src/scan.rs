//! Finds the end of a head in bytes that arrive in any pieces, looking at each byte once.

use memchr::memchr;

use crate::{Error, Limits};

/// Where the search stands; begin with `default()` for each head.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Where the head begins: behind one empty line that a client may send first (RFC 9112 §2.2).
    start: usize,
    /// Where the line being read begins.
    line: usize,
    /// Bytes looked at.
    seen: usize,
    /// Where the header lines begin; 0 until the first line is whole.
    fields: usize,
    count: usize,
}

impl HeadScan {
    /// Looks on in `buf`, which must begin with what was given before. `Some((start, end))` are the
    /// bounds of the head including its empty line.
    ///
    /// # Errors
    /// A bare line feed, or a limit.
    pub fn advance(
        &mut self,
        buf: &[u8],
        limits: &Limits,
    ) -> Result<Option<(usize, usize)>, Error> {
        while let Some(offset) = memchr(b'\n', &buf[self.seen..]) {
            let lf = self.seen + offset;
            if lf == self.line || buf[lf - 1] != b'\r' {
                return Err(Error::BareLf);
            }
            let empty = lf == self.line + 1;
            self.seen = lf + 1;
            if self.fields == 0 {
                if empty && self.start == 0 {
                    self.start = lf + 1;
                } else if empty {
                    return Err(Error::RequestLine);
                } else {
                    self.check_line(lf - 1, limits)?;
                    self.fields = lf + 1;
                }
            } else {
                if lf + 1 - self.fields > limits.head + 2 {
                    return Err(Error::HeadTooLarge);
                }
                if empty {
                    return Ok(Some((self.start, lf + 1)));
                }
                self.count += 1;
                if self.count > limits.fields {
                    return Err(Error::TooManyFields);
                }
            }
            self.line = lf + 1;
        }
        self.seen = buf.len();
        if self.fields == 0 {
            self.check_line(buf.len(), limits)?;
        } else if buf.len() - self.fields > limits.head + 2 {
            return Err(Error::HeadTooLarge);
        }
        Ok(None)
    }

    /// True before the first byte of a head.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    fn check_line(&self, end: usize, limits: &Limits) -> Result<(), Error> {
        if end.saturating_sub(self.line) > limits.line {
            Err(Error::LineTooLong)
        } else {
            Ok(())
        }
    }
}
