//! Objects as files: `<path>/<name>`, written beside and renamed, with content types in a tree of their own.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tempfile::TempPath;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};
use tokio::task::spawn_blocking;

use crate::backend::{Backend, Body, Meta, Object, Page, Upload};
use crate::error::ObjectError;
use crate::key::Key;

/// Where files grow until they are whole; on the same file system, so that a rename is all that is left.
const GROWING: &str = ".tmp";
/// The tree of content types: a file beside each object whose type is not [`PLAIN`].
const TYPES: &str = ".types";
const PLAIN: &str = "application/octet-stream";
/// A growing file of this age belongs to a process that died.
const STALE: Duration = Duration::from_secs(24 * 3600);
const CHUNK: usize = 128 * 1024;

/// Files below a directory.
#[derive(Debug, Clone)]
pub(crate) struct Local(Arc<Tree>);

#[derive(Debug)]
struct Tree {
    root: PathBuf,
    /// An object and its content type are two files: their change is one step for everybody else.
    /// Held for two renames, never while bytes are written.
    change: parking_lot::RwLock<()>,
}

impl Local {
    /// Makes the directory, and removes what died while growing.
    pub(crate) fn open(root: &Path) -> Result<Self, ObjectError> {
        // Missing here is not a missing object.
        let there = |error: io::Error| ObjectError::Unavailable(Box::new(error));
        for directory in [GROWING, TYPES] {
            make_dirs(&root.join(directory)).map_err(there)?;
        }
        sweep(&root.join(GROWING)).map_err(there)?;
        Ok(Self(Arc::new(Tree {
            root: root.to_owned(),
            change: parking_lot::RwLock::default(),
        })))
    }

    /// Runs file work where it may wait.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> Result<T, ObjectError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ObjectError>> {
        let tree = Arc::clone(&self.0);
        let work = spawn_blocking(move || work(&tree));
        Box::pin(async move {
            work.await
                .unwrap_or_else(|error| Err(ObjectError::Unavailable(Box::new(error))))
        })
    }
}

