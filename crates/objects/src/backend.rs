//! What a place for objects must be able to do.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::error::ObjectError;
use crate::key::Key;

/// The bytes of an object as they come.
pub type Body = BoxStream<'static, Result<Bytes, ObjectError>>;

/// What is known about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: DateTime<Utc>,
}

/// An object that is being read.
pub struct Object {
    /// Its size and time; the size is that of the whole object, also when only a range is read.
    pub meta: Meta,
    /// Its content type; `application/octet-stream` when none was given.
    pub content_type: String,
    /// Which bytes follow.
    pub range: Range<u64>,
    /// The bytes; an error or an early end is an error of the stream.
    pub body: Body,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("meta", &self.meta)
            .field("content_type", &self.content_type)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Some objects of a folder, ordered by the bytes of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub items: Vec<Meta>,
    /// The last name of this page when more follow: the `after` of the next call.
    pub next: Option<Key>,
}

/// A place for objects.
pub(crate) trait Backend: Send + Sync + fmt::Debug {
    /// Begins an object that appears when the upload is finished.
    fn begin<'a>(
        &'a self,
        key: &'a Key,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, ObjectError>>;

    /// Opens an object, whole or a range with `start < end`, cut at the object's end.
    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<Object, ObjectError>>;

    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Meta, ObjectError>>;

    /// Removes an object; one that is not there is no error.
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), ObjectError>>;

    /// The first `limit` objects below a folder behind a name.
    fn list<'a>(
        &'a self,
        folder: Option<&'a Key>,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, ObjectError>>;
}

/// An object that is being written.
pub(crate) trait Upload: Send {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), ObjectError>>;

    /// Makes it appear, durable.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), ObjectError>>;

    /// Leaves nothing behind.
    fn abort(self: Box<Self>) -> BoxFuture<'static, ()>;
}
