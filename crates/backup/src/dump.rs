//! Makes a backup: one view of the database, table by table, then the objects.

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};
use futures_util::StreamExt as _;
use portico_base::{Clock, Random, Timestamp};
use portico_db::{Db, Snapshot, TableShape, version};
use portico_objects::{Key, Meta, ObjectError, Objects};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::{BackupError, Result};
use crate::key::{self, Lock};
use crate::manifest::{
    Manifest, ObjectEntry, ObjectsIn, ObjectsSummary, Summary, TableSummary, hex, is_sampled,
};
use crate::record::{Batch, CHUNK, RecordKind};
use crate::write::{BlockWriter, Sink};

/// Objects of one page of the store's list.
const PAGE: usize = 500;

/// What a backup is made of.
pub struct Dump<'a> {
    /// Its id.
    pub id: Uuid,
    /// The database.
    pub db: &'a Db,
    /// Migration steps that this binary knows.
    pub steps: &'a BTreeSet<String>,
    /// Release of this binary.
    pub version: &'a str,
    /// Where objects are, and what is taken of them.
    pub objects: Option<(&'a Objects, ObjectsIn)>,
    /// With what it is encrypted.
    pub lock: &'a Lock,
    /// Where time comes from.
    pub clock: &'a dyn Clock,
    /// Where random bytes come from.
    pub random: &'a dyn Random,
    /// Ends the work early.
    pub cancel: &'a CancellationToken,
}

/// A backup that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// What it is.
    pub manifest: Manifest,
    /// What is in it.
    pub summary: Summary,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Which key it was made with.
    pub key_id: String,
}

/// Name of a backup's file: its moment, and enough of its id to tell two of one second apart.
#[must_use]
pub fn file_name(id: Uuid, made_at: Timestamp) -> String {
    let tail = id.simple().to_string();
    format!(
        "portico-{}-{}.pbk",
        made_at.format("%Y%m%dT%H%M%SZ"),
        &tail[24..]
    )
}

