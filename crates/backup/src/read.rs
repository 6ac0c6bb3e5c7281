//! Reads a backup from front to back and believes nothing of it: every frame, record, count and hash is
//! checked before what is in it is handed on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use portico_db::{Cell, TableShape};
use portico_objects::{Key, Objects};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;
use tokio::task::spawn_blocking;

use crate::error::{BackupError, Result};
use crate::key::{self, FileKey, MAGIC, MAX_HEADER, TAG, Unlock};
use crate::manifest::{
    Manifest, ObjectEntry, ObjectsIn, ObjectsSummary, Summary, TableSummary, hex,
};
use crate::record::{self, CHUNK, HEAD, MAX_BODY, RecordKind};
use crate::write::{BLOCK, MAX_PLAIN, MAX_RATIO, STORED, ZSTD};

/// Bytes of one read of a file.
const READ: usize = 256 * 1024;
/// Bytes before the compressed block of a frame.
const METHOD: usize = 5;
const MAX_TABLES: usize = 2_000;
const MAX_COLUMNS: usize = 500;

/// Where a backup is read from; it is read twice.
#[derive(Clone)]
pub enum Source {
    /// A file of this machine.
    File(PathBuf),
    /// An object, where backups are kept.
    Object(Objects, Key),
}

/// What comes next in a backup.
#[derive(Debug)]
pub(crate) enum Item {
    /// A table begins.
    Table(TableShape),
    /// Rows of the table that began.
    Rows(Vec<Vec<Cell>>),
    /// An object begins; its bytes follow if the backup holds whole ones.
    Object(ObjectEntry, Key),
    /// Bytes of the object that began.
    Chunk(Bytes),
    /// The object is whole.
    ObjectEnd,
    /// Everything was there.
    End(Summary),
}

/// A backup on its way in.
pub(crate) struct Reader {
    frames: Frames,
    plain: BytesMut,
    read: u64,
    manifest: Manifest,
    manifest_sha256: String,
    key_id: String,
    tables: Vec<TableSummary>,
    rows: Context,
    object: Option<(ObjectEntry, u64, Context)>,
    objects: ObjectsSummary,
    object_records: Context,
}

impl Source {
    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Object(_, key) => key.to_string(),
        }
    }

    async fn open(&self) -> Result<BoxStream<'static, Result<Bytes>>> {
        match self {
            Self::File(path) => file(path).await,
            Self::Object(objects, key) => {
                let object = objects.get(key).await?;
                Ok(object.body.map(|chunk| Ok(chunk?)).boxed())
            }
        }
    }
}

async fn file(path: &Path) -> Result<BoxStream<'static, Result<Bytes>>> {
    let failed = {
        let path = path.to_owned();
        move |error| BackupError::io(format!("{} cannot be read", path.display()), error)
    };
    let file = tokio::fs::File::open(path).await.map_err(&failed)?;
    let chunks = stream::try_unfold((file, failed), |(mut file, failed)| async move {
        let mut chunk = BytesMut::with_capacity(READ);
        let read = file.read_buf(&mut chunk).await.map_err(&failed)?;
        Ok((read > 0).then(|| (chunk.freeze(), (file, failed))))
    });
    Ok(chunks.boxed())
}

/// The frames of a file.
struct Frames {
    body: BoxStream<'static, Result<Bytes>>,
    buffer: BytesMut,
    key: Arc<FileKey>,
    number: u64,
    ended: bool,
}

