//! Objects in a bucket that speaks S3.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, Error, GetOptions, GetRange,
    MultipartUpload, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMultipartOptions,
    PutOptions, PutPayload, RetryConfig,
};
use portico_base::Secret;
use url::Url;

use crate::backend::{Backend, Meta, Object, Page, Upload};
use crate::error::ObjectError;
use crate::key::Key;

/// Bytes of a part. S3 takes 10,000 parts, all but the last of at least 5 MiB; some stores want them
/// of one size. So an object may have 156 GiB, and a writer holds one part in memory.
const PART: usize = 16 * 1024 * 1024;
const MAX_PARTS: usize = 10_000;
const PLAIN: &str = "application/octet-stream";

/// Encryption that the store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// None.
    #[default]
    None,
    /// By the store's own key (SSE-S3).
    S3,
    /// By the default key of its key service (SSE-KMS).
    Kms,
}

/// Where a bucket is and who we are there.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Address of the service; none means AWS.
    pub endpoint: Option<Url>,
    /// Region of the bucket; empty where the service knows none.
    pub region: String,
    /// Name of the bucket.
    pub bucket: String,
    /// What every object's name begins with, a name itself; empty for nothing.
    pub prefix: String,
    /// Access key and secret key; without them the machine's role is asked (AWS only).
    pub credentials: Option<(Secret<String>, Secret<String>)>,
    /// Bucket in the path instead of the host name.
    pub path_style: bool,
    /// Encryption that the store is asked for.
    pub encryption: Encryption,
}

/// A bucket.
#[derive(Clone)]
pub(crate) struct S3 {
    store: Arc<AmazonS3>,
    prefix: Option<Key>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

impl S3 {
    pub(crate) fn new(options: &S3Options) -> Result<Self, ObjectError> {
        let prefix = options.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() {
            None
        } else {
            Some(Key::new(prefix)?)
        };
        let store = builder(options).and_then(AmazonS3Builder::build);
        let store = store.map_err(|error| ObjectError::Invalid(error.to_string()))?;
        Ok(Self {
            store: Arc::new(store),
            prefix,
        })
    }

    fn path(&self, key: &Key) -> Path {
        match &self.prefix {
            Some(prefix) => Path::from(format!("{prefix}/{key}")),
            None => Path::from(key.as_str()),
        }
    }

    /// Nothing for an object whose name is not one of ours.
    fn meta(&self, meta: &ObjectMeta) -> Option<Meta> {
        let path = meta.location.as_ref();
        let name = match &self.prefix {
            Some(prefix) => path.strip_prefix(prefix.as_str())?.strip_prefix('/')?,
            None => path,
        };
        Some(Meta {
            key: Key::new(name).ok()?,
            size: meta.size,
            modified: meta.last_modified,
        })
    }