impl Backend for Local {
    fn begin<'a>(
        &'a self,
        key: &'a Key,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, ObjectError>> {
        let local = self.clone();
        let (key, content_type) = (key.clone(), content_type.to_owned());
        Box::pin(async move {
            let (file, path) = local.blocking(Tree::growing).await?;
            let file = BufWriter::with_capacity(CHUNK, tokio::fs::File::from_std(file));
            Ok(Box::new(Growing {
                local,
                key,
                content_type,
                file,
                path,
            }) as Box<dyn Upload>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<Object, ObjectError>> {
        let key = key.clone();
        Box::pin(async move {
            let (file, meta, content_type) = self.blocking(move |tree| tree.read(&key)).await?;
            let range = match range {
                None => 0..meta.size,
                Some(range) if range.start >= meta.size => {
                    return Err(ObjectError::Range(meta.size));
                }
                Some(range) => range.start..range.end.min(meta.size),
            };
            let mut file = tokio::fs::File::from_std(file);
            if range.start > 0 {
                file.seek(io::SeekFrom::Start(range.start)).await?;
            }
            let body = body(file, range.end - range.start);
            Ok(Object {
                meta,
                content_type,
                range,
                body,
            })
        })
    }

    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Meta, ObjectError>> {
        let key = key.clone();
        self.blocking(move |tree| tree.read(&key).map(|(_, meta, _)| meta))
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), ObjectError>> {
        let key = key.clone();
        self.blocking(move |tree| tree.remove(&key))
    }

    fn list<'a>(
        &'a self,
        folder: Option<&'a Key>,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, ObjectError>> {
        let (folder, after) = (folder.cloned(), after.cloned());
        self.blocking(move |tree| tree.list(folder.as_ref(), after.as_ref(), limit))
    }
}

impl Tree {
    fn file(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn type_file(&self, key: &Key) -> PathBuf {
        self.root.join(TYPES).join(key.as_str())
    }

    /// A new file that vanishes with its path.
    fn growing(&self) -> Result<(File, TempPath), ObjectError> {
        let file = tempfile::Builder::new().tempfile_in(self.root.join(GROWING));
        // The directory was there at the start: without it the store is gone, not an object.
        let file = file.map_err(unless_full)?;
        Ok(file.into_parts())
    }

    /// Puts a whole, synchronised file in its place.
    fn place(&self, grown: TempPath, key: &Key, content_type: &str) -> Result<(), ObjectError> {
        let kept = if content_type == PLAIN {
            None
        } else {
            let (mut file, path) = self.growing()?;
            io::Write::write_all(&mut file, content_type.as_bytes())?;
            file.sync_all()?;
            Some(path)
        };
        let (target, type_file) = (self.file(key), self.type_file(key));
        make_parents(&target, key)?;
        let alone = self.change.write();
        match kept {
            Some(path) => {
                make_parents(&type_file, key)?;
                path.persist(&type_file)
                    .map_err(|error| taken(error.error, key))?;
                sync_parent(&type_file).map_err(unless_full)?;
            }
            None => remove(&type_file)?,
        }
        grown
            .persist(&target)
            .map_err(|error| taken(error.error, key))?;
        drop(alone);
        sync_parent(&target).map_err(unless_full)
    }

    fn read(&self, key: &Key) -> Result<(File, Meta, String), ObjectError> {
        let _together = self.change.read();
        // A link that somebody laid below the directory leads nowhere.
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.cast_signed())
            .open(self.file(key));
        let file = opened.map_err(missing)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(ObjectError::NotFound);
        }
        let content_type = match fs::read_to_string(self.type_file(key)) {
            Ok(text) => text,
            Err(error) if missing_kind(&error).is_some() => PLAIN.to_owned(),
            Err(error) => return Err(error.into()),
        };
        let meta = Meta {
            key: key.clone(),
            size: found.len(),
            modified: time_of(&found),
        };
        Ok((file, meta, content_type))
    }

    fn remove(&self, key: &Key) -> Result<(), ObjectError> {
        let target = self.file(key);
        let alone = self.change.write();
        // A folder is no object; removing it would fail with another error on every system.
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_dir() => return Ok(()),
            _ => remove(&target)?,
        }
        remove(&self.type_file(key))?;
        drop(alone);
        if let Some(parent) = target.parent().filter(|parent| parent.exists()) {
            sync_dir(parent).map_err(unless_full)?;
        }
        Ok(())
    }