impl Frames {
    async fn open(source: &Source, unlock: &Unlock) -> Result<(Self, String)> {
        let mut body = source.open().await?;
        let mut buffer = BytesMut::new();
        let start = MAGIC.len() + 4;
        if !fill(&mut body, &mut buffer, start).await? || buffer[..MAGIC.len()] != MAGIC[..] {
            return Err(BackupError::damaged("it is no backup of Portico"));
        }
        let len = length(&buffer[MAGIC.len()..start]);
        if len > MAX_HEADER {
            return Err(BackupError::damaged("its header is too long"));
        }
        if !fill(&mut body, &mut buffer, start + len).await? {
            return Err(BackupError::damaged("it ends in its header"));
        }
        let head = buffer.split_to(start + len);
        let header = key::parse(&head[start..])?;
        let key = key::open(unlock, &header, &head)?;
        let frames = Self {
            body,
            buffer,
            key: Arc::new(key),
            number: 0,
            ended: false,
        };
        Ok((frames, header.key.id().to_owned()))
    }

    /// The plain block of the next frame; nothing behind the last one.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let number = self.number;
        let cut = || BackupError::Damaged(format!("it ends before frame {number} is whole"));
        if !fill(&mut self.body, &mut self.buffer, 4).await? {
            return Err(cut());
        }
        let len = length(&self.buffer[..4]);
        if !(METHOD + TAG..=METHOD + BLOCK + TAG).contains(&len) {
            return Err(BackupError::Damaged(format!(
                "frame {number} has a wrong length"
            )));
        }
        if !fill(&mut self.body, &mut self.buffer, 4 + len).await? {
            return Err(cut());
        }
        self.buffer.advance(4);
        let frame = self.buffer.split_to(len);
        // Whoever is the last must be followed by nothing, and only the last may be.
        let last = !fill(&mut self.body, &mut self.buffer, 1).await?;
        let key = Arc::clone(&self.key);
        let opened = spawn_blocking(move || open(&key, number, last, frame));
        let block = opened.await.map_err(|_| BackupError::Cancelled)??;
        self.number += 1;
        self.ended = last;
        Ok(Some(block))
    }
}

