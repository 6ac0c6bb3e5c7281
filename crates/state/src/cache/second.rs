//! The second level in Redis. Keys of one service, kind and tenant share a hash tag:
//! `{prefix}c:{service:kind:tenant}:v{form}:{id}` holds a value, `…:g` two guards.
//!
//! Guard `w` counts removals: a value may be stored only if no removal came since the look-up that
//! missed. Guard `t` is a random word in front of every value: changing it removes all of a tenant's
//! values at once. When the guards are lost, so are the values: no old one can come back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::Random;
use redis::{Pipeline, Script};
use uuid::Uuid;

use super::CacheKind;
use crate::link::Link;
use crate::options::Deps;
use crate::store::millis;

/// Length of guard `t` in front of each value.
const TAG: usize = 16;
/// Removals that Redis has yet to be told of; beyond that whole tenants are removed.
const BEHIND: usize = 10_000;

/// KEYS: guards, value. ARGV: w, t, fresh t, value, ttl in ms, ttl of the guards in ms.
const STORE: &str = r"
local g = redis.call('HMGET', KEYS[1], 'w', 't')
if (g[1] or '') ~= ARGV[1] or (g[2] or '') ~= ARGV[2] then return 0 end
local t = g[2]
if not t then
  t = ARGV[3]
  redis.call('HSET', KEYS[1], 't', t)
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('SET', KEYS[2], t .. ARGV[4], 'PX', ARGV[5])
return 1
";

pub(super) struct Second {
    link: Arc<Link>,
    kind: &'static CacheKind,
    random: Arc<dyn Random>,
    store: Script,
    behind: Mutex<HashSet<Removal>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Removal {
    tenant: Uuid,
    /// `None` stands for all of the tenant.
    id: Option<String>,
}

/// The guards at the time of a miss.
pub(super) struct Token {
    w: String,
    t: String,
}

pub(super) enum Found {
    Value(Vec<u8>),
    /// It is known that there is no such thing.
    Nothing,
    Miss(Token),
    Away,
}

impl Second {
    pub(super) fn new(link: Arc<Link>, kind: &'static CacheKind, deps: &Deps) -> Self {
        Self {
            link,
            kind,
            random: Arc::clone(&deps.random),
            store: Script::new(STORE),
            behind: Mutex::default(),
        }
    }

    pub(super) async fn get(&self, tenant: Uuid, id: &str) -> Found {
        // A removal that Redis does not know of yet would be undone by reading from it.
        if !self.behind.lock().is_empty() {
            return Found::Away;
        }
        let (guards, value) = self.keys(tenant, id);
        let mut ask = redis::pipe();
        ask.cmd("HMGET").arg(guards).arg("w").arg("t");
        ask.cmd("GET").arg(value);
        type Answer = ((Option<String>, Option<String>), Option<Vec<u8>>);
        let answer: Result<Answer, _> = self.link.pipeline("cache_get", &ask).await;
        let Ok(((w, t), value)) = answer else {
            return Found::Away;
        };
        if let (Some(t), Some(mut value)) = (&t, value)
            && value.starts_with(t.as_bytes())
            && value.len() >= TAG
        {
            let value = value.split_off(TAG);
            return if value.is_empty() {
                Found::Nothing
            } else {
                Found::Value(value)
            };
        }
        Found::Miss(Token {
            w: w.unwrap_or_default(),
            t: t.unwrap_or_default(),
        })
    }

    /// Stores a loaded value, unless something was removed since the look-up. An empty one stands for
    /// "no such thing".
    pub(super) async fn put(
        &self,
        tenant: Uuid,
        id: &str,
        token: &Token,
        value: Option<Vec<u8>>,
        ttl: Duration,
    ) {
        let (guards, key) = self.keys(tenant, id);
        let mut call = self.store.prepare_invoke();
        call.key(guards)
            .key(key)
            .arg(&token.w)
            .arg(&token.t)
            .arg(self.fresh())
            .arg(value.unwrap_or_default())
            .arg(millis(ttl))
            .arg(self.guard_ttl());
        // A value that could not be stored is loaded again; nothing else depends on it.
        let _ = self.link.script::<i64>("cache_put", &call).await;
    }

    pub(super) async fn remove(&self, tenant: Uuid, id: Option<&str>) {
        let removal = Removal {
            tenant,
            id: id.map(str::to_owned),
        };
        // On the list before the attempt: while it is under way this process must not read either.
        self.fall_behind(removal.clone());
        if self.tell(&removal).await {
            self.behind.lock().remove(&removal);
        }
    }

    /// A removal that [`Second::catch_up`] carries to Redis. Until then this process does not read there.
    pub(super) fn remove_later(&self, tenant: Uuid, id: &str) {
        self.fall_behind(Removal {
            tenant,
            id: Some(id.to_owned()),
        });
    }

    /// Repeats the removals that Redis has not heard of, and gives those that it now has: tenant and id,
    /// which is empty for all of a tenant.
    pub(super) async fn catch_up(&self) -> Vec<(Uuid, String)> {
        let behind: Vec<Removal> = self.behind.lock().iter().cloned().collect();
        let mut told = Vec::new();
        for removal in behind {
            if !self.tell(&removal).await {
                break;
            }
            self.behind.lock().remove(&removal);
            told.push((removal.tenant, removal.id.unwrap_or_default()));
        }
        told
    }

    fn fall_behind(&self, removal: Removal) {
        let mut behind = self.behind.lock();
        behind.insert(removal);
        if behind.len() > BEHIND {
            let tenants: HashSet<Uuid> = behind.iter().map(|r| r.tenant).collect();
            *behind = tenants
                .into_iter()
                .map(|tenant| Removal { tenant, id: None })
                .collect();
        }
    }

    async fn tell(&self, removal: &Removal) -> bool {
        let (guards, key) = self.keys(removal.tenant, removal.id.as_deref().unwrap_or_default());
        let mut pipe: Pipeline = redis::pipe();
        pipe.cmd("HINCRBY").arg(&guards).arg("w").arg(1).ignore();
        if removal.id.is_some() {
            pipe.cmd("UNLINK").arg(key).ignore();
        } else {
            pipe.cmd("HSET")
                .arg(&guards)
                .arg("t")
                .arg(self.fresh())
                .ignore();
        }
        pipe.cmd("PEXPIRE")
            .arg(&guards)
            .arg(self.guard_ttl())
            .ignore();
        self.link
            .pipeline::<()>("cache_remove", &pipe)
            .await
            .is_ok()
    }

    fn keys(&self, tenant: Uuid, id: &str) -> (String, String) {
        let CacheKind {
            service,
            kind,
            form,
            ..
        } = self.kind;
        let stem = format!("{}c:{{{service}:{kind}:{tenant}}}", self.link.prefix);
        (format!("{stem}:g"), format!("{stem}:v{form}:{id}"))
    }

    fn fresh(&self) -> String {
        format!("{:016x}", self.random.u64())
    }

    /// The guards outlive every value and every load.
    fn guard_ttl(&self) -> u64 {
        millis(self.kind.ttl.max(self.kind.negative) * 2 + Duration::from_secs(24 * 3600))
    }
}
