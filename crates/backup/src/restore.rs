//! Restores a backup: reads it whole first, then fills an empty database, and makes it fit to be lived in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portico_base::{Clock, Random, Timestamp};
use portico_contract::backup::{AfterRestore, Finding, Restoring};
use portico_db::{Db, DbOptions, Load, Migrations, TableShape, step_names, version};
use portico_objects::{Objects, Writer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{BackupError, Result};
use crate::key::Unlock;
use crate::manifest::{Manifest, ObjectsIn, Summary};
use crate::read::{Item, Reader, Source};
use crate::settle::settle;
use crate::write::sync_folder;

/// Who a report's findings of the database itself are of.
const PLATFORM: &str = "platform";

/// The schema that this binary gives a database, and who looks after restored rows.
#[derive(Clone)]
pub struct House {
    /// The migration steps of all services.
    pub migrations: Arc<Vec<(&'static str, Migrations)>>,
    /// The parts of all services.
    pub parts: Vec<Arc<dyn AfterRestore>>,
    /// Release of this binary.
    pub version: &'static str,
}

/// How a backup is restored.
#[derive(Clone)]
pub struct Restore<'a> {
    /// The backup.
    pub source: &'a Source,
    /// What can open it.
    pub unlock: &'a Unlock,
    /// Into what it has to fit.
    pub house: &'a House,
    /// Whoever was logged in stays so.
    pub keep_sessions: bool,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
}

/// A backup that was read whole and found good.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What it is.
    pub manifest: Manifest,
    /// What is in it.
    pub summary: Summary,
    /// Which key it was made with.
    pub key_id: String,
}

/// What a restore or a verification did and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The backup.
    pub backup: Uuid,
    /// When it was made.
    pub made_at: Timestamp,
    /// Release that made it.
    pub version: String,
    /// Database that it was made from.
    pub from: String,
    /// Database that it was restored into.
    pub into: String,
    /// Tables that have rows.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Objects that were restored or compared.
    pub objects: u64,
    /// Migration steps that came after the backup, `service/step`.
    pub migrations: Vec<String>,
    /// What was done and found.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub took_ms: u64,
}

impl Report {
    /// Whether nothing was found to be wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.findings.iter().any(|finding| finding.fault)
    }
}

/// Reads the beginning of a backup: what it says that it is.
///
/// # Errors
/// When it cannot be opened or its beginning is damaged.
pub async fn peek(source: &Source, unlock: &Unlock) -> Result<Manifest> {
    Ok(Reader::open(source, unlock).await?.manifest().clone())
}

/// Reads a whole backup without writing anything.
///
/// # Errors
/// When a single byte is not what was written.
pub async fn check(source: &Source, unlock: &Unlock) -> Result<Checked> {
    let mut reader = Reader::open(source, unlock).await?;
    loop {
        if let Item::End(summary) = reader.next().await? {
            return Ok(Checked {
                manifest: reader.manifest().clone(),
                summary,
                key_id: reader.key_id().to_owned(),
            });
        }
    }
}

