//! Files of a directory, served safely: nothing outside of its root, validators, ranges (GW-14); and fixed answers.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::refusal::Refusal;
use crate::body::RespBody;
use crate::objects::doc::{DirectoryTarget, FixedTarget};
use crate::route::path::compared;

const CHUNK: usize = 64 * 1024;

/// A file that was found.
struct Found {
    path: PathBuf,
    length: u64,
    modified: SystemTime,
}

/// Serves one path below a directory.
///
/// # Errors
/// 404 for whatever is not a file inside, 405 for other methods than GET and HEAD, 416 for impossible ranges.
pub(super) async fn serve(
    target: &DirectoryTarget,
    roots: &[PathBuf],
    below: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<RespBody>, Refusal> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "gateway.method_not_allowed",
            "files can only be read",
        )
        .allowing("GET, HEAD"));
    }
    let relative = relative(below).ok_or_else(nothing)?;
    let (target_path, index, fallback) = (
        PathBuf::from(&target.path),
        target.index.clone(),
        target.fallback.clone(),
    );
    let (roots, wants_directory) = (roots.to_vec(), below.ends_with('/') || below.is_empty());
    // Looking at paths blocks, so that it is not done on the worker.
    let found = tokio::task::spawn_blocking(move || {
        find(
            &target_path,
            &roots,
            &relative,
            wants_directory,
            &index,
            fallback.as_deref(),
        )
    });
    match found.await.ok().flatten() {
        None => Err(nothing()),
        Some(Look::Redirect) => {
            let mut response = Response::new(RespBody::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let last = below.rsplit('/').next().unwrap_or("");
            if let Ok(to) = HeaderValue::try_from(format!("{last}/")) {
                response.headers_mut().insert(header::LOCATION, to);
            }
            Ok(response)
        }
        Some(Look::File(found)) => answer(found, target, method, headers).await,
    }
}

fn nothing() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "gateway.not_found",
        "there is no such file",
    )
}

/// The segments of a path as names of files; nothing when one of them could be anything else.
fn relative(below: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for segment in below.split('/').filter(|s| !s.is_empty()) {
        if segment.contains(';') {
            return None;
        }
        let bytes = compared(segment);
        let name = std::str::from_utf8(&bytes).ok()?;
        let hidden = name.starts_with('.') && name != ".well-known";
        if hidden || name.contains(['/', '\\', '\0', ':']) {
            return None;
        }
        path.push(name);
    }
    Some(path)
}

enum Look {
    File(Found),
    /// A directory that was asked for without its slash.
    Redirect,
}

fn find(
    target: &Path,
    roots: &[PathBuf],
    relative: &Path,
    wants_directory: bool,
    index: &[String],
    fallback: Option<&str>,
) -> Option<Look> {
    let base = target.canonicalize().ok()?;
    let allowed = roots
        .iter()
        .filter_map(|r| r.canonicalize().ok())
        .any(|root| base.starts_with(root));
    if !allowed {
        return None;
    }
    let wanted = base.join(relative);
    let inside = wanted.canonicalize().ok().filter(|p| p.starts_with(&base));
    match inside {
        Some(path) if path.is_dir() && !wants_directory => return Some(Look::Redirect),
        Some(path) if path.is_dir() => {
            if let Some(found) = index.iter().find_map(|name| file(&base, &path.join(name))) {
                return Some(Look::File(found));
            }
        }
        Some(path) if !wants_directory => return file(&base, &path).map(Look::File),
        _ => {}
    }
    fallback
        .and_then(|name| file(&base, &base.join(name)))
        .map(Look::File)
}

/// A regular file whose real place is inside of the base.
fn file(base: &Path, path: &Path) -> Option<Found> {
    let path = path.canonicalize().ok().filter(|p| p.starts_with(base))?;
    let data = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(Found {
        length: data.len(),
        modified: data.modified().unwrap_or(UNIX_EPOCH),
        path,
    })
}