    /// Walks the tree in the order of the names: folders are compared with their slash.
    fn list(
        &self,
        folder: Option<&Key>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, ObjectError> {
        let start = folder.map_or(String::new(), |folder| format!("{folder}/"));
        let after = after.map_or("", Key::as_str);
        let mut waiting = VecDeque::from([start]);
        let mut items: Vec<Meta> = Vec::new();
        while let Some(name) = waiting.pop_front() {
            if !(name.is_empty() || name.ends_with('/')) {
                if items.len() == limit {
                    let next = items.last().map(|meta| meta.key.clone());
                    return Ok(Page { items, next });
                }
                items.extend(self.meta(&name)?);
                continue;
            }
            let mut found = self.entries(&name)?;
            found.retain(|entry| {
                // A folder may hold what follows `after` when `after` lies in it.
                entry.as_str() > after || (entry.ends_with('/') && after.starts_with(entry))
            });
            found.sort_unstable();
            for entry in found.into_iter().rev() {
                waiting.push_front(entry);
            }
        }
        Ok(Page { items, next: None })
    }

    /// Names in a folder, folders with a slash; nothing when the folder is gone.
    fn entries(&self, folder: &str) -> Result<Vec<String>, ObjectError> {
        let mut names = Vec::new();
        let read = match fs::read_dir(self.root.join(folder)) {
            Ok(read) => read,
            Err(error) if missing_kind(&error).is_some() => return Ok(names),
            Err(error) => return Err(error.into()),
        };
        for entry in read {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            // What is not a name of ours was put there by somebody else.
            let Some(name) = name.to_str().filter(|name| Key::new(*name).is_ok()) else {
                continue;
            };
            if kind.is_dir() {
                names.push(format!("{folder}{name}/"));
            } else if kind.is_file() {
                names.push(format!("{folder}{name}"));
            }
        }
        Ok(names)
    }

    /// Nothing when it was removed after its folder was read.
    fn meta(&self, name: &str) -> Result<Option<Meta>, ObjectError> {
        match fs::symlink_metadata(self.root.join(name)) {
            Ok(found) => Ok(Some(Meta {
                key: Key::new(name)?,
                size: found.len(),
                modified: time_of(&found),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A file that grows; it vanishes when this is dropped.
struct Growing {
    local: Local,
    key: Key,
    content_type: String,
    file: BufWriter<tokio::fs::File>,
    path: TempPath,
}

impl Upload for Growing {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), ObjectError>> {
        Box::pin(async move { self.file.write_all(&chunk).await.map_err(unless_full) })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), ObjectError>> {
        Box::pin(async move {
            let Self {
                local,
                key,
                content_type,
                mut file,
                path,
            } = *self;
            file.flush().await.map_err(unless_full)?;
            let file = file.into_inner().into_std().await;
            local
                .blocking(move |tree| {
                    file.sync_all().map_err(unless_full)?;
                    drop(file);
                    tree.place(path, &key, &content_type)
                })
                .await
        })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(std::future::ready(()))
    }
}

/// The next `left` bytes of a file; fewer are an error.
fn body(file: tokio::fs::File, left: u64) -> Body {
    stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = BytesMut::with_capacity(most);
        let read = (&mut file).take(left).read_buf(&mut chunk).await?;
        if read == 0 {
            let cut = io::Error::new(ErrorKind::UnexpectedEof, "the file is shorter than it was");
            return Err(ObjectError::Unavailable(Box::new(cut)));
        }
        Ok(Some((chunk.freeze(), (file, left - read as u64))))
    })
    .boxed()
}

/// Makes a directory and what is missing above it, each of them durable.
fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        make_dirs(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path),
        // Somebody else made it just now.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn make_parents(path: &Path, key: &Key) -> Result<(), ObjectError> {
    let parent = path.parent().unwrap_or(path);
    make_dirs(parent).map_err(|error| taken(error, key))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove(path: &Path) -> Result<(), ObjectError> {
    match fs::remove_file(path).map_err(missing) {
        Ok(()) | Err(ObjectError::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

fn sweep(growing: &Path) -> io::Result<()> {
    let old = SystemTime::now() - STALE;
    for entry in fs::read_dir(growing)? {
        let entry = entry?;
        if entry.metadata()?.modified()? < old {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn time_of(found: &fs::Metadata) -> DateTime<Utc> {
    found
        .modified()
        .map_or(DateTime::UNIX_EPOCH, DateTime::<Utc>::from)
}

/// A missing file or folder, a folder in a file's place and a link are all "no such object".
fn missing(error: io::Error) -> ObjectError {
    missing_kind(&error).unwrap_or_else(|| error.into())
}

fn missing_kind(error: &io::Error) -> Option<ObjectError> {
    let link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    let missing = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    (link || missing).then_some(ObjectError::NotFound)
}

/// Whatever goes wrong while an object is written, nobody asked for one that is missing.
fn unless_full(error: io::Error) -> ObjectError {
    match ObjectError::from(error) {
        ObjectError::NotFound => {
            ObjectError::Unavailable("the directory of the objects is gone".into())
        }
        other => other,
    }
}

/// A name whose folder is an object, or the other way round.
fn taken(error: io::Error, key: &Key) -> ObjectError {
    match error.kind() {
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::DirectoryNotEmpty => ObjectError::Invalid(format!(
            "name of an object: {key} is the folder of another one, or lies in one"
        )),
        _ => unless_full(error),
    }
}