impl Restore<'_> {
    /// Fills an empty database, and the object store with what the backup holds of it. Everything is
    /// checked before anything is written.
    ///
    /// # Errors
    /// When the backup is damaged or does not fit, or the database is not empty. Whatever fails later leaves
    /// a database that no process starts on, and that the same restore may fill again.
    pub async fn into_db(&self, db: &Db, objects: Option<&Objects>) -> Result<Report> {
        let checked = self.check().await?;
        self.fill(&checked, db, objects).await
    }

    /// Makes the SQLite file of a data directory: it appears when everything is in it.
    ///
    /// # Errors
    /// As [`Restore::into_db`]; nothing is left under the name then.
    pub async fn into_file(&self, file: &Path, objects: Option<&Objects>) -> Result<Report> {
        let shown = file.display().to_string();
        if file.exists() {
            return Err(BackupError::NotEmpty(shown));
        }
        let checked = self.check().await?;
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let scratch = Scratch::new(folder)?;
        let db = scratch.connect(&self.clock).await?;
        let filled = self.fill(&checked, &db, objects).await;
        let emptied = db.checkpoint().await;
        db.close().await;
        let report = filled?;
        emptied?;
        let failed = |error| BackupError::io(format!("{shown} cannot be written"), error);
        std::fs::File::open(scratch.file())
            .and_then(|made| made.sync_all())
            .map_err(failed)?;
        std::fs::rename(scratch.file(), file).map_err(failed)?;
        sync_folder(file);
        Ok(report)
    }

    /// Makes the SQLite file of a data directory where there is one: that one is moved aside when the new one
    /// is whole. Gives the report and where it lies now. No process may have it open.
    ///
    /// # Errors
    /// As [`Restore::into_db`]; the database is the one of before then.
    pub async fn in_place_of(
        &self,
        file: &Path,
        objects: Option<&Objects>,
    ) -> Result<(Report, PathBuf)> {
        let stamp = self.clock.now().format("%Y%m%dT%H%M%SZ");
        let beside = |word: &str| with_tail(file, &format!(".{word}-{stamp}"));
        let (new, old) = (beside("restored"), beside("before"));
        let report = self.into_file(&new, objects).await?;
        for tail in ["", "-wal", "-shm"] {
            rename_if_there(&with_tail(file, tail), &with_tail(&old, tail))?;
        }
        rename_if_there(&new, file)?;
        sync_folder(file);
        Ok((report, old))
    }

    /// Restores into a scratch database, runs the migrations, counts, lets every service look for faults,
    /// and compares objects; then removes it all (CT-123). `folder` must have room for the database.
    ///
    /// # Errors
    /// When the backup is damaged or does not fit.
    pub async fn verify(&self, folder: &Path, objects: Option<&Objects>) -> Result<Report> {
        let began = self.clock.now();
        let checked = self.check().await?;
        let scratch = Scratch::new(folder)?;
        let db = scratch.connect(&self.clock).await?;
        let verified = self.verify_in(&checked, &db).await;
        db.close().await;
        let mut report = verified?;
        if let Some(objects) = objects {
            self.compare(objects, &mut report).await?;
        }
        report.took_ms = since(began, self.clock.now());
        Ok(report)
    }

    /// Reads the whole backup and sees whether this binary may restore it; writes nothing.
    ///
    /// # Errors
    /// When it is damaged or does not fit.
    pub async fn check(&self) -> Result<Checked> {
        let first = peek(self.source, self.unlock).await?;
        self.check_fit(&first)?;
        let checked = check(self.source, self.unlock).await?;
        if checked.manifest != first {
            return Err(BackupError::damaged("it changed while it was read"));
        }
        Ok(checked)
    }

    /// Restoring into an older binary is refused: it would not know what it has.
    fn check_fit(&self, manifest: &Manifest) -> Result<()> {
        let newer = |why: String| BackupError::Newer {
            needs: manifest.version.clone(),
            binary: self.house.version.to_owned(),
            why,
        };
        if version(&manifest.version) > version(self.house.version) {
            return Err(newer("it was made by a newer release".to_owned()));
        }
        if version(&manifest.min_binary) > version(self.house.version) {
            return Err(newer(format!("its schema needs {}", manifest.min_binary)));
        }
        let known = step_names(&self.house.migrations)?;
        match manifest.steps.iter().find(|step| !known.contains(*step)) {
            Some(step) => Err(newer(format!("it has the migration {step}"))),
            None => Ok(()),
        }
    }

    async fn fill(&self, checked: &Checked, db: &Db, objects: Option<&Objects>) -> Result<Report> {
        let began = self.clock.now();
        check_empty(db).await?;
        let mut report = self.load(checked, db, objects).await?;
        let restoring = self.restoring(&checked.manifest);
        let tx = db.begin_durable().await?;
        for part in &self.house.parts {
            report
                .findings
                .extend(settle_part(&**part, &tx, &restoring).await?);
        }
        let settled = settle(&tx, restoring.now).await?;
        tx.commit().await?;
        report.findings.push(Finding::note(
            PLATFORM,
            format!(
                "{} leases ended, {} counters jumped by {}, followers begin anew behind position {}",
                settled.leases, settled.counters, portico_db::JUMP, settled.outbox
            ),
        ));
        for part in &self.house.parts {
            let tx = db.begin().await?;
            report
                .findings
                .extend(check_part(&**part, &tx, &restoring).await?);
            tx.rollback().await?;
        }
        report.took_ms = since(began, self.clock.now());
        Ok(report)
    }

    async fn verify_in(&self, checked: &Checked, db: &Db) -> Result<Report> {
        let mut report = self.load(checked, db, None).await?;
        let restoring = self.restoring(&checked.manifest);
        for part in &self.house.parts {
            let tx = db.begin().await?;
            report
                .findings
                .extend(check_part(&**part, &tx, &restoring).await?);
            tx.rollback().await?;
        }
        for fault in db.check_integrity().await? {
            report.findings.push(Finding::fault(PLATFORM, fault));
        }
        Ok(report)
    }

    /// Schema as it was, rows, then what came to the schema since.
    async fn load(&self, checked: &Checked, db: &Db, objects: Option<&Objects>) -> Result<Report> {
        let manifest = &checked.manifest;
        let sets = &self.house.migrations;
        let steps: BTreeSet<String> = manifest.steps.iter().cloned().collect();
        db.migrate_only(sets, &steps).await?;
        check_tables(&manifest.tables, &db.tables().await?)?;
        let load = db.begin_load(&manifest.tables).await?;
        let mut reader = Reader::open(self.source, self.unlock).await?;
        if reader.manifest() != manifest {
            return Err(BackupError::damaged("it changed while it was read"));
        }
        Box::pin(rows_and_objects(
            &mut reader,
            load,
            objects,
            &checked.summary,
        ))
        .await?;
        let later = db.migrate(sets).await?;
        let with_rows = checked.summary.tables.iter().filter(|t| t.rows > 0).count();
        Ok(Report {
            backup: manifest.id,
            made_at: manifest.made_at,
            version: manifest.version.clone(),
            from: manifest.backend.clone(),
            into: db.backend().as_str().to_owned(),
            tables: with_rows as u64,
            rows: checked.summary.rows(),
            objects: checked.summary.objects.count,
            migrations: later.applied,
            findings: object_findings(checked, objects.is_some()),
            took_ms: 0,
        })
    }

    /// Compares one in a hundred objects of the backup with the store (BK-6).
    async fn compare(&self, objects: &Objects, report: &mut Report) -> Result<()> {
        let mut reader = Reader::open(self.source, self.unlock).await?;
        let (mut compared, mut other) = (0_u64, 0_u64);
        let mut hash = None;
        let mut open = None;
        loop {
            match reader.next().await? {
                Item::Object(entry, key) if crate::manifest::is_sampled(key.as_str()) => {
                    hash = entry.sha256.clone();
                    open = Some((key, Hasher::new()));
                    if hash.is_none() {
                        continue;
                    }
                }
                Item::Chunk(bytes) => {
                    if let Some((_, hasher)) = &mut open {
                        hasher.update(&bytes);
                    }
                    continue;
                }
                Item::ObjectEnd => {}
                Item::End(_) => break,
                _ => continue,
            }
            if let Some((key, hasher)) = open.take() {
                let wanted = hash.take().unwrap_or_else(|| hasher.finish());
                let found = crate::dump::hash_of(objects, &key).await?;
                compared += 1;
                // One that was removed since is no fault of the backup.
                other += u64::from(found.is_some_and(|found| found != wanted));
            }
        }
        report.findings.push(match other {
            0 => Finding::note(
                "objects",
                format!("{compared} objects compared, all are equal"),
            ),
            _ => Finding::fault(
                "objects",
                format!("{other} of {compared} objects compared are not what they were"),
            ),
        });
        Ok(())
    }

    fn restoring(&self, manifest: &Manifest) -> Restoring {
        Restoring {
            now: self.clock.now(),
            random: Arc::clone(&self.random),
            keys: Arc::clone(&self.unlock.master),
            backup: manifest.id,
            made_at: manifest.made_at,
            keep_sessions: self.keep_sessions,
        }
    }
}

