//! Tokens that a worker has seen: a signature is verified once, not per request.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest;
use foldhash::HashMap;
use portico_base::Principal;

use super::{BadCredential, Denied, Identity, TokenVerifier, Verified};

/// Tokens kept by one worker; an entry has about 1 KiB.
const MOST: usize = 4_096;

/// Known tokens by 16 bytes of their SHA-256, so that no token lies around in memory.
#[derive(Default)]
pub(super) struct Remembered {
    known: RefCell<HashMap<[u8; 16], Entry>>,
    epoch: Cell<u64>,
}

struct Entry {
    identity: Rc<Identity>,
    /// Unix seconds; never used at or after it.
    expires_s: i64,
}

impl Remembered {
    /// The identity behind an opaque token whose source has just answered.
    pub(super) fn opaque(
        &self,
        token: &str,
        principal: &Arc<Principal>,
        tenant: impl Fn() -> Option<Arc<str>>,
    ) -> Rc<Identity> {
        let key = key(token);
        if let Some(entry) = self.known.borrow().get(&key)
            && (Arc::ptr_eq(&entry.identity.principal, principal)
                || *entry.identity.principal == **principal)
        {
            return Rc::clone(&entry.identity);
        }
        let identity = Identity::new(Arc::clone(principal), None, tenant().as_deref());
        let identity = Rc::new(identity);
        self.put(key, &identity, i64::MAX, 0);
        identity
    }

    /// The identity behind a signed token that was verified before and still holds; nothing when it was not.
    pub(super) fn signed(
        &self,
        token: &str,
        verifier: &dyn TokenVerifier,
        address: Option<IpAddr>,
        now_s: i64,
    ) -> Result<Option<Rc<Identity>>, BadCredential> {
        let epoch = verifier.epoch();
        if self.epoch.replace(epoch) != epoch {
            self.known.borrow_mut().clear();
        }
        let known = self.known.borrow();
        let Some(entry) = known.get(&key(token)) else {
            return Ok(None);
        };
        let Some(verified) = &entry.identity.verified else {
            return Ok(None);
        };
        if now_s >= entry.expires_s {
            return Err(Denied::EXPIRED.into());
        }
        check(verifier, verified, address)?;
        Ok(Some(Rc::clone(&entry.identity)))
    }

    /// Keeps the identity behind a signed token that was just verified.
    pub(super) fn keep(
        &self,
        token: &str,
        identity: Identity,
        expires_s: i64,
        now_s: i64,
    ) -> Rc<Identity> {
        let identity = Rc::new(identity);
        self.put(key(token), &identity, expires_s, now_s);
        identity
    }

    fn put(&self, key: [u8; 16], identity: &Rc<Identity>, expires_s: i64, now_s: i64) {
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST {
            known.retain(|_, entry| entry.expires_s > now_s);
        }
        if known.len() >= MOST {
            // The hash orders them at random; half go, so that this happens once in thousands of requests.
            let mut keep = false;
            known.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        known.insert(
            key,
            Entry {
                identity: Rc::clone(identity),
                expires_s,
            },
        );
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.borrow().len()
    }
}

/// Whether a verified token still holds, and why not.
pub(super) fn check(
    verifier: &dyn TokenVerifier,
    verified: &Verified,
    address: Option<IpAddr>,
) -> Result<(), BadCredential> {
    verifier
        .check(verified, address)
        .map_err(|why| BadCredential {
            reason: (why == Denied::SESSION_REVOKED)
                .then(|| verifier.reason(verified))
                .flatten(),
            why,
        })
}

fn key(token: &str) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_ref()[..16]);
    key
}
