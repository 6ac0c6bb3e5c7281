//! Where an issuer's keys come from: a file that is read again when it changes, or an address that is asked now and then.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portico_token::{BadKeys, KeySet};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::jwt::JwtVerifier;

/// Larger documents are not read.
const MAX_BYTES: usize = 256 * 1024;
const FILE_EVERY: Duration = Duration::from_secs(1);
const URL_EVERY: Duration = Duration::from_secs(300);
/// After a failure, and at most so often when tokens name unknown keys.
const URL_AGAIN: Duration = Duration::from_secs(10);
const URL_TIMEOUT: Duration = Duration::from_secs(5);

/// The place of a set of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    File(PathBuf),
    Url(Url),
}

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysUnavailable {
    #[error("the file with the issuer's keys cannot be read")]
    File(#[source] io::Error),
    #[error("the address of the issuer's keys must be https, or http on this machine")]
    NotAllowed,
    #[error("the issuer's keys cannot be fetched")]
    Fetch(#[source] reqwest::Error),
    #[error("the issuer's keys are larger than 256 KiB")]
    TooLarge,
    #[error("the document with the issuer's keys {0}")]
    Bad(#[from] BadKeys),
}

/// Reads a file of keys.
///
/// # Errors
/// When it cannot be read or holds no keys.
pub fn read_file(path: &Path) -> Result<KeySet, KeysUnavailable> {
    let size = std::fs::metadata(path)
        .map_err(KeysUnavailable::File)?
        .len();
    if size > MAX_BYTES as u64 {
        return Err(KeysUnavailable::TooLarge);
    }
    Ok(KeySet::parse(
        &std::fs::read(path).map_err(KeysUnavailable::File)?,
    )?)
}

/// Keeps a verifier's keys fresh until told to stop. What is known stays in use while the source is away.
pub async fn follow(source: KeySource, verifier: Arc<JwtVerifier>, stop: CancellationToken) {
    let work = async {
        match source {
            KeySource::File(path) => follow_file(&path, &verifier).await,
            KeySource::Url(url) => follow_url(&url, &verifier).await,
        }
    };
    stop.run_until_cancelled_owned(work).await;
}

async fn follow_file(path: &Path, verifier: &JwtVerifier) {
    let mut seen: Option<(SystemTime, u64)> = None;
    loop {
        let now = tokio::fs::metadata(path)
            .await
            .ok()
            .and_then(|m| Some((m.modified().ok()?, m.len())));
        if now.is_some() && now != seen {
            let read = read_file(path);
            take(read, verifier);
            seen = now;
        }
        tokio::time::sleep(FILE_EVERY).await;
    }
}

async fn follow_url(url: &Url, verifier: &JwtVerifier) {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(URL_TIMEOUT)
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(err = %error, "keys of the issuer cannot be fetched");
            return;
        }
    };
    let missed = verifier.missed();
    loop {
        let good = take(fetch(&client, url).await, verifier);
        tokio::time::sleep(URL_AGAIN).await;
        if good {
            // A token with an unknown key is worth a look, but not more than one in ten seconds.
            let _timed_out = tokio::time::timeout(URL_EVERY, missed.notified()).await;
        }
    }
}

/// Fetches keys from an address.
///
/// # Errors
/// When it may not be asked, does not answer, or answers something else.
pub async fn fetch(client: &reqwest::Client, url: &Url) -> Result<KeySet, KeysUnavailable> {
    if !is_allowed(url) {
        return Err(KeysUnavailable::NotAllowed);
    }
    let answer = client
        .get(url.clone())
        .send()
        .await
        .and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(KeysUnavailable::Fetch)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(KeysUnavailable::Fetch)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(KeysUnavailable::TooLarge);
        }
    }
    Ok(KeySet::parse(&body)?)
}

/// Keys in clear are only as good as the machine they come from.
fn is_allowed(url: &Url) -> bool {
    let local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(v4)) => IpAddr::V4(v4).is_loopback(),
        Some(url::Host::Ipv6(v6)) => IpAddr::V6(v6).is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && local)
}

fn take(keys: Result<KeySet, KeysUnavailable>, verifier: &JwtVerifier) -> bool {
    match keys {
        Ok(keys) => {
            verifier.set_keys(keys);
            true
        }
        Err(error) => {
            tracing::warn!(err = %portico_web::problem::chain(&error), "the issuer's keys were not renewed");
            false
        }
    }
}
