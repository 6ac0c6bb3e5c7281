//! Statements about callers for services, signed once per token and service and reused for half a minute (ID-170).

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use portico_base::Principal;

/// How long a statement is reused; it lives for twice that.
const REUSED_S: i64 = 30;
const SHARDS: usize = 16;
/// Statements kept by one shard, about 1 KiB each.
const MOST: usize = 1_024;

/// Statements of the last half minute.
#[derive(Debug)]
pub(super) struct Statements {
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, Entry>>; SHARDS],
}

#[derive(Debug)]
struct Entry {
    principal: Principal,
    service: Box<str>,
    text: Arc<str>,
    until_s: i64,
}

impl Default for Statements {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Statements {
    /// The statement of a principal for a service, made by `sign` where there is none that is young enough.
    pub(super) fn get(
        &self,
        principal: &Principal,
        service: &str,
        now_s: i64,
        sign: impl FnOnce() -> Option<Arc<str>>,
    ) -> Option<Arc<str>> {
        let hash = self.hasher.hash_one((
            &principal.subject,
            &principal.session,
            principal.tenant,
            service,
        ));
        let shard = &self.shards[usize::try_from(hash).unwrap_or(0) % SHARDS];
        if let Some(entry) = shard.lock().get(&hash)
            && entry.until_s > now_s
            && *entry.service == *service
            && entry.principal == *principal
        {
            return Some(Arc::clone(&entry.text));
        }
        // Signed without the lock: two at once sign twice, which costs less than waiting.
        let text = sign()?;
        let entry = Entry {
            principal: principal.clone(),
            service: service.into(),
            text: Arc::clone(&text),
            until_s: now_s + REUSED_S,
        };
        let mut kept = shard.lock();
        if kept.len() >= MOST {
            kept.retain(|_, entry| entry.until_s > now_s);
        }
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(hash, entry);
        Some(text)
    }

    /// Forgets all: another key signs now.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use portico_base::{PrincipalKind, id};

    use super::*;

    #[test]
    fn one_signature_a_caller_service_and_half_a_minute() {
        let statements = Statements::default();
        let caller = |subject: &str, aal| Principal {
            aal,
            ..Principal::new(PrincipalKind::User, subject, id::TENANT_DEFAULT)
        };
        let signed = std::cell::Cell::new(0);
        let get = |who: &Principal, service: &str, now_s| {
            let text = statements.get(who, service, now_s, || {
                signed.set(signed.get() + 1);
                Some(Arc::from(format!("{}", signed.get())))
            });
            (text.unwrap().to_string(), signed.get())
        };
        assert_eq!(get(&caller("a", 1), "notes", 0), ("1".to_owned(), 1));
        assert_eq!(get(&caller("a", 1), "notes", 29), ("1".to_owned(), 1));
        assert_eq!(get(&caller("a", 1), "notes", 30), ("2".to_owned(), 2));
        assert_eq!(get(&caller("a", 1), "music", 30), ("3".to_owned(), 3));
        // The same caller after a step-up is another statement.
        assert_eq!(get(&caller("a", 2), "notes", 30), ("4".to_owned(), 4));
        assert_eq!(get(&caller("b", 1), "notes", 30), ("5".to_owned(), 5));
        for number in 0..40_000 {
            get(&caller(&format!("u{number}"), 1), "notes", 31);
        }
        let kept: usize = statements.shards.iter().map(|s| s.lock().len()).sum();
        assert!(kept <= SHARDS * MOST, "{kept}");
        statements.clear();
        assert_eq!(get(&caller("b", 1), "notes", 31).1, 40_006);
    }
}
