//! The handle that services hold.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, pin_mut};
use portico_telemetry::metrics::Registry;

use crate::backend::{Backend, Meta, Object, Page, Upload};
use crate::error::ObjectError;
use crate::key::Key;
use crate::local::Local;
use crate::metrics::Metrics;
use crate::s3::{S3, S3Options};

/// Most objects of one page.
const MAX_PAGE: usize = 1000;
const MAX_CONTENT_TYPE: usize = 127;

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

/// A place for objects; clones share it.
#[derive(Debug, Clone)]
pub struct Objects {
    backend: Arc<dyn Backend>,
    metrics: Metrics,
}

impl Objects {
    /// Objects as files below a directory, which is made when it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn local(path: &Path, registry: &Registry) -> Result<Self, ObjectError> {
        Ok(Self::on(Arc::new(Local::open(path)?), registry))
    }

    /// Objects in a bucket. The bucket is not asked yet.
    ///
    /// # Errors
    /// [`ObjectError::Invalid`] when the options contradict each other.
    pub fn s3(options: &S3Options, registry: &Registry) -> Result<Self, ObjectError> {
        Ok(Self::on(Arc::new(S3::new(options)?), registry))
    }

    fn on(backend: Arc<dyn Backend>, registry: &Registry) -> Self {
        Self {
            backend,
            metrics: Metrics::new(registry),
        }
    }

    /// Begins an object. It appears under its name, in place of an earlier one, when
    /// [`Writer::finish`] has returned; a writer that is dropped leaves no object.
    ///
    /// # Errors
    /// When the store cannot take it.
    pub async fn writer(&self, key: &Key, content_type: &str) -> Result<Writer, ObjectError> {
        check_content_type(content_type)?;
        let began = Instant::now();
        let upload = match self.backend.begin(key, content_type).await {
            Ok(upload) => upload,
            Err(error) => return self.metrics.ended("put", began, Err(error)),
        };
        Ok(Writer {
            upload,
            hash: digest::Context::new(&SHA256),
            size: 0,
            metrics: self.metrics.clone(),
            began,
        })
    }

    /// Stores a stream. Nothing is kept when it breaks off.
    ///
    /// # Errors
    /// [`ObjectError::Source`] when the stream fails, otherwise as [`Self::writer`].
    pub async fn put<E>(
        &self,
        key: &Key,
        content_type: &str,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Stored, ObjectError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut writer = self.writer(key, content_type).await?;
        pin_mut!(body);
        while let Some(chunk) = body.next().await {
            let written = match chunk {
                Ok(chunk) => writer.write(chunk).await,
                Err(error) => Err(ObjectError::Source(error.into())),
            };
            if let Err(error) = written {
                return Err(writer.fail(error).await);
            }
        }
        writer.finish().await
    }

    /// Stores bytes that are at hand.
    ///
    /// # Errors
    /// As [`Self::writer`].
    pub async fn put_bytes(
        &self,
        key: &Key,
        content_type: &str,
        bytes: impl Into<Bytes> + Send,
    ) -> Result<Stored, ObjectError> {
        let chunk = Ok::<_, ObjectError>(bytes.into());
        let body = futures_util::stream::once(std::future::ready(chunk));
        self.put(key, content_type, body).await
    }

    /// Opens an object; its bytes are read as the body is polled.
    ///
    /// # Errors
    /// [`ObjectError::NotFound`], or when the store cannot be reached.
    pub async fn get(&self, key: &Key) -> Result<Object, ObjectError> {
        self.open(key, None).await
    }

    /// Opens a part of an object: the bytes of `range`, cut at its end.
    ///
    /// # Errors
    /// [`ObjectError::Range`] when it begins behind the end, otherwise as [`Self::get`].
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Object, ObjectError> {
        if range.is_empty() {
            return Err(ObjectError::Invalid("the range is empty".to_owned()));
        }
        self.open(key, Some(range)).await
    }

    /// Size and time of an object.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn head(&self, key: &Key) -> Result<Meta, ObjectError> {
        let began = Instant::now();
        self.metrics
            .ended("head", began, self.backend.head(key).await)
    }

    /// Removes an object. One that is not there is no error, so that it can be repeated.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn delete(&self, key: &Key) -> Result<(), ObjectError> {
        let began = Instant::now();
        self.metrics
            .ended("delete", began, self.backend.delete(key).await)
    }

    /// Up to `limit` (at most 1,000) objects below a folder, however deep, ordered by name, behind `after`.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn list(
        &self,
        folder: Option<&Key>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, ObjectError> {
        let began = Instant::now();
        let limit = limit.clamp(1, MAX_PAGE);
        let page = self.backend.list(folder, after, limit).await;
        self.metrics.ended("list", began, page)
    }

    /// What is wrong with the store as far as the last operation of this process says; nothing when that
    /// went well.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        self.metrics.trouble()
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object, ObjectError> {
        let began = Instant::now();
        let opened = self.backend.get(key, range).await;
        let mut object = self.metrics.ended("get", began, opened)?;
        let metrics = self.metrics.clone();
        object.body = object
            .body
            .inspect(move |chunk| {
                if let Ok(chunk) = chunk {
                    metrics.read(chunk.len());
                }
            })
            .boxed();
        Ok(object)
    }
}

/// An object that is being written.
pub struct Writer {
    upload: Box<dyn Upload>,
    hash: digest::Context,
    size: u64,
    metrics: Metrics,
    began: Instant,
}

impl Writer {
    /// Adds bytes; chunks of 64 KiB to 1 MiB do best.
    ///
    /// # Errors
    /// When the store is full or cannot be reached; the object cannot be finished after that.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), ObjectError> {
        self.hash.update(&chunk);
        self.size += chunk.len() as u64;
        self.upload.write(chunk).await
    }

    /// Makes the object appear, durable, and says what it is.
    ///
    /// # Errors
    /// When the store is full or cannot be reached; then there is no object.
    pub async fn finish(self) -> Result<Stored, ObjectError> {
        let Self {
            upload,
            hash,
            size,
            metrics,
            began,
        } = self;
        metrics.ended("put", began, upload.finish().await)?;
        metrics.written(size);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(hash.finish().as_ref());
        Ok(Stored { size, sha256 })
    }

    /// Gives up and removes what a bucket has taken already. A dropped writer leaves no object
    /// either, but parts in a bucket until its lifecycle rule removes them.
    pub async fn abort(self) {
        self.upload.abort().await;
    }

    async fn fail(self, error: ObjectError) -> ObjectError {
        let (metrics, began) = (self.metrics.clone(), self.began);
        self.abort().await;
        metrics.failed("put", began, &error);
        error
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn check_content_type(text: &str) -> Result<(), ObjectError> {
    let graphic = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if text.contains('/') && text.len() <= MAX_CONTENT_TYPE && text.bytes().all(graphic) {
        return Ok(());
    }
    Err(ObjectError::Invalid(
        "content type: must be like `application/zip`".to_owned(),
    ))
}