    async fn open(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object, ObjectError> {
        let options = GetOptions {
            range: range.clone().map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(&self.path(key), options).await {
            Ok(found) => found,
            Err(error) => return Err(self.range_error(key, range, error).await),
        };
        let content_type = found.attributes.get(&Attribute::ContentType);
        Ok(Object {
            meta: Meta {
                key: key.clone(),
                size: found.meta.size,
                modified: found.meta.last_modified,
            },
            content_type: content_type.map_or(PLAIN, |text| text.as_ref()).to_owned(),
            range: found.range.clone(),
            body: found.into_stream().map_err(from_store).boxed(),
        })
    }

    /// Stores say in many ways that a range begins behind the end, so the size decides.
    async fn range_error(&self, key: &Key, range: Option<Range<u64>>, error: Error) -> ObjectError {
        let error = from_store(error);
        let Some(range) = range.filter(|_| matches!(error, ObjectError::Unavailable(_))) else {
            return error;
        };
        match self.head(key).await {
            Ok(meta) if range.start >= meta.size => ObjectError::Range(meta.size),
            _ => error,
        }
    }

    async fn page(
        &self,
        folder: Option<&Key>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, ObjectError> {
        let folder = match (folder, &self.prefix) {
            (Some(folder), _) => Some(self.path(folder)),
            (None, prefix) => prefix.as_ref().map(|prefix| Path::from(prefix.as_str())),
        };
        let mut found = match after {
            Some(after) => self
                .store
                .list_with_offset(folder.as_ref(), &self.path(after)),
            None => self.store.list(folder.as_ref()),
        };
        let mut items: Vec<Meta> = Vec::new();
        while let Some(meta) = found.try_next().await.map_err(from_store)? {
            let Some(meta) = self.meta(&meta) else {
                continue;
            };
            if items.len() == limit {
                let next = items.last().map(|meta| meta.key.clone());
                return Ok(Page { items, next });
            }
            items.push(meta);
        }
        Ok(Page { items, next: None })
    }
}

impl Backend for S3 {
    fn begin<'a>(
        &'a self,
        key: &'a Key,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, ObjectError>> {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, content_type.to_owned().into());
        let upload = Parts {
            store: Arc::clone(&self.store),
            path: self.path(key),
            attributes,
            waiting: Vec::new(),
            bytes: 0,
            multipart: None,
            sent: 0,
        };
        Box::pin(std::future::ready(Ok(Box::new(upload) as Box<dyn Upload>)))
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<Object, ObjectError>> {
        Box::pin(self.open(key, range))
    }

    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Meta, ObjectError>> {
        Box::pin(async move {
            let path = self.path(key);
            let found = self.store.head(&path).await.map_err(from_store)?;
            Ok(Meta {
                key: key.clone(),
                size: found.size,
                modified: found.last_modified,
            })
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), ObjectError>> {
        Box::pin(async move {
            let path = self.path(key);
            match self.store.delete(&path).await.map_err(from_store) {
                Ok(()) | Err(ObjectError::NotFound) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn list<'a>(
        &'a self,
        folder: Option<&'a Key>,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, ObjectError>> {
        Box::pin(self.page(folder, after, limit))
    }
}

/// A small object is one request; a larger one is sent in parts, each when it is full.
struct Parts {
    store: Arc<AmazonS3>,
    path: Path,
    attributes: Attributes,
    waiting: Vec<Bytes>,
    /// Bytes that wait.
    bytes: usize,
    multipart: Option<Box<dyn MultipartUpload>>,
    sent: usize,
}

impl Parts {
    async fn take(&mut self, mut chunk: Bytes) -> Result<(), ObjectError> {
        while !chunk.is_empty() {
            // A full part is sent when it is known that more follows: the last one is sent by `end`.
            if self.bytes == PART {
                self.send().await?;
            }
            let room = (PART - self.bytes).min(chunk.len());
            self.bytes += room;
            self.waiting.push(chunk.split_to(room));
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), ObjectError> {
        if self.sent == MAX_PARTS {
            return Err(ObjectError::Full(std::io::Error::other(
                "an object in a bucket has at most 156 GiB",
            )));
        }
        let upload = match &mut self.multipart {
            Some(upload) => upload,
            None => {
                let options = PutMultipartOptions {
                    attributes: self.attributes.clone(),
                    ..PutMultipartOptions::default()
                };
                let begun = self.store.put_multipart_opts(&self.path, options).await;
                self.multipart.insert(begun.map_err(from_store)?)
            }
        };
        self.bytes = 0;
        let payload = PutPayload::from_iter(std::mem::take(&mut self.waiting));
        self.sent += 1;
        upload.put_part(payload).await.map_err(from_store)
    }

    async fn end(&mut self) -> Result<(), ObjectError> {
        if self.multipart.is_none() {
            let payload = PutPayload::from_iter(std::mem::take(&mut self.waiting));
            let options = PutOptions {
                attributes: self.attributes.clone(),
                ..PutOptions::default()
            };
            let put = self.store.put_opts(&self.path, payload, options).await;
            return put.map(drop).map_err(from_store);
        }
        self.send().await?;
        let Some(upload) = &mut self.multipart else {
            return Ok(());
        };
        upload.complete().await.map(drop).map_err(from_store)
    }

    async fn give_up(&mut self) {
        if let Some(mut upload) = self.multipart.take()
            && let Err(error) = upload.abort().await
        {
            // The bucket's lifecycle rule removes the parts in the end.
            tracing::warn!(err = %error, "parts of an object that was given up stay in the bucket");
        }
    }
}

impl Upload for Parts {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), ObjectError>> {
        Box::pin(self.take(chunk))
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), ObjectError>> {
        Box::pin(async move {
            let ended = self.end().await;
            if ended.is_err() {
                self.give_up().await;
            }
            ended
        })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.give_up().await })
    }
}

fn builder(options: &S3Options) -> Result<AmazonS3Builder, Error> {
    let client = ClientOptions::new()
        // Whether an address without TLS is right was decided with the configuration.
        .with_allow_http(true)
        .with_connect_timeout(Duration::from_secs(5))
        // A large object may take hours, but not without a byte: this is one part over a slow line, or the wait
        // for an answer.
        .with_timeout_disabled()
        .with_read_timeout(Duration::from_secs(120));
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 3,
        retry_timeout: Duration::from_secs(30),
    };
    // Services of one's own often know no region, but the signature holds one.
    let region = match options.region.as_str() {
        "" => "us-east-1",
        region => region,
    };
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client)
        .with_retry(retry)
        .with_bucket_name(&options.bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(!options.path_style);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some((access, secret)) = &options.credentials {
        builder = builder
            .with_access_key_id(access.expose())
            .with_secret_access_key(secret.expose());
    }
    let encryption = match options.encryption {
        Encryption::None => return Ok(builder),
        Encryption::S3 => "AES256",
        Encryption::Kms => "aws:kms",
    };
    let key: AmazonS3ConfigKey = "aws_server_side_encryption".parse()?;
    Ok(builder.with_config(key, encryption))
}

fn from_store(error: Error) -> ObjectError {
    match error {
        // A missing bucket is nobody's missing object.
        Error::NotFound { ref source, .. } if source.to_string().contains("NoSuchBucket") => {
            ObjectError::Unavailable(Box::new(error))
        }
        Error::NotFound { .. } => ObjectError::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ObjectError::Refused(Box::new(error))
        }
        _ => ObjectError::Unavailable(Box::new(error)),
    }
}
