//! A restore that the running process asked for: it is done at the next start, before anything is open,
//! and leaves word of how it ended (CT-122). Both are files of the data directory.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{BackupError, Result};
use crate::restore::Report;
use crate::write::sync_folder;

const ORDER: &str = "restore.json";
const OUTCOME: &str = "restore-outcome.json";

/// What is to be restored at the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The backup.
    pub backup: Uuid,
    /// Its name where backups are kept.
    pub location: String,
    /// Backup of the moment before, for the way back.
    pub safety: String,
    /// Whoever was logged in stays so.
    pub keep_sessions: bool,
    /// Restore its objects too.
    pub objects: bool,
    /// Who asked for it.
    pub asked_by: String,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What was asked for.
    pub order: Pending,
    /// What was done; nothing when it failed.
    pub report: Option<Report>,
    /// Why it failed; the database is the one of before then.
    pub error: Option<String>,
    /// Where the database of before lies.
    pub replaced: Option<String>,
}

impl Pending {
    /// Leaves the order in a data directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leave(&self, data_dir: &Path) -> Result<()> {
        write(&data_dir.join(ORDER), self)
    }

    /// The order of a data directory, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find(data_dir: &Path) -> Result<Option<Self>> {
        read(&data_dir.join(ORDER))
    }
}

impl Outcome {
    /// Leaves word, and takes the order away: it is not tried twice.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leave(&self, data_dir: &Path) -> Result<()> {
        write(&data_dir.join(OUTCOME), self)?;
        remove(&data_dir.join(ORDER))
    }

    /// The word of the last restore, if nobody has taken note of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find(data_dir: &Path) -> Result<Option<Self>> {
        read(&data_dir.join(OUTCOME))
    }

    /// Takes it away, once it is noted.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(data_dir: &Path) -> Result<()> {
        remove(&data_dir.join(OUTCOME))
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed = |error| BackupError::io(format!("{} cannot be written", path.display()), error);
    let json = serde_json::to_vec_pretty(value).map_err(|e| failed(e.into()))?;
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    // Temporary files are readable for their owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(&json).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_folder(path);
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let failed = |error| BackupError::io(format!("{} cannot be read", path.display()), error);
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BackupError::io(
            format!("{} cannot be removed", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}
