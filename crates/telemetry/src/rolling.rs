//! A log file that is closed by size and by day, compressed apart from the writer, and deleted in time (OB-32).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use chrono::{Days, NaiveDate};
use portico_base::Clock;

/// Where the file is and when it is closed.
#[derive(Debug, Clone)]
pub struct RollingOptions {
    /// Directory; made when it is not there.
    pub dir: PathBuf,
    /// Name without `.log`.
    pub name: String,
    /// Closed before it grows beyond this.
    pub max_bytes: u64,
    /// Closed files kept of one day.
    pub keep_a_day: usize,
    /// Days that closed files are kept.
    pub keep_days: u64,
}

impl RollingOptions {
    /// The defaults of OB-32: 100 MB, 10 files a day, 30 days.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, name: &str) -> Self {
        Self {
            dir: dir.into(),
            name: name.to_owned(),
            max_bytes: 100 << 20,
            keep_a_day: 10,
            keep_days: 30,
        }
    }

    fn current(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }
}

/// The open file. Every `write` must hold whole lines.
pub struct RollingFile {
    options: RollingOptions,
    clock: Arc<dyn Clock>,
    file: Option<File>,
    len: u64,
    day: NaiveDate,
    janitor: Janitor,
}

impl std::fmt::Debug for RollingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RollingFile")
            .field("path", &self.options.current())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl RollingFile {
    /// Opens or continues the file, and compresses what an earlier process left behind.
    ///
    /// # Errors
    /// When the directory or the file cannot be made.
    pub fn open(options: RollingOptions, clock: Arc<dyn Clock>) -> io::Result<Self> {
        fs::create_dir_all(&options.dir)?;
        let janitor = Janitor::start(options.clone())?;
        let mut this = Self {
            day: clock.now().date_naive(),
            options,
            clock,
            file: None,
            len: 0,
            janitor,
        };
        this.reopen()?;
        this.janitor.sweep(this.clock.now().date_naive());
        Ok(this)
    }

    /// Opens a new file when somebody moved the present one away.
    pub fn check(&mut self) {
        if !self.options.current().exists() {
            self.file = None;
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let path = self.options.current();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let meta = file.metadata()?;
        self.len = meta.len();
        let today = self.clock.now().date_naive();
        self.day = if self.len == 0 {
            today
        } else {
            let modified = meta.modified().map(chrono::DateTime::<chrono::Utc>::from);
            modified.map_or(today, |time| time.date_naive().min(today))
        };
        self.file = Some(file);
        Ok(())
    }

    fn roll(&mut self, today: NaiveDate) -> io::Result<()> {
        self.file = None;
        let (dir, name, day) = (&self.options.dir, &self.options.name, self.day);
        let taken = closed_files(dir, name);
        let number = taken
            .iter()
            .filter(|file| file.day == day)
            .map(|file| file.number + 1)
            .max()
            .unwrap_or(1);
        let closed = dir.join(format!("{name}-{day}.{number}.log"));
        fs::rename(self.options.current(), closed)?;
        self.reopen()?;
        self.janitor.sweep(today);
        Ok(())
    }
}

impl Write for RollingFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.write_all(lines)?;
        Ok(lines.len())
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let today = self.clock.now().date_naive();
        let full = self.len + lines.len() as u64 > self.options.max_bytes;
        if self.len > 0 && (full || today != self.day) {
            self.roll(today)?;
        }
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| io::Error::other("the log file is not open"))?;
        if let Err(error) = file.write_all(lines) {
            // A full disk may have taken half a line; a new handle starts clean.
            self.file = None;
            return Err(error);
        }
        self.len += lines.len() as u64;
        self.day = today;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

#[derive(Debug)]
struct Closed {
    path: PathBuf,
    day: NaiveDate,
    number: u32,
    packed: bool,
}

/// `name-2026-11-21.3.log` and the same with `.gz`.
fn closed_files(dir: &Path, name: &str) -> Vec<Closed> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let parse = |path: PathBuf| {
        let file = path.file_name()?.to_str()?;
        let rest = file.strip_prefix(name)?.strip_prefix('-')?;
        let (rest, packed) = match rest.strip_suffix(".gz") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (day, number) = rest.strip_suffix(".log")?.split_once('.')?;
        Some(Closed {
            day: day.parse().ok()?,
            number: number.parse().ok()?,
            packed,
            path,
        })
    };
    entries
        .filter_map(|entry| parse(entry.ok()?.path()))
        .collect()
}

