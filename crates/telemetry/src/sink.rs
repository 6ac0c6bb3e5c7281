//! Where finished lines go: standard output, a rolling file, or a writer that a test gave.

use std::io::{self, Write};
use std::sync::Arc;

use portico_base::Clock;

use crate::rolling::{RollingFile, RollingOptions};

/// The end of a log stream.
pub enum Sink {
    /// Standard output, for containers and terminals.
    Stdout,
    /// A file that is closed by size and day.
    File(RollingOptions),
    /// Anything else; each call to `write_all` gets whole lines.
    Writer(Box<dyn Write + Send>),
    /// Nowhere.
    Discard,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("Stdout"),
            Self::File(options) => f.debug_tuple("File").field(options).finish(),
            Self::Writer(_) => f.write_str("Writer"),
            Self::Discard => f.write_str("Discard"),
        }
    }
}

impl Sink {
    pub(crate) fn open(self, clock: &Arc<dyn Clock>) -> io::Result<OpenSink> {
        Ok(match self {
            Self::Stdout => OpenSink::Stdout,
            Self::File(options) => {
                OpenSink::File(Box::new(RollingFile::open(options, Arc::clone(clock))?))
            }
            Self::Writer(writer) => OpenSink::Writer(writer),
            Self::Discard => OpenSink::Discard,
        })
    }
}

pub(crate) enum OpenSink {
    Stdout,
    File(Box<RollingFile>),
    Writer(Box<dyn Write + Send>),
    Discard,
}

impl OpenSink {
    /// Writes whole lines at once, so that two streams on standard output never mix within a line.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File(file) => file.write_all(lines),
            Self::Writer(writer) => {
                writer.write_all(lines)?;
                writer.flush()
            }
            Self::Discard => Ok(()),
        }
    }

    /// Called about once a second.
    pub(crate) fn check(&mut self) {
        if let Self::File(file) = self {
            file.check();
        }
    }
}