/// A database was never lived in, or its restore was not finished.
async fn check_empty(db: &Db) -> Result<()> {
    let tables = db.tables().await?;
    if !tables.iter().any(|table| table.name == "installation") {
        return match tables.first() {
            None => Ok(()),
            Some(table) => Err(BackupError::NotEmpty(format!(
                "it has a table {} that is not Portico's",
                table.name
            ))),
        };
    }
    if db.restore_is_pending().await? {
        return Ok(());
    }
    match db.installation().await {
        Ok(installation) if installation.key_check.is_some() => {
            Err(BackupError::NotEmpty("somebody lives in it".to_owned()))
        }
        _ => Ok(()),
    }
}

/// The steps of the backup must have made the tables that it was made from.
fn check_tables(wanted: &[TableShape], found: &[TableShape]) -> Result<()> {
    for table in wanted {
        let there = found.iter().find(|other| other.name == table.name);
        if there.is_none_or(|there| !same_columns(table, there)) {
            return Err(BackupError::refused(format!(
                "its table {} has other columns than its migrations make",
                table.name
            )));
        }
    }
    match found
        .iter()
        .find(|t| !wanted.iter().any(|w| w.name == t.name))
    {
        Some(table) => Err(BackupError::refused(format!(
            "it lacks the table {}, which its migrations make",
            table.name
        ))),
        None => Ok(()),
    }
}