/// The thread that compresses and deletes, so that the writer never waits for it.
struct Janitor {
    orders: Option<Sender<NaiveDate>>,
    thread: Option<JoinHandle<()>>,
}

impl Janitor {
    fn start(options: RollingOptions) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("log-janitor".to_owned())
            .spawn(move || sweep_on_demand(&options, &inbox))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    fn sweep(&self, today: NaiveDate) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(today);
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sweep_on_demand(options: &RollingOptions, inbox: &Receiver<NaiveDate>) {
    while let Ok(today) = inbox.recv() {
        for file in closed_files(&options.dir, &options.name) {
            // A file that cannot be packed now stays as it is, and is tried again at the next sweep.
            if !file.packed {
                let _ = pack(&file.path);
            }
        }
        for path in expired(options, today) {
            let _ = fs::remove_file(path);
        }
    }
}

fn expired(options: &RollingOptions, today: NaiveDate) -> Vec<PathBuf> {
    let oldest = today
        .checked_sub_days(Days::new(options.keep_days))
        .unwrap_or(NaiveDate::MIN);
    let mut files = closed_files(&options.dir, &options.name);
    files.sort_by_key(|file| std::cmp::Reverse((file.day, file.number)));
    let mut seen: (Option<NaiveDate>, usize) = (None, 0);
    files.retain(|file| {
        if seen.0 != Some(file.day) {
            seen = (Some(file.day), 0);
        }
        seen.1 += 1;
        file.day < oldest || seen.1 > options.keep_a_day.max(1)
    });
    files.into_iter().map(|file| file.path).collect()
}

fn pack(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let packed = PathBuf::from(&name);
    name.push(".part");
    let part = PathBuf::from(name);
    let mut from = File::open(path)?;
    let to = File::create(&part)?;
    let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&part, &packed)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Duration;
    use portico_base::ManualClock;
    use portico_base::clock::from_unix_ms;
    use std::io::Read as _;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn unpack(path: &Path) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn by_size_by_day_packed_and_deleted_in_time() {
        let dir = tempfile::tempdir().unwrap();
        // The present, because the file system stamps files with its own clock.
        let clock = ManualClock::at(portico_base::SystemClock.now());
        let day = |n: u64| {
            clock
                .now()
                .date_naive()
                .checked_add_days(Days::new(n))
                .unwrap()
        };
        let (first, second) = (day(0), day(1));
        let options = RollingOptions {
            max_bytes: 20,
            keep_a_day: 2,
            keep_days: 3,
            ..RollingOptions::new(dir.path(), "portico")
        };
        let mut file = RollingFile::open(options.clone(), Arc::new(clock.clone())).unwrap();
        for n in 0..4 {
            file.write_all(format!("line {n} of ten b\n").as_bytes())
                .unwrap();
        }
        clock.advance(Duration::days(1));
        file.write_all(b"next day\n").unwrap();
        drop(file);
        // Four lines of the first day made four files, of which the two newest stay.
        assert_eq!(
            names(dir.path()),
            [
                format!("portico-{first}.3.log.gz"),
                format!("portico-{first}.4.log.gz"),
                "portico.log".to_owned()
            ]
        );
        assert_eq!(
            unpack(&dir.path().join(format!("portico-{first}.3.log.gz"))),
            "line 2 of ten b\n"
        );
        fs::write(
            dir.path().join(format!("portico-{second}.9.log")),
            "left behind",
        )
        .unwrap();
        clock.advance(Duration::days(3));
        let file = RollingFile::open(options, Arc::new(clock.clone())).unwrap();
        drop(file);
        assert_eq!(
            names(dir.path()),
            [
                format!("portico-{second}.9.log.gz"),
                "portico.log".to_owned()
            ]
        );
    }

    #[test]
    fn a_moved_file_is_made_again_and_a_broken_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(from_unix_ms(1_000)));
        let options = RollingOptions::new(dir.path().join("a/b"), "x");
        let mut file = RollingFile::open(options.clone(), clock.clone()).unwrap();
        file.write_all(b"one\n").unwrap();
        fs::remove_file(options.current()).unwrap();
        file.check();
        file.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(options.current()).unwrap(), "two\n");
        let bad = RollingOptions::new("/dev/null/x", "x");
        assert!(RollingFile::open(bad, clock).is_err());
    }
}
