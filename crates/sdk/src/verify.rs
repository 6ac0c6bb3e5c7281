//! Checks that a request came through the gateway, just now, and reads whose it is.

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use http::{HeaderMap, Method};

use crate::identity::Identity;
use crate::replay::Replays;
use crate::secret::Secret;
use crate::signature::{SIGNATURE_HEADER, SIGNED, TIMESTAMP_HEADER, Values, signature_base};

/// How far a timestamp may be from the own clock, in either direction.
pub const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_MS: u64 = 60_000;
const MEMORY: usize = 100_000;
const DEADLINE_HEADER: &str = "x-portico-deadline-ms";

/// Why a request was refused. It is for the log; the caller is told 401 and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A header is not there.
    #[error("missing")]
    Missing,
    /// A header is there more than once.
    #[error("duplicate")]
    Duplicate,
    /// A header does not have the form.
    #[error("malformed")]
    Malformed,
    /// The timestamp is further away than [`WINDOW`].
    #[error("skew")]
    Skew,
    /// None of the secrets made this signature.
    #[error("mismatch")]
    Mismatch,
    /// An unsafe request was seen before, or is too old to tell.
    #[error("replay")]
    Replay,
}

/// Verifies identity headers with the instance's secrets.
///
/// Unsafe requests (RFC 9110 §9.2.1) are remembered for as long as their timestamp is fresh, so that none
/// can be sent again. The memory holds 100,000 requests unless told; when that is too few, the oldest is
/// forgotten and whatever was signed up to its time is refused.
#[derive(Debug)]
pub struct Verifier {
    /// Newest first, at most two.
    secrets: RwLock<Vec<(Secret, hmac::Key)>>,
    replays: Mutex<Replays>,
}

impl Verifier {
    /// A verifier with secrets, newest first; the first two count. Without any it refuses everything.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self::with_memory(secrets, MEMORY)
    }

    /// A verifier that remembers up to `memory` unsafe requests, about 100 bytes each.
    #[must_use]
    pub fn with_memory(secrets: impl IntoIterator<Item = Secret>, memory: usize) -> Self {
        let secrets = secrets
            .into_iter()
            .filter(|s| !s.expose().is_empty())
            .take(2)
            .map(keyed)
            .collect();
        Self {
            secrets: RwLock::new(secrets),
            replays: Mutex::new(Replays::new(memory.max(1))),
        }
    }

    /// Makes `secret` the newest and keeps the one before it until the next rotation.
    pub fn rotate(&self, secret: Secret) {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        if !secret.expose().is_empty()
            && secrets.first().is_none_or(|(newest, _)| *newest != secret)
        {
            secrets.truncate(1);
            secrets.insert(0, keyed(secret));
        }
    }

    /// The newest secret, which is also the instance's credential.
    #[must_use]
    pub fn newest(&self) -> Option<Secret> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets.first().map(|(secret, _)| secret.clone())
    }

    /// Checks one request. `target` is path and query as received, in their original encoding; `now` is the
    /// system's clock.
    ///
    /// # Errors
    /// [`Refused`], when there is other than exactly one value of each header, when the timestamp is more than
    /// [`WINDOW`] away, when no secret made the signature, or when an unsafe request was seen before.
    pub fn verify(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Identity, Refused> {
        let mut found = [""; 7];
        for (slot, (_, header)) in found.iter_mut().zip(SIGNED) {
            *slot = one(headers, header)?;
        }
        let (stamp, signature) = (
            one(headers, TIMESTAMP_HEADER)?,
            one(headers, SIGNATURE_HEADER)?,
        );
        let [user, tenant, session, roles, scopes, aal, request_id] = found;
        let values = Values {
            user,
            tenant,
            session,
            roles,
            scopes,
            aal,
            request_id,
        };
        let stamp_ms = digits(stamp, 15).ok_or(Refused::Malformed)?;
        let level = if aal.is_empty() {
            0
        } else {
            digits(aal, 2).ok_or(Refused::Malformed)?
        };
        let macs = macs(signature)?;
        let now_ms = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        if now_ms.abs_diff(stamp_ms) > WINDOW_MS {
            return Err(Refused::Skew);
        }
        // The timestamp is signed as it was sent, leading zeros and all.
        let base = signature_base(stamp_ms, method.as_str(), target, &values);
        if stamp != stamp_ms.to_string() || !self.is_ours(base.as_bytes(), &macs) {
            return Err(Refused::Mismatch);
        }
        if !method.is_safe() {
            // The text, not the signature: during a rotation one request has two signatures.
            let mut seen = [0; 32];
            seen.copy_from_slice(digest::digest(&digest::SHA256, base.as_bytes()).as_ref());
            let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
            if !replays.admit(stamp_ms, seen, now_ms, WINDOW_MS) {
                return Err(Refused::Replay);
            }
        }
        Ok(identity(
            &values,
            u8::try_from(level).unwrap_or(u8::MAX),
            deadline(headers),
        ))
    }

    fn is_ours(&self, base: &[u8], macs: &[[u8; 32]]) -> bool {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        // `hmac::verify` compares in constant time.
        secrets
            .iter()
            .any(|(_, key)| macs.iter().any(|mac| hmac::verify(key, base, mac).is_ok()))
    }
}

fn keyed(secret: Secret) -> (Secret, hmac::Key) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    (secret, key)
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refused> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Refused::Missing)?;
    if values.next().is_some() {
        return Err(Refused::Duplicate);
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Refused::Malformed)?;
    Ok(text.trim_matches([' ', '\t']))
}

/// A number of one to `most` digits and nothing else.
fn digits(text: &str, most: usize) -> Option<u64> {
    let plain = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// One signature, or two while the secret rotates.
fn macs(text: &str) -> Result<Vec<[u8; 32]>, Refused> {
    if text.len() > 2 * 67 + 1 {
        return Err(Refused::Malformed);
    }
    text.split(',')
        .map(|part| {
            let hexadecimal = part.strip_prefix("v1=").ok_or(Refused::Malformed)?;
            let mut mac = [0; 32];
            let lower = !hexadecimal.bytes().any(|b| b.is_ascii_uppercase());
            match hex::decode_to_slice(hexadecimal, &mut mac) {
                Ok(()) if lower => Ok(mac),
                _ => Err(Refused::Malformed),
            }
        })
        .collect()
}

fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let left = digits(headers.get(DEADLINE_HEADER)?.to_str().ok()?, 9)?;
    Instant::now().checked_add(Duration::from_millis(left))
}

fn identity(values: &Values<'_>, aal: u8, deadline: Option<Instant>) -> Identity {
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let list = |value: &str, joint: char| {
        value
            .split(joint)
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Identity {
        user: text(values.user),
        tenant: text(values.tenant),
        session: text(values.session),
        roles: list(values.roles, ','),
        scopes: list(values.scopes, ' '),
        aal,
        request_id: values.request_id.to_owned(),
        deadline,
    }
}
