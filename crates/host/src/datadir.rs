//! The data directory: one process at a time, the operator's token, the master key, the ready file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use portico_base::secret::new_token;
use portico_base::{Clock, Random, Secret};

use crate::error::{StartError, exit};

/// Name of the file that holds the operator's credential as a header line.
pub const OPERATOR_TOKEN: &str = "operator.token";
/// Name of the file that holds the real addresses of the running process.
pub const READY: &str = "ready.json";
const LOCK: &str = "portico.lock";

/// An owned data directory; the lock ends with it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory when it is missing (mode 0700) and takes its lock.
    ///
    /// # Errors
    /// Exit code 3 with the holder's pid and start time when another process has it; 1 when it
    /// cannot be written.
    pub fn open(path: &Path, clock: &dyn Clock) -> Result<Self, StartError> {
        let no_write = |error: std::io::Error| {
            StartError::new(
                exit::FAILED,
                format!(
                    "cannot write to the data directory {}: {error}; give this user the right, or use --data-dir DIR",
                    path.display()
                ),
            )
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(no_write)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(no_write)?;
        if lock.try_lock().is_err() {
            let mut holder = String::new();
            // Who holds it is only for the message; an unreadable file still is a held lock.
            let _ = lock.read_to_string(&mut holder);
            let holder = holder.trim();
            let who = if holder.is_empty() {
                "another process".to_owned()
            } else {
                holder.to_owned()
            };
            return Err(StartError::new(
                exit::LOCKED,
                format!(
                    "the data directory {} is in use by {who}; stop that process, or use --data-dir DIR",
                    path.display()
                ),
            ));
        }
        lock.set_len(0).map_err(no_write)?;
        lock.rewind().map_err(no_write)?;
        write!(
            lock,
            "pid {}, started {}",
            std::process::id(),
            clock.now().format("%FT%TZ")
        )
        .map_err(no_write)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The operator's token, made at the first start. The file is one header line, so that
    /// `curl -H @operator.token` works.
    ///
    /// # Errors
    /// When the file cannot be written or has another form.
    pub fn operator_token(&self, random: &dyn Random) -> Result<Secret<String>, StartError> {
        let path = self.path.join(OPERATOR_TOKEN);
        if let Some(token) = read_operator_token(&path)? {
            return Ok(token);
        }
        let token = new_token("pop_", random);
        write_private(
            &path,
            format!("Authorization: Bearer {}\n", token.expose()).as_bytes(),
        )
        .map_err(|error| cannot_write(&path, &error))?;
        Ok(token)
    }

    /// The master key in `file`, made at the first start: 32 bytes as 64 hex digits.
    ///
    /// # Errors
    /// When the file cannot be read or written, or has another form.
    pub fn master_key(file: &Path, random: &dyn Random) -> Result<Secret<[u8; 32]>, StartError> {
        match fs::read_to_string(file) {
            Ok(text) => parse_key(&text).ok_or_else(|| {
                StartError::new(
                    exit::KEY,
                    format!("{} is not a master key of 64 hex digits", file.display()),
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                random.fill(&mut key);
                write_private(file, format!("{}\n", to_hex(&key)).as_bytes())
                    .map_err(|error| cannot_write(file, &error))?;
                Ok(Secret::new(key))
            }
            Err(error) => Err(StartError::new(
                exit::KEY,
                format!("cannot read the master key {}: {error}", file.display()),
            )),
        }
    }

    /// Writes the real addresses for local commands.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_ready(&self, json: &str) -> Result<(), StartError> {
        let path = self.path.join(READY);
        write_private(&path, json.as_bytes()).map_err(|error| cannot_write(&path, &error))
    }

    /// Removes the ready file: nobody listens any more.
    pub fn remove_ready(&self) {
        // It may be gone already; a stale one only makes local commands fail with "connection refused".
        let _ = fs::remove_file(self.path.join(READY));
    }
}

/// Reads the operator's token of a data directory; nothing when there is none.
///
/// # Errors
/// When the file cannot be read (rights) or has another form.
pub fn read_operator_token(path: &Path) -> Result<Option<Secret<String>>, StartError> {
    match fs::read_to_string(path) {
        Ok(text) => text
            .trim()
            .strip_prefix("Authorization: Bearer ")
            .filter(|token| token.starts_with("pop_") && token.len() >= 40)
            .map(|token| Some(Secret::from(token)))
            .ok_or_else(|| {
                StartError::new(
                    exit::FAILED,
                    format!("{} does not hold an operator token", path.display()),
                )
            }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::new(
            exit::FAILED,
            format!("cannot read {}: {error}", path.display()),
        )),
    }
}

/// The process that holds a data directory; nothing when none does.
#[must_use]
pub fn holder(path: &Path) -> Option<i32> {
    let mut lock = File::open(path.join(LOCK)).ok()?;
    // Whoever gets the lock finds nobody who holds it; it ends with this function.
    if lock.try_lock_shared().is_ok() {
        return None;
    }
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    let number = text.strip_prefix("pid ")?.split(',').next()?;
    number.parse().ok()
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> StartError {
    StartError::new(
        exit::FAILED,
        format!("cannot write {}: {error}", path.display()),
    )
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Parses 64 hex digits.
#[must_use]
pub fn parse_key(text: &str) -> Option<Secret<[u8; 32]>> {
    let text = text.trim();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use portico_base::{SeededRandom, SystemClock};

    use super::*;

    #[test]
    fn one_process_at_a_time_and_private_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::open(&path, &SystemClock).unwrap();
        let second = DataDir::open(&path, &SystemClock).unwrap_err();
        assert_eq!(second.code, exit::LOCKED);
        assert_eq!(holder(&path), i32::try_from(std::process::id()).ok());
        assert!(
            second
                .message
                .contains(&format!("pid {}", std::process::id())),
            "{second}"
        );

        let random = SeededRandom::new(1);
        let token = first.operator_token(&random).unwrap();
        assert_eq!(first.operator_token(&random).unwrap(), token);
        let key = DataDir::master_key(&path.join("master.key"), &random).unwrap();
        assert_eq!(
            DataDir::master_key(&path.join("master.key"), &random).unwrap(),
            key
        );
        for file in [OPERATOR_TOKEN, "master.key"] {
            let mode = fs::metadata(path.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        drop(first);
        assert_eq!(holder(&path), None);
        assert!(DataDir::open(&path, &SystemClock).is_ok());
    }

    #[test]
    fn a_broken_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("master.key");
        fs::write(&file, "nonsense").unwrap();
        let error = DataDir::master_key(&file, &SeededRandom::new(1)).unwrap_err();
        assert_eq!(error.code, exit::KEY);
        assert_eq!(fs::read_to_string(&file).unwrap(), "nonsense");
    }
}