async fn answer(
    found: Found,
    target: &DirectoryTarget,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<RespBody>, Refusal> {
    let age = found
        .modified
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let etag = format!("\"{:x}-{:x}\"", age.as_nanos(), found.length);
    let mut response = Response::new(RespBody::empty());
    let out = response.headers_mut();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            out.insert(name, value);
        }
    };
    set(header::ETAG, etag.clone());
    set(
        header::LAST_MODIFIED,
        httpdate::fmt_http_date(found.modified),
    );
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned());
    set(
        header::CACHE_CONTROL,
        target
            .max_age_s
            .map_or_else(|| "no-cache".to_owned(), |s| format!("public, max-age={s}")),
    );
    if is_fresh(headers, &etag, found.modified) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    set(header::CONTENT_TYPE, content_type(&found.path).to_owned());
    let range = range(headers, &etag, found.length);
    let (start, length) = match range {
        Range::Whole => (0, found.length),
        Range::Part(start, end) => {
            set(
                header::CONTENT_RANGE,
                format!("bytes {start}-{end}/{}", found.length),
            );
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (start, end - start + 1)
        }
        Range::Impossible => {
            response.headers_mut().remove(header::CONTENT_TYPE);
            if let Ok(range) = HeaderValue::try_from(format!("bytes */{}", found.length)) {
                response.headers_mut().insert(header::CONTENT_RANGE, range);
            }
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(response);
        }
    };
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if method == Method::GET && length > 0 {
        *response.body_mut() = body(&found.path, start, length)
            .await
            .map_err(|_| nothing())?;
    }
    Ok(response)
}

/// `If-None-Match` before `If-Modified-Since` (RFC 9110 §13.2.2).
fn is_fresh(headers: &HeaderMap, etag: &str, modified: SystemTime) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        let lines = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|v| v.to_str().ok());
        return lines
            .flat_map(|l| l.split(','))
            .map(str::trim)
            .any(|t| t == "*" || t.trim_start_matches("W/") == etag);
    }
    let since = headers
        .get(header::IF_MODIFIED_SINCE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| httpdate::parse_http_date(v).ok());
    // The header has seconds only.
    let seconds = |t: SystemTime| t.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    since.is_some_and(|since| seconds(modified) <= seconds(since))
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// First and last byte.
    Part(u64, u64),
    Impossible,
}

/// One range of bytes; several are answered with the whole (RFC 9110 §14.2 allows it).
fn range(headers: &HeaderMap, etag: &str, length: u64) -> Range {
    let Some(spec) = headers
        .get(header::RANGE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("bytes="))
    else {
        return Range::Whole;
    };
    if headers
        .get(header::IF_RANGE)
        .is_some_and(|v| v.as_bytes() != etag.as_bytes())
        || spec.contains(',')
    {
        return Range::Whole;
    }
    let Some((first, last)) = spec.split_once('-') else {
        return Range::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (number(first), number(last)) {
        (Some(first), _) if first >= length => Range::Impossible,
        (Some(first), Some(last)) if first <= last => Range::Part(first, last.min(length - 1)),
        (Some(first), None) if last.trim().is_empty() => Range::Part(first, length - 1),
        (None, Some(0)) if first.trim().is_empty() => Range::Impossible,
        (None, Some(_)) if first.trim().is_empty() && length == 0 => Range::Impossible,
        (None, Some(tail)) if first.trim().is_empty() => {
            Range::Part(length.saturating_sub(tail), length - 1)
        }
        _ => Range::Whole,
    }
}

async fn body(path: &Path, start: u64, length: u64) -> std::io::Result<RespBody> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(start)).await?;
    if length <= CHUNK as u64 {
        let mut whole = Vec::with_capacity(usize::try_from(length).unwrap_or(CHUNK));
        file.take(length).read_to_end(&mut whole).await?;
        return Ok(RespBody::from(whole));
    }
    let chunks = stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok::<_, std::io::Error>(None);
        }
        let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        let n = file.read(&mut chunk).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(n);
        Ok(Some((
            Frame::data(Bytes::from(chunk)),
            (file, left - n as u64),
        )))
    });
    Ok(RespBody::boxed(Sized {
        stream: StreamBody::new(Box::pin(chunks)),
        left: length,
    }))
}

/// A stream whose length is known, so that it is announced.
struct Sized<S> {
    stream: S,
    left: u64,
}