fn same_columns(a: &TableShape, b: &TableShape) -> bool {
    a.columns.len() == b.columns.len() && a.columns.iter().all(|column| b.columns.contains(column))
}

/// Hands rows to the database and bytes to the store. The second reading must say what the first one said.
async fn rows_and_objects(
    reader: &mut Reader,
    load: Load,
    objects: Option<&Objects>,
    first: &Summary,
) -> Result<()> {
    let mut table = None;
    let mut writer: Option<Writer> = None;
    // Objects follow the rows, which are kept before: an object without its row does no harm, and a
    // transaction should not wait for a bucket.
    let mut load = Some(load);
    loop {
        match reader.next().await? {
            Item::Table(shape) => table = Some(shape),
            Item::Rows(rows) => {
                if let (Some(load), Some(table)) = (&load, &table) {
                    crate::insert::rows(load.tx(), table, rows).await?;
                }
            }
            Item::Object(entry, key) => {
                finish(&mut load).await?;
                let whole = reader.manifest().objects == ObjectsIn::Whole;
                if let (Some(objects), true) = (objects, whole) {
                    writer = Some(objects.writer(&key, &entry.content_type).await?);
                }
            }
            Item::Chunk(bytes) => {
                if let Some(writer) = &mut writer {
                    writer.write(bytes).await?;
                }
            }
            Item::ObjectEnd => {
                if let Some(writer) = writer.take() {
                    writer.finish().await?;
                }
            }
            Item::End(summary) => {
                if summary != *first {
                    return Err(BackupError::damaged("it changed while it was read"));
                }
                return finish(&mut load).await;
            }
        }
    }
}

async fn finish(load: &mut Option<Load>) -> Result<()> {
    match load.take() {
        Some(load) => Ok(load.finish().await?),
        None => Ok(()),
    }
}

fn object_findings(checked: &Checked, restored: bool) -> Vec<Finding> {
    let held = &checked.summary.objects;
    let text = match (checked.manifest.objects, restored) {
        (ObjectsIn::Whole, true) => {
            format!("{} objects with {} bytes restored", held.count, held.bytes)
        }
        (ObjectsIn::Whole, false) => format!("{} objects left in the backup", held.count),
        (ObjectsIn::Names, _) => {
            format!(
                "{} objects are named, they must be in the object store",
                held.count
            )
        }
        (ObjectsIn::None, _) => return Vec::new(),
    };
    vec![Finding::note("objects", text)]
}

async fn settle_part(
    part: &dyn AfterRestore,
    tx: &portico_db::WriteTx,
    restoring: &Restoring,
) -> Result<Vec<Finding>> {
    let service = part.service();
    part.settle(tx, restoring)
        .await
        .map_err(|source| BackupError::Part { service, source })
}

async fn check_part(
    part: &dyn AfterRestore,
    tx: &portico_db::WriteTx,
    restoring: &Restoring,
) -> Result<Vec<Finding>> {
    let service = part.service();
    part.check(tx, restoring)
        .await
        .map_err(|source| BackupError::Part { service, source })
}

fn with_tail(file: &Path, tail: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(file);
    name.push(tail);
    PathBuf::from(name)
}

fn rename_if_there(from: &Path, to: &Path) -> Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BackupError::io(
            format!("{} cannot be renamed", from.display()),
            error,
        )),
        _ => Ok(()),
    }
}

fn since(began: Timestamp, now: Timestamp) -> u64 {
    u64::try_from((now - began).num_milliseconds()).unwrap_or(0)
}

/// A SQLite file that goes with its folder, unless it is moved away.
struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    fn new(folder: &Path) -> Result<Self> {
        let failed =
            |error| BackupError::io(format!("{} cannot be written", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let folder = tempfile::Builder::new()
            .prefix(".portico-restore-")
            .tempdir_in(folder)
            .map_err(failed)?;
        Ok(Self { folder })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("portico.db")
    }

    async fn connect(&self, clock: &Arc<dyn Clock>) -> Result<Db> {
        let url = format!("sqlite://{}", self.file().display());
        Ok(Db::connect(&DbOptions::new(url), Arc::clone(clock)).await?)
    }
}

/// SHA-256 of bytes that come in parts.
struct Hasher(aws_lc_rs::digest::Context);

impl Hasher {
    fn new() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        crate::manifest::hex(self.0.finish().as_ref())
    }
}
