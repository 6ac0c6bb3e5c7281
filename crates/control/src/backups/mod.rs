//! Backups: made on a schedule or at once, verified, restored, removed (CT-120…123). The file itself is the
//! business of `portico-backup`; here is who may ask for what, when, and what is known of each.

mod http;
pub(crate) mod metrics;
mod migration;
mod ops;
mod restored;
pub(crate) mod settings;
mod store;
mod work;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use portico_backup::{BackupError, House, Lock, ObjectsIn, Unlock};
use portico_base::envelope::MasterKeys;
use portico_config::{Config, ObjectKind};
use portico_db::Backend;
use portico_host::BuildCx;
use portico_objects::{Encryption, ObjectError, Objects, S3Options};
use portico_telemetry::metrics::Registry;

pub(crate) use http::add;
pub(crate) use migration::step;
pub(crate) use restored::settle_once;
pub(crate) use work::jobs;

use metrics::Figures;

/// What backups stand on in one process.
pub(crate) struct Backups {
    config: Arc<Config>,
    keys: Arc<MasterKeys>,
    house: House,
    objects: Objects,
    registry: Registry,
    /// Opened when it is first needed: without it only backups fail.
    store: OnceLock<Objects>,
    data_dir: PathBuf,
    /// The machine, where there may be several and backups lie beside one of them.
    node: Option<String>,
    figures: Figures,
}

/// Where backups are kept, from the configuration.
///
/// # Errors
/// When the directory cannot be made, or the options contradict each other.
pub fn backup_store(config: &Config, registry: &Registry) -> Result<Objects, ObjectError> {
    let section = &config.backup;
    let s3 = &section.s3;
    if s3.bucket.is_empty() {
        return Objects::local(&section.dir, registry);
    }
    let keys = s3.access_key.as_ref().zip(s3.secret_key.as_ref());
    let options = S3Options {
        endpoint: s3.endpoint.as_ref().map(|url| url.url().clone()),
        region: s3.region.clone(),
        bucket: s3.bucket.clone(),
        prefix: s3.prefix.clone(),
        credentials: keys.map(|(access, secret)| (access.clone(), secret.clone())),
        path_style: s3.path_style,
        encryption: Encryption::None,
    };
    Objects::s3(&options, registry)
}

impl Backups {
    pub(crate) fn new(cx: &BuildCx<'_>) -> Self {
        Self {
            config: Arc::clone(cx.config),
            keys: Arc::clone(cx.keys),
            house: House {
                migrations: Arc::clone(cx.migrations),
                parts: cx.after_restore.to_vec(),
                version: cx.node.version,
            },
            objects: cx.objects.clone(),
            registry: cx.telemetry.metrics.clone(),
            store: OnceLock::new(),
            data_dir: cx.node.data_dir.clone(),
            node: (cx.db.backend() == Backend::Postgres && cx.config.backup.s3.bucket.is_empty())
                .then(|| cx.node.host.to_string()),
            figures: Figures::new(&cx.telemetry.metrics),
        }
    }

    fn store(&self) -> Result<&Objects, BackupError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = backup_store(&self.config, &self.registry)?;
        Ok(self.store.get_or_init(|| store))
    }

    fn node(&self) -> Option<String> {
        self.node.clone()
    }

    fn lock(&self) -> Result<Lock, BackupError> {
        match &self.config.backup.recipient {
            None => Ok(Lock::Master(Arc::clone(&self.keys))),
            Some(recipient) => Ok(Lock::Recipient(recipient.parse()?)),
        }
    }

    /// This installation opens what it encrypted with its master key, never what it made for a recipient.
    fn unlock(&self) -> Unlock {
        Unlock {
            master: Arc::clone(&self.keys),
            identities: Vec::new(),
        }
    }

    /// What a backup takes of the objects: those of a bucket are only named.
    fn taken(&self, wanted: bool) -> ObjectsIn {
        if wanted && self.config.objects.kind == ObjectKind::Local {
            ObjectsIn::Whole
        } else {
            ObjectsIn::Names
        }
    }
}