/// Opens a frame.
fn open(key: &FileKey, number: u64, last: bool, mut frame: BytesMut) -> Result<Vec<u8>> {
    let wrong = || {
        BackupError::Damaged(format!(
            "frame {number} is not what was written there, or others follow or are missing"
        ))
    };
    let plain = key.open(number, last, &mut frame).ok_or_else(wrong)?;
    let (head, stored) = plain.split_at_checked(METHOD).ok_or_else(wrong)?;
    let len = length(&head[1..]);
    if len > BLOCK || len > stored.len().saturating_mul(MAX_RATIO) {
        return Err(BackupError::refused(format!(
            "frame {number} would grow to {len} bytes from {}",
            stored.len()
        )));
    }
    let block = match head[0] {
        STORED => stored.to_vec(),
        // The decompressor stops at the length that was promised and checked.
        ZSTD => zstd::bulk::decompress(stored, len).map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    if block.len() == len {
        Ok(block)
    } else {
        Err(wrong())
    }
}

/// Reads until the buffer holds so much; false when the source ends before.
async fn fill(
    body: &mut BoxStream<'static, Result<Bytes>>,
    buffer: &mut BytesMut,
    len: usize,
) -> Result<bool> {
    while buffer.len() < len {
        match body.next().await {
            Some(chunk) => buffer.extend_from_slice(&chunk?),
            None => return Ok(false),
        }
    }
    Ok(true)
}

fn length(bytes: &[u8]) -> usize {
    bytes
        .try_into()
        .map_or(0, |b| u32::from_le_bytes(b) as usize)
}

impl Reader {
    /// Opens a backup and reads its manifest.
    pub(crate) async fn open(source: &Source, unlock: &Unlock) -> Result<Self> {
        let (frames, key_id) = Box::pin(Frames::open(source, unlock)).await?;
        let mut reader = Self {
            frames,
            plain: BytesMut::new(),
            read: 0,
            manifest: nothing(),
            manifest_sha256: String::new(),
            key_id,
            tables: Vec::new(),
            rows: Context::new(&SHA256),
            object: None,
            objects: ObjectsSummary::default(),
            object_records: Context::new(&SHA256),
        };
        match reader.record().await? {
            Some((RecordKind::Manifest, body)) => {
                reader.manifest = json(&body)?;
                reader.manifest_sha256 = hex(digest(&SHA256, &body).as_ref());
            }
            _ => return Err(BackupError::damaged("it does not begin with its manifest")),
        }
        check_manifest(&reader.manifest)?;
        Ok(reader)
    }

    pub(crate) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which key the file was made with.
    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Result<Item> {
        let Some((kind, body)) = self.record().await? else {
            return Err(BackupError::damaged("it ends without its summary"));
        };
        if self.object.is_some() && !matches!(kind, RecordKind::Chunk | RecordKind::ObjectEnd) {
            return Err(BackupError::damaged("an object is not whole"));
        }
        match kind {
            RecordKind::Manifest => Err(BackupError::damaged("it has two manifests")),
            RecordKind::Table => self.table(&body),
            RecordKind::Rows => self.rows(&body),
            RecordKind::Object => self.begin_object(&body),
            RecordKind::Chunk => self.chunk(body),
            RecordKind::ObjectEnd => self.end_object(&body),
            RecordKind::Summary => self.summary(&body).await,
        }
    }

    async fn record(&mut self) -> Result<Option<(RecordKind, Bytes)>> {
        if !self.plain_to(HEAD).await? {
            return if self.plain.is_empty() {
                Ok(None)
            } else {
                Err(BackupError::damaged("a record is not whole"))
            };
        }
        let kind = RecordKind::of(self.plain[0])?;
        let len = length(&self.plain[1..HEAD]);
        if len > MAX_BODY || (kind == RecordKind::Chunk && len > CHUNK) {
            return Err(BackupError::refused(format!("a record of {len} bytes")));
        }
        if !self.plain_to(HEAD + len).await? {
            return Err(BackupError::damaged("a record is not whole"));
        }
        self.plain.advance(HEAD);
        Ok(Some((kind, self.plain.split_to(len).freeze())))
    }

    async fn plain_to(&mut self, len: usize) -> Result<bool> {
        while self.plain.len() < len {
            let Some(block) = self.frames.next().await? else {
                return Ok(false);
            };
            self.read += block.len() as u64;
            if self.read > MAX_PLAIN {
                return Err(BackupError::refused("it holds more than 64 GiB"));
            }
            self.plain.extend_from_slice(&block);
        }
        Ok(true)
    }

    /// Tables come in the order of the manifest, all of them.
    fn table(&mut self, body: &[u8]) -> Result<Item> {
        let name = std::str::from_utf8(body).unwrap_or_default();
        let shape = self.manifest.tables.get(self.tables.len());
        let shape = shape
            .filter(|shape| shape.name == name && self.objects.count == 0)
            .cloned()
            .ok_or_else(|| BackupError::damaged("a table comes that is not expected"))?;
        self.end_table();
        self.tables.push(TableSummary {
            name: shape.name.clone(),
            rows: 0,
            sha256: String::new(),
        });
        Ok(Item::Table(shape))
    }

    fn end_table(&mut self) {
        let rows = std::mem::replace(&mut self.rows, Context::new(&SHA256));
        if let Some(table) = self.tables.last_mut()
            && table.sha256.is_empty()
        {
            table.sha256 = hex(rows.finish().as_ref());
        }
    }

    fn rows(&mut self, body: &[u8]) -> Result<Item> {
        let shape = self.tables.len().checked_sub(1);
        let shape = shape.and_then(|i| self.manifest.tables.get(i));
        let (Some(shape), Some(table)) = (shape, self.tables.last_mut()) else {
            return Err(BackupError::damaged("rows come before their table"));
        };
        if !table.sha256.is_empty() {
            return Err(BackupError::damaged("rows come behind their table"));
        }
        let rows = record::rows(body, shape)?;
        table.rows += rows.len() as u64;
        self.rows.update(body);
        Ok(Item::Rows(rows))
    }

    fn begin_object(&mut self, body: &[u8]) -> Result<Item> {
        self.end_table();
        let complete = self.tables.len() == self.manifest.tables.len();
        if !complete || self.manifest.objects == ObjectsIn::None {
            return Err(BackupError::damaged("an object comes that is not expected"));
        }
        let entry: ObjectEntry = json(body)?;
        // The rules of names keep every path inside the store (no `..`, no hidden part, no root).
        let key = Key::new(entry.key.clone())
            .map_err(|_| BackupError::refused("an object has a name that leads elsewhere"))?;
        self.objects.count += 1;
        self.object_records.update(body);
        if self.manifest.objects == ObjectsIn::Whole {
            self.object = Some((entry.clone(), 0, Context::new(&SHA256)));
        } else {
            self.objects.bytes += entry.size;
        }
        Ok(Item::Object(entry, key))
    }

    fn chunk(&mut self, body: Bytes) -> Result<Item> {
        let Some((entry, size, hash)) = &mut self.object else {
            return Err(BackupError::damaged("bytes come before their object"));
        };
        *size += body.len() as u64;
        if *size > entry.size {
            return Err(BackupError::damaged("an object is longer than it says"));
        }
        hash.update(&body);
        Ok(Item::Chunk(body))
    }

    fn end_object(&mut self, body: &[u8]) -> Result<Item> {
        let Some((entry, size, hash)) = self.object.take() else {
            return Err(BackupError::damaged("an object ends that did not begin"));
        };
        if size != entry.size || hex(hash.finish().as_ref()).as_bytes() != body {
            return Err(BackupError::damaged("an object is not what it says"));
        }
        self.objects.bytes += size;
        self.object_records.update(body);
        Ok(Item::ObjectEnd)
    }

    async fn summary(&mut self, body: &[u8]) -> Result<Item> {
        self.end_table();
        let summary: Summary = json(body)?;
        if self.record().await?.is_some() {
            return Err(BackupError::damaged("something follows its summary"));
        }
        let records = std::mem::replace(&mut self.object_records, Context::new(&SHA256));
        self.objects.sha256 = hex(records.finish().as_ref());
        let found = Summary {
            manifest_sha256: self.manifest_sha256.clone(),
            tables: std::mem::take(&mut self.tables),
            objects: self.objects.clone(),
        };
        if found != summary || found.tables.len() != self.manifest.tables.len() {
            return Err(BackupError::damaged(
                "its summary says something else than is in it",
            ));
        }
        Ok(Item::End(summary))
    }
}

/// Names and numbers of a manifest within bounds.
fn check_manifest(manifest: &Manifest) -> Result<()> {
    let plain = |name: &str| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        !name.is_empty() && name.len() <= 63 && name.bytes().all(allowed)
    };
    let columns = |table: &TableShape| {
        (1..=MAX_COLUMNS).contains(&table.columns.len())
            && table.columns.iter().all(|column| plain(&column.name))
    };
    let fits = |table: &TableShape| plain(&table.name) && columns(table);
    let sorted = manifest.tables.is_sorted_by(|a, b| a.name < b.name);
    if manifest.tables.len() > MAX_TABLES || !sorted || !manifest.tables.iter().all(fits) {
        return Err(BackupError::refused(
            "its list of tables is not one of ours",
        ));
    }
    if manifest.steps.len() > 10_000 || manifest.version.len() > 64 {
        return Err(BackupError::refused("its manifest is not one of ours"));
    }
    Ok(())
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|_| BackupError::damaged("a record cannot be read"))
}

/// A manifest until the real one was read.
fn nothing() -> Manifest {
    Manifest {
        id: uuid::Uuid::nil(),
        made_at: portico_base::Timestamp::default(),
        version: String::new(),
        backend: String::new(),
        installation: String::new(),
        key_check: None,
        steps: Vec::new(),
        min_binary: String::new(),
        objects: ObjectsIn::None,
        tables: Vec::new(),
    }
}
