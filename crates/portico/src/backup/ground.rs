//! What backups stand on without a running process: configuration, keys, database, where backups are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use portico_backup::{Identity, Lock, Unlock};
use portico_base::envelope::MasterKeys;
use portico_base::{Clock, SystemClock};
use portico_config::{Config, DatabaseKind};
use portico_db::Db;
use portico_host::{StartError, exit};
use portico_objects::Objects;
use portico_telemetry::metrics::Registry;

use crate::cli::ConfigFlags;

/// The ground of one command.
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    /// Nobody scrapes a command.
    registry: Registry,
}

impl Ground {
    /// Loads the configuration.
    pub(super) fn load(
        config: Option<PathBuf>,
        data_dir: Option<&Path>,
        database: Option<String>,
    ) -> Result<Self> {
        let flags = ConfigFlags {
            config,
            data_dir: data_dir.map(|dir| dir.display().to_string()),
            database,
            ..ConfigFlags::default()
        };
        let loaded = crate::config::load(&flags, Vec::new())
            .map_err(|faults| StartError::new(exit::USAGE, faults.to_string()))?;
        Ok(Self::of(loaded.config))
    }

    /// The ground that a configuration describes.
    pub(super) fn of(config: Config) -> Self {
        Self {
            config,
            clock: Arc::new(SystemClock),
            registry: Registry::default(),
        }
    }

    pub(super) fn keys(&self) -> Result<Arc<MasterKeys>> {
        Ok(Arc::new(portico_host::existing_master_keys(&self.config)?))
    }

    /// With what new backups are encrypted.
    pub(super) fn lock(&self) -> Result<Lock> {
        match &self.config.backup.recipient {
            None => Ok(Lock::Master(self.keys()?)),
            Some(recipient) => Ok(Lock::Recipient(recipient.parse().map_err(super::failed)?)),
        }
    }

    /// What can open backups.
    pub(super) fn unlock(&self, identity: Option<&Path>) -> Result<Unlock> {
        let identities = match identity {
            None => Vec::new(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("{} cannot be read", file.display()))?;
                Identity::parse_file(&text).map_err(super::failed)?
            }
        };
        Ok(Unlock {
            master: self.keys()?,
            identities,
        })
    }

    /// The database, which must be there: none is made.
    pub(super) async fn db(&self) -> Result<Db> {
        if let Some(file) = self.sqlite_file()
            && !file.exists()
        {
            let message = format!("there is no database at {}", file.display());
            return Err(StartError::new(exit::FAILED, message).into());
        }
        self.connect().await
    }

    /// The database; SQLite's file is made when it is missing.
    pub(super) async fn connect(&self) -> Result<Db> {
        let options = portico_host::db_options(&self.config);
        Ok(Db::connect(&options, Arc::clone(&self.clock))
            .await
            .map_err(|error| {
                let message = "the database cannot be reached";
                StartError::new(exit::DEPENDENCY, message).because(error)
            })?)
    }

    /// SQLite's file; nothing where the database is a server.
    pub(super) fn sqlite_file(&self) -> Option<PathBuf> {
        let url = &self.config.database.url;
        let path = url.expose().strip_prefix("sqlite://")?;
        let path = path.split('?').next().unwrap_or_default();
        (url.kind() == DatabaseKind::Sqlite).then(|| PathBuf::from(path))
    }

    /// Where objects are.
    pub(super) fn objects(&self) -> Result<Objects> {
        Ok(portico_host::objects_of(&self.config, &self.registry)?)
    }

    /// Where backups are kept.
    pub(super) fn store(&self) -> Result<Objects> {
        portico_control::backup_store(&self.config, &self.registry)
            .map_err(|error| StartError::new(exit::FAILED, error.to_string()).into())
    }
}
