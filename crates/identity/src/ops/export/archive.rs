//! A zip file that is written as a stream: what is finished of it is given away after each file.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{Datelike as _, Timelike as _};
use parking_lot::Mutex;
use portico_base::Timestamp;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

/// What was written and not yet taken.
#[derive(Clone, Default)]
struct Pending(Arc<Mutex<Vec<u8>>>);

impl Pending {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock()).into()
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A zip file that grows. At most one file of it is in memory.
pub(super) struct Archive {
    zip: ZipWriter<StreamWriter<Pending>>,
    pending: Pending,
    options: SimpleFileOptions,
}

impl Archive {
    /// An empty one, whose files all have one time.
    pub(super) fn new(at: Timestamp) -> Self {
        let pending = Pending::default();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(0o600)
            .last_modified_time(time(at));
        Self {
            zip: ZipWriter::new_stream(pending.clone()),
            pending,
            options,
        }
    }

    /// Adds a file; gives the bytes that come next.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<Bytes> {
        self.zip.start_file(name, self.options)?;
        self.zip.write_all(content)?;
        self.zip.flush()?;
        Ok(self.pending.take())
    }

    /// Ends the file; gives its last bytes.
    pub(super) fn end(self) -> io::Result<Bytes> {
        self.zip.finish()?;
        Ok(self.pending.take())
    }
}

/// The time as zip files have it: without a zone, in steps of two seconds, from 1980 on.
fn time(at: Timestamp) -> DateTime {
    let part = |number: u32| u8::try_from(number).unwrap_or(0);
    let year = u16::try_from(at.year()).unwrap_or(1980);
    let (month, day) = (part(at.month()), part(at.day()));
    let (hour, minute, second) = (part(at.hour()), part(at.minute()), part(at.second()));
    DateTime::from_date_and_time(year, month, day, hour, minute, second).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use super::*;

    #[test]
    fn the_pieces_are_a_zip_file() {
        let at = Timestamp::from_timestamp(1_790_000_001, 0).unwrap();
        let mut archive = Archive::new(at);
        let large = "0123456789".repeat(100_000);
        let mut whole = Vec::new();
        for (name, content) in [("a.json", "[]"), ("b/ü.txt", large.as_str()), ("empty", "")] {
            whole.extend(archive.add(name, content.as_bytes()).unwrap());
        }
        whole.extend(archive.end().unwrap());
        assert!(whole.len() < 100_000, "it is compressed");
        let mut read = zip::ZipArchive::new(Cursor::new(whole)).unwrap();
        let names: Vec<_> = read
            .file_names()
            .map(|name| name.unwrap().into_owned())
            .collect();
        assert_eq!(names, ["a.json", "b/ü.txt", "empty"]);
        let mut text = String::new();
        let mut file = read.by_name("b/ü.txt").unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, large);
        let made = file.last_modified().unwrap();
        assert_eq!((made.year(), made.month()), (2026, 9));
    }
}
