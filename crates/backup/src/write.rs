//! Writes frames: 1 MiB of records, compressed, sealed, in their order.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use portico_objects::Writer;
use serde::Serialize;
use tempfile::TempPath;
use tokio::io::AsyncWriteExt as _;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{BackupError, Result};
use crate::key::FileKey;
use crate::manifest::hex;
use crate::record::{HEAD, MAX_BODY, RecordKind};

/// Plain bytes of a frame.
pub(crate) const BLOCK: usize = 1024 * 1024;
/// Most plain bytes of a backup.
pub(crate) const MAX_PLAIN: u64 = 64 * 1024 * 1024 * 1024;
/// A frame that would shrink to less than this part is stored as it is, so that no backup of ours looks
/// like a decompression bomb.
pub(crate) const MAX_RATIO: usize = 100;
/// A frame's plain text begins with how it is stored.
pub(crate) const STORED: u8 = 0;
pub(crate) const ZSTD: u8 = 1;
const LEVEL: i32 = 3;
/// Frames that are compressed at the same time.
const AHEAD: usize = 2;

/// Where a backup is written.
pub(crate) enum Sink {
    /// An object, which appears when it is whole.
    Object(Box<Writer>),
    /// A file, which is renamed when it is whole.
    File(Growing),
}

/// A file beside its place.
pub(crate) struct Growing {
    file: tokio::fs::File,
    path: TempPath,
    to: PathBuf,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// A backup on its way out.
pub(crate) struct BlockWriter {
    key: Arc<FileKey>,
    block: Vec<u8>,
    number: u64,
    plain: u64,
    sealing: VecDeque<JoinHandle<Result<Vec<u8>>>>,
    sink: Sink,
    bytes: u64,
    hash: Context,
}

impl Sink {
    /// A new file; nothing is there under its name until it is whole.
    pub(crate) fn file(to: &Path) -> Result<Self> {
        let failed = |error| BackupError::io(format!("{} cannot be written", to.display()), error);
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let growing = tempfile::Builder::new()
            .prefix(".portico-backup-")
            .tempfile_in(folder)
            .map_err(failed)?;
        let (file, path) = growing.into_parts();
        Ok(Self::File(Growing {
            file: tokio::fs::File::from_std(file),
            path,
            to: to.to_owned(),
        }))
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        match self {
            Self::Object(writer) => Ok(writer.write(Bytes::from(bytes)).await?),
            Self::File(growing) => growing
                .file
                .write_all(&bytes)
                .await
                .map_err(|error| growing.failed(error)),
        }
    }

    async fn finish(self) -> Result<()> {
        match self {
            Self::Object(writer) => {
                writer.finish().await?;
            }
            Self::File(mut growing) => {
                // The file may hold back the error of its last write until it is flushed.
                let flushed = growing.file.flush().await;
                flushed.map_err(|error| growing.failed(error))?;
                let synced = growing.file.sync_all().await;
                synced.map_err(|error| growing.failed(error))?;
                let to = growing.to;
                growing.path.persist(&to).map_err(|error| {
                    BackupError::io(format!("{} cannot be written", to.display()), error.error)
                })?;
                sync_folder(&to);
            }
        }
        Ok(())
    }
}

impl Growing {
    fn failed(&self, error: std::io::Error) -> BackupError {
        BackupError::io(format!("{} cannot be written", self.to.display()), error)
    }
}

impl BlockWriter {
    pub(crate) async fn new(mut sink: Sink, head: Vec<u8>, key: FileKey) -> Result<Self> {
        let mut hash = Context::new(&SHA256);
        hash.update(&head);
        let bytes = head.len() as u64;
        sink.write(head).await?;
        Ok(Self {
            key: Arc::new(key),
            block: Vec::with_capacity(BLOCK),
            number: 0,
            plain: 0,
            sealing: VecDeque::new(),
            sink,
            bytes,
            hash,
        })
    }

    /// Adds a record whose body is JSON; gives the body.
    pub(crate) async fn json(
        &mut self,
        kind: RecordKind,
        body: &impl Serialize,
    ) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(body)
            .map_err(|error| BackupError::Unfit(format!("a record cannot be written: {error}")))?;
        self.record(kind, &body).await?;
        Ok(body)
    }

    /// Adds a record.
    pub(crate) async fn record(&mut self, kind: RecordKind, body: &[u8]) -> Result<()> {
        let len = u32::try_from(body.len())
            .ok()
            .filter(|len| *len as usize <= MAX_BODY)
            .ok_or_else(|| {
                BackupError::Unfit(format!("a record of {} bytes is too large", body.len()))
            })?;
        let mut head = [kind.byte(); HEAD];
        head[1..].copy_from_slice(&len.to_le_bytes());
        self.put(&head).await?;
        self.put(body).await
    }

    async fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.plain += bytes.len() as u64;
        if self.plain > MAX_PLAIN {
            return Err(BackupError::Unfit(
                "there is more than 64 GiB; leave the objects out".to_owned(),
            ));
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            // A full block waits for the next byte: the last frame is sealed as the last.
            if self.block.len() == BLOCK && !bytes.is_empty() {
                self.seal(false).await?;
            }
        }
        Ok(())
    }

    async fn seal(&mut self, last: bool) -> Result<()> {
        if self.sealing.len() >= AHEAD {
            self.emit().await?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let (key, number) = (Arc::clone(&self.key), self.number);
        self.number += 1;
        let work = move || frame(&key, number, last, block);
        self.sealing.push_back(spawn_blocking(work));
        Ok(())
    }

    async fn emit(&mut self) -> Result<()> {
        if let Some(sealing) = self.sealing.pop_front() {
            let frame = sealing.await.map_err(|_| BackupError::Cancelled)??;
            self.hash.update(&frame);
            self.bytes += frame.len() as u64;
            self.sink.write(frame).await?;
        }
        Ok(())
    }

    /// Writes the last frame and makes the backup appear.
    pub(crate) async fn finish(mut self) -> Result<Written> {
        self.seal(true).await?;
        while !self.sealing.is_empty() {
            self.emit().await?;
        }
        self.sink.finish().await?;
        Ok(Written {
            bytes: self.bytes,
            sha256: hex(self.hash.finish().as_ref()),
        })
    }
}

/// Length, and what is sealed: how it is stored, its plain length, the block.
fn frame(key: &FileKey, number: u64, last: bool, block: Vec<u8>) -> Result<Vec<u8>> {
    let small = zstd::bulk::compress(&block, LEVEL)
        .map_err(|error| BackupError::io("a block cannot be compressed", error))?;
    let len = block.len();
    let shrinks = small.len() < len && small.len() * MAX_RATIO >= len;
    let (how, stored) = if shrinks {
        (ZSTD, small)
    } else {
        (STORED, block)
    };
    let mut sealed = Vec::with_capacity(stored.len() + 32);
    sealed.push(how);
    sealed.extend_from_slice(&u32::try_from(len).unwrap_or(0).to_le_bytes());
    sealed.extend_from_slice(&stored);
    key.seal(number, last, &mut sealed);
    let mut frame = u32::try_from(sealed.len())
        .unwrap_or(0)
        .to_le_bytes()
        .to_vec();
    frame.append(&mut sealed);
    Ok(frame)
}

/// A rename is on the disk when its folder is.
pub(crate) fn sync_folder(file: &Path) {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
    // Where a folder cannot be synchronised (some network file systems), the file itself is.
    let _ =
        std::fs::File::open(folder.unwrap_or_else(|| Path::new("."))).and_then(|f| f.sync_all());
}