impl<S> http_body::Body for Sized<S>
where
    S: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = S::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, S::Error>>> {
        let polled = std::pin::Pin::new(&mut self.stream).poll_frame(cx);
        if let std::task::Poll::Ready(Some(Ok(frame))) = &polled {
            self.left -= frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        polled
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

fn content_type(path: &Path) -> &'static str {
    match path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or("")
        .to_ascii_lowercase()
        .as_str()
    {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "pdf" => "application/pdf",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

/// The answer that a document holds.
pub(super) fn fixed(target: &FixedTarget) -> Response<RespBody> {
    let mut response = Response::new(RespBody::from(target.body.clone()));
    *response.status_mut() = StatusCode::from_u16(target.status).unwrap_or(StatusCode::OK);
    let kind = target
        .content_type
        .as_deref()
        .unwrap_or("text/plain; charset=utf-8");
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    for (name, value) in &target.headers {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site {
        _root: tempfile::TempDir,
        target: DirectoryTarget,
        roots: Vec<PathBuf>,
    }

    fn site() -> Site {
        let root = tempfile::tempdir().unwrap();
        let site = root.path().join("site");
        std::fs::create_dir_all(site.join("sub")).unwrap();
        std::fs::write(site.join("index.html"), "<p>home</p>").unwrap();
        std::fs::write(site.join("a b.txt"), "0123456789").unwrap();
        std::fs::write(site.join("sub/page.css"), "p{}").unwrap();
        std::fs::write(site.join(".secret"), "no").unwrap();
        std::fs::write(root.path().join("outside.txt"), "no").unwrap();
        std::os::unix::fs::symlink(root.path().join("outside.txt"), site.join("link.txt")).unwrap();
        std::os::unix::fs::symlink(root.path(), site.join("up")).unwrap();
        let target = DirectoryTarget {
            path: site.to_str().unwrap().to_owned(),
            index: vec!["index.html".into()],
            fallback: None,
            max_age_s: Some(60),
        };
        Site {
            target,
            roots: vec![site],
            _root: root,
        }
    }

    async fn get(
        site: &Site,
        path: &str,
        headers: &[(HeaderName, &str)],
    ) -> (u16, HeaderMap, Bytes) {
        let headers = headers
            .iter()
            .map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap()))
            .collect();
        match serve(&site.target, &site.roots, path, &Method::GET, &headers).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                (
                    parts.status.as_u16(),
                    parts.headers,
                    body.collect(1 << 20).await.unwrap(),
                )
            }
            Err(refusal) => (refusal.status.as_u16(), HeaderMap::new(), Bytes::new()),
        }
    }

    #[tokio::test]
    async fn files_are_found_and_nothing_else() {
        let site = site();
        let (status, headers, body) = get(&site, "/", &[]).await;
        assert_eq!(
            (status, &body[..], &headers["content-type"]),
            (
                200,
                &b"<p>home</p>"[..],
                &HeaderValue::from_static("text/html; charset=utf-8")
            )
        );
        assert_eq!(headers["cache-control"], "public, max-age=60");
        assert_eq!(get(&site, "/a%20b.txt", &[]).await.2, "0123456789");
        assert_eq!(get(&site, "/sub/page.css", &[]).await.0, 200);
        assert_eq!(get(&site, "/sub", &[]).await.1["location"], "sub/");
        for bad in [
            "/none",
            "/.secret",
            "/link.txt",
            "/up/outside.txt",
            "/..%2Foutside.txt",
            "/sub/",
            "/index.html/",
            "/a%20b.txt;x",
            "/sub/..%5C..%5Coutside.txt",
            "/%FF",
        ] {
            assert_eq!(get(&site, bad, &[]).await.0, 404, "{bad}");
        }
        let outside = Site {
            roots: vec![PathBuf::from("/nonexistent")],
            ..site
        };
        assert_eq!(
            get(&outside, "/", &[]).await.0,
            404,
            "the directory is not below a configured root"
        );
    }

    #[tokio::test]
    async fn validators_and_ranges() {
        let site = site();
        let etag = get(&site, "/a%20b.txt", &[]).await.1["etag"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            get(&site, "/a%20b.txt", &[(header::IF_NONE_MATCH, &etag)])
                .await
                .0,
            304
        );
        for (spec, status, body) in [
            ("bytes=2-4", 206, "234"),
            ("bytes=7-", 206, "789"),
            ("bytes=-2", 206, "89"),
            ("bytes=10-", 416, ""),
            ("bytes=1-2,4-5", 200, "0123456789"),
            ("bytes=5-2", 200, "0123456789"),
        ] {
            let got = get(&site, "/a%20b.txt", &[(header::RANGE, spec)]).await;
            assert_eq!((got.0, &got.2[..]), (status, body.as_bytes()), "{spec}");
        }
        assert_eq!(
            get(
                &site,
                "/a%20b.txt",
                &[(header::RANGE, "bytes=2-4"), (header::IF_RANGE, "\"old\"")]
            )
            .await
            .0,
            200
        );
    }

    #[tokio::test]
    async fn single_page_applications_have_a_fallback() {
        let mut site = site();
        site.target.fallback = Some("index.html".into());
        let (status, _, body) = get(&site, "/some/route", &[]).await;
        assert_eq!((status, &body[..]), (200, &b"<p>home</p>"[..]));
    }
}