impl Dump<'_> {
    /// Writes the backup as an object: it appears when it is whole.
    ///
    /// # Errors
    /// Nothing is left under the name then.
    pub async fn to_store(&self, store: &Objects, key: &Key) -> Result<Made> {
        let writer = store.writer(key, "application/octet-stream").await?;
        self.write(Sink::Object(Box::new(writer))).await
    }

    /// Writes the backup into a file: it appears when it is whole.
    ///
    /// # Errors
    /// Nothing is left under the name then.
    pub async fn to_file(&self, path: &Path) -> Result<Made> {
        self.write(Sink::file(path)?).await
    }

    async fn write(&self, sink: Sink) -> Result<Made> {
        let (head, file_key, key_id) = key::create(self.lock, self.random)?;
        let made_at = self.clock.now();
        let mut snapshot = self.db.snapshot().await?;
        let manifest = self.manifest(&mut snapshot, made_at).await?;
        let mut out = BlockWriter::new(sink, head, file_key).await?;
        let body = out.json(RecordKind::Manifest, &manifest).await?;
        let mut summary = Summary {
            manifest_sha256: hex(digest(&SHA256, &body).as_ref()),
            tables: Vec::new(),
            objects: ObjectsSummary::default(),
        };
        for table in &manifest.tables {
            let done = Box::pin(self.table(&mut snapshot, table, &mut out)).await?;
            summary.tables.push(done);
        }
        // The view is closed before objects are read: on SQLite the log grows as long as it is open.
        snapshot.close().await?;
        summary.objects = Box::pin(self.objects(&mut out)).await?;
        out.json(RecordKind::Summary, &summary).await?;
        let written = out.finish().await?;
        Ok(Made {
            manifest,
            summary,
            bytes: written.bytes,
            sha256: written.sha256,
            key_id,
        })
    }

    async fn manifest(&self, snapshot: &mut Snapshot, made_at: Timestamp) -> Result<Manifest> {
        let applied = snapshot.steps().await?;
        if let Some([unknown, _]) = applied.iter().find(|[name, _]| !self.steps.contains(name)) {
            return Err(BackupError::Unfit(format!(
                "the database has the migration {unknown}, which this binary does not know: a newer one must make the backup"
            )));
        }
        let min_binary = applied
            .iter()
            .map(|[_, min_binary]| min_binary.clone())
            .max_by_key(|text| version(text))
            .unwrap_or_default();
        let installation = self.db.installation().await?;
        let taken = self.objects.map_or(ObjectsIn::None, |(_, taken)| taken);
        Ok(Manifest {
            id: self.id,
            made_at,
            version: self.version.to_owned(),
            backend: self.db.backend().as_str().to_owned(),
            installation: installation.name,
            key_check: installation.key_check,
            steps: applied.into_iter().map(|[name, _]| name).collect(),
            min_binary,
            objects: taken,
            tables: snapshot.tables().await?,
        })
    }

    async fn table(
        &self,
        snapshot: &mut Snapshot,
        table: &TableShape,
        out: &mut BlockWriter,
    ) -> Result<TableSummary> {
        out.record(RecordKind::Table, table.name.as_bytes()).await?;
        let (mut count, mut hash) = (0, Context::new(&SHA256));
        let mut batch = Batch::default();
        let mut rows = snapshot.rows(table);
        while let Some(row) = rows.next().await {
            batch.add(&row?);
            count += 1;
            if batch.is_full() {
                self.go_on()?;
                flush(&mut batch, &mut hash, out).await?;
            }
        }
        flush(&mut batch, &mut hash, out).await?;
        Ok(TableSummary {
            name: table.name.clone(),
            rows: count,
            sha256: hex(hash.finish().as_ref()),
        })
    }

    /// The objects come behind the rows: whatever a row names was stored before it. One that was removed
    /// meanwhile is not missed.
    async fn objects(&self, out: &mut BlockWriter) -> Result<ObjectsSummary> {
        let mut done = ObjectsSummary::default();
        let mut records = Context::new(&SHA256);
        if let Some((objects, taken)) = self.objects.filter(|(_, taken)| *taken != ObjectsIn::None)
        {
            let mut after = None;
            loop {
                let page = objects.list(None, after.as_ref(), PAGE).await?;
                for meta in page.items {
                    self.go_on()?;
                    let bytes = match taken {
                        ObjectsIn::Whole => whole(objects, &meta, &mut records, out).await?,
                        _ => name(objects, &meta, &mut records, out).await?,
                    };
                    if let Some(bytes) = bytes {
                        done.count += 1;
                        done.bytes += bytes;
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        done.sha256 = hex(records.finish().as_ref());
        Ok(done)
    }

    fn go_on(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(BackupError::Cancelled);
        }
        Ok(())
    }
}

async fn flush(batch: &mut Batch, hash: &mut Context, out: &mut BlockWriter) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let body = batch.take();
    hash.update(&body);
    out.record(RecordKind::Rows, &body).await
}

/// Adds an object with its bytes; gives their number.
async fn whole(
    objects: &Objects,
    meta: &Meta,
    records: &mut Context,
    out: &mut BlockWriter,
) -> Result<Option<u64>> {
    let mut object = match objects.get(&meta.key).await {
        Ok(object) => object,
        Err(ObjectError::NotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let entry = ObjectEntry {
        key: meta.key.to_string(),
        size: object.meta.size,
        content_type: object.content_type.clone(),
        sha256: None,
    };
    records.update(&out.json(RecordKind::Object, &entry).await?);
    let mut hash = Context::new(&SHA256);
    while let Some(chunk) = object.body.next().await {
        let chunk = chunk?;
        hash.update(&chunk);
        for part in chunk.chunks(CHUNK) {
            out.record(RecordKind::Chunk, part).await?;
        }
    }
    let sum = hex(hash.finish().as_ref());
    records.update(sum.as_bytes());
    out.record(RecordKind::ObjectEnd, sum.as_bytes()).await?;
    Ok(Some(entry.size))
}

/// Adds an object's name; of one in a hundred the hash as well.
async fn name(
    objects: &Objects,
    meta: &Meta,
    records: &mut Context,
    out: &mut BlockWriter,
) -> Result<Option<u64>> {
    let sha256 = if is_sampled(meta.key.as_str()) {
        match hash_of(objects, &meta.key).await? {
            Some(sum) => Some(sum),
            None => return Ok(None),
        }
    } else {
        None
    };
    let entry = ObjectEntry {
        key: meta.key.to_string(),
        size: meta.size,
        content_type: String::new(),
        sha256,
    };
    records.update(&out.json(RecordKind::Object, &entry).await?);
    Ok(Some(entry.size))
}

/// SHA-256 of an object, hex; nothing when it is not there.
pub(crate) async fn hash_of(objects: &Objects, key: &Key) -> Result<Option<String>> {
    let mut object = match objects.get(key).await {
        Ok(object) => object,
        Err(ObjectError::NotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut hash = Context::new(&SHA256);
    while let Some(chunk) = object.body.next().await {
        hash.update(&chunk?);
    }
    Ok(Some(hex(hash.finish().as_ref())))
}
