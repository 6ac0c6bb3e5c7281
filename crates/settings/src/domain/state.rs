//! All values of an installation at one position, in memory; immutable, so that readers take no lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portico_base::{Context, Timestamp};
use portico_contract::settings::{
    Origin, Settings, SettingsLayer, SettingsListener, SettingsSource, effective,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Who changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = SettingAuthor)]
pub(crate) struct Author {
    /// `user`, `api-key`, `operator`, `system` …
    pub kind: String,
    /// Id of the user, key …
    pub id: String,
}

impl Author {
    /// Whoever calls.
    pub(crate) fn of(cx: &Context) -> Self {
        let principal = cx.principal();
        Self {
            kind: principal.kind.as_str().to_owned(),
            id: principal.subject.to_string(),
        }
    }
}

/// A value as its row holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub scope: Uuid,
    pub key: Arc<str>,
    /// Nothing when it was reset, or is a secret that cannot be opened here.
    pub value: Option<Arc<Value>>,
    /// Its row holds an envelope.
    pub sealed: bool,
    pub fingerprint: Option<String>,
    pub version: u64,
    pub seq: u64,
    pub created_seq: u64,
    pub by: Author,
    pub at: Timestamp,
}

impl Stored {
    /// True when a value is set; one that was reset is not.
    pub(crate) fn is_set(&self) -> bool {
        self.value.is_some() || self.sealed
    }
}

/// A value as this process takes it.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// As stored.
    pub stored: Arc<Stored>,
    /// What is in force, where that is something else: this process refused the stored one.
    pub refused: Option<Refused>,
}

/// A value that this process does not take over.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub reason: String,
    /// The value before, which stays in force.
    pub kept: Option<Arc<Value>>,
}

impl Taken {
    /// The value in force.
    pub(crate) fn value(&self) -> Option<&Arc<Value>> {
        match &self.refused {
            None => self.stored.value.as_ref(),
            Some(refused) => refused.kept.as_ref(),
        }
    }
}

type Scopes = HashMap<Uuid, Taken>;

/// All values at one position.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Position of the last change in it.
    pub seq: u64,
    values: HashMap<Arc<str>, Arc<Scopes>>,
}

impl State {
    /// The row of exactly this scope.
    pub(crate) fn get(&self, scope: Uuid, key: &str) -> Option<&Taken> {
        self.values.get(key)?.get(&scope)
    }

    /// The value in force of exactly this scope.
    pub(crate) fn own(&self, scope: Uuid, key: &str) -> Option<Arc<Value>> {
        self.get(scope, key)?.value().cloned()
    }

    /// The value that is stored for exactly this scope, taken over or not.
    pub(crate) fn stored(&self, scope: Uuid, key: &str) -> Option<Arc<Value>> {
        self.get(scope, key)?.stored.value.clone()
    }

    /// Version of exactly this scope, 0 when it was never set.
    pub(crate) fn version(&self, scope: Uuid, key: &str) -> u64 {
        self.get(scope, key).map_or(0, |taken| taken.stored.version)
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Taken> {
        self.values.values().flat_map(|scopes| scopes.values())
    }

    /// All scopes that hold a value of their own.
    pub(crate) fn scopes(&self) -> BTreeSet<Uuid> {
        let set = self.rows().filter(|taken| taken.stored.is_set());
        set.map(|taken| taken.stored.scope).collect()
    }

    /// Puts a row in.
    pub(crate) fn put(&mut self, taken: Taken) {
        self.seq = self.seq.max(taken.stored.seq);
        let key = Arc::clone(&taken.stored.key);
        let scopes = self.values.entry(key).or_default();
        Arc::make_mut(scopes).insert(taken.stored.scope, taken);
    }

    /// The same state with another value, which nobody stored.
    pub(crate) fn suppose(&mut self, scope: Uuid, key: &Arc<str>, value: Option<Arc<Value>>) {
        let stored = Stored {
            scope,
            key: Arc::clone(key),
            value,
            sealed: false,
            fingerprint: None,
            version: 0,
            seq: self.seq,
            created_seq: self.seq,
            by: Author {
                kind: String::new(),
                id: String::new(),
            },
            at: Timestamp::default(),
        };
        self.put(Taken {
            stored: Arc::new(stored),
            refused: None,
        });
    }

    /// The value that holds for a tenant, and where it comes from.
    pub(crate) fn effective(
        &self,
        file: &dyn SettingsLayer,
        tenant: Uuid,
        key: &str,
    ) -> Option<(Arc<Value>, Origin)> {
        effective(
            |scope| self.own(scope, key),
            |scope| file.own(scope, key),
            tenant,
        )
    }
}

/// Settings as they would be: what services' checks look at.
pub(crate) struct Supposed {
    pub state: State,
    pub file: Arc<dyn SettingsLayer>,
}

impl Supposed {
    /// As typed settings.
    pub(crate) fn settings(self) -> Settings {
        Settings::new(Arc::new(self))
    }
}

impl SettingsSource for Supposed {
    fn value(&self, tenant: Uuid, key: &str) -> Option<Arc<Value>> {
        let stored = |scope| self.state.stored(scope, key);
        effective(stored, |scope| self.file.own(scope, key), tenant).map(|(value, _)| value)
    }

    fn subscribe(&self, _listener: SettingsListener) {}
}
