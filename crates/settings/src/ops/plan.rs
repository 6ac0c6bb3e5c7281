//! What a change set would do, or everything that is wrong with it; nothing is written here (CT-3, CT-5).

use std::collections::BTreeSet;
use std::sync::Arc;

use portico_base::id::TENANT_SYSTEM;
use portico_base::{Access, Context, FieldFault, PrincipalKind};
use portico_contract::settings::Danger;
use serde_json::Value;
use uuid::Uuid;

use super::scope::need;
use crate::domain::conflict::{Conflict, ThreeWay};
use crate::domain::declared::Declared;
use crate::domain::secret::fingerprint;
use crate::domain::state::{State, Supposed, Taken};
use crate::error::{Error, Result, configuration, unknown};
use crate::hub::Core;
use crate::permissions::{SECRET_WRITE, VALUE_WRITE};

/// Keys of one change set.
pub(crate) const MOST_KEYS: usize = 100;
/// Bytes of a value as JSON.
const MOST_BYTES: usize = 64 * 1024;
/// Characters of a comment.
const MOST_COMMENT: usize = 1_000;
/// Tenants with values of their own that a change of the installation is checked for.
const MOST_TENANTS: usize = 1_000;

/// One key of a change set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wished {
    pub key: String,
    /// Nothing: back to what holds without a value here.
    pub to: Option<Value>,
    /// The version that it is based on; 0 for a key that was never set.
    pub base: Option<u64>,
    /// The version whose value comes back.
    pub rolled_back_from: Option<u64>,
}

/// A change set as wished for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub scope: Uuid,
    pub changes: Vec<Wished>,
    pub comment: Option<String>,
    /// The position that all keys without a version of their own are based on.
    pub base_seq: Option<u64>,
    /// Whoever wishes knows that settings are changed that ask for it.
    pub confirm: bool,
    pub dry_run: bool,
    /// The set that this one takes back.
    pub reverts: Option<Uuid>,
}

/// One key of a change set as it will be written.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub declared: Arc<Declared>,
    pub before: Option<Arc<Value>>,
    pub after: Option<Arc<Value>>,
    /// The new version.
    pub version: u64,
    pub created_seq: Option<u64>,
    pub rolled_back_from: Option<u64>,
}

/// Checks the rights that a change set needs.
pub(crate) fn authorise(core: &Core, cx: &Context, wish: &Wish) -> Result<()> {
    need(cx, &VALUE_WRITE)?;
    let declared = |w: &Wished| core.catalogue.get(&w.key, wish.scope);
    let all: Vec<Arc<Declared>> = wish.changes.iter().filter_map(declared).collect();
    let secret = all.iter().any(|d| d.secret);
    if secret {
        need(cx, &SECRET_WRITE)?;
    }
    // A program cannot show a second factor: its permission is what it has. A person always can.
    let person = cx.principal().kind == PrincipalKind::User;
    if all.iter().any(|d| d.danger == Danger::Aal2) || (secret && person) {
        cx.authorise(&Access::Permission(VALUE_WRITE).aal2_fresh())?;
    }
    Ok(())
}

/// What a change set would do to a state.
pub(crate) fn plan(core: &Core, state: &State, wish: &Wish) -> Result<Vec<Planned>> {
    let mut faults = Faults::default();
    check_form(wish, &mut faults);
    let mut planned = Vec::new();
    let mut conflicts = Vec::new();
    let mut seen = BTreeSet::new();
    for wished in &wish.changes {
        if !seen.insert(&wished.key) {
            faults.add(&wished.key, "twice", "is named twice");
            continue;
        }
        let Some(declared) = core.catalogue.get(&wished.key, wish.scope) else {
            faults.missing(core, &wished.key);
            continue;
        };
        check_one(&declared, wish, wished, &mut faults);
        let known = state.get(wish.scope, &wished.key);
        conflicts.extend(conflict(&declared, wish, wished, known));
        let before = known.and_then(|taken| taken.stored.value.clone());
        let after = wished.to.clone().map(Arc::new);
        // A secret that cannot be opened may be what is wished, but nobody can tell: it is written.
        let unreadable = known.is_some_and(|t| t.stored.sealed && t.stored.value.is_none());
        if before != after || unreadable {
            planned.push(Planned {
                version: known.map_or(0, |taken| taken.stored.version) + 1,
                created_seq: known.map(|taken| taken.stored.created_seq),
                rolled_back_from: wished.rolled_back_from,
                declared,
                before,
                after,
            });
        }
    }
    faults.answer()?;
    if !conflicts.is_empty() {
        return Err(Error::Conflict(conflicts));
    }
    check_together(core, state, wish, &planned)?;
    Ok(planned)
}

/// Faults of the input, by how they are answered.
#[derive(Default)]
struct Faults {
    all: Vec<FieldFault>,
    unknown: bool,
    configuration: bool,
}

impl Faults {
    fn add(&mut self, key: &str, code: &str, message: impl Into<String>) {
        self.all.push(FieldFault::new(key, code, message));
    }

    fn missing(&mut self, core: &Core, key: &str) {
        if core.catalogue.is_configuration(key) {
            self.configuration = true;
            self.all.push(configuration(key));
        } else {
            self.unknown = true;
            self.all.push(unknown(key));
        }
    }

    fn answer(self) -> Result<()> {
        if self.all.is_empty() {
            Ok(())
        } else if self.configuration {
            Err(Error::Configuration(self.all))
        } else if self.unknown {
            Err(Error::UnknownKey(self.all))
        } else {
            Err(Error::Invalid(self.all))
        }
    }
}

fn check_form(wish: &Wish, faults: &mut Faults) {
    if wish.changes.is_empty() || wish.changes.len() > MOST_KEYS {
        let message = format!("must be 1 to {MOST_KEYS} keys");
        faults.add("changes", "range", message);
    }
    let comment = wish.comment.as_deref().unwrap_or_default();
    if comment.chars().count() > MOST_COMMENT || comment.contains('\0') {
        let message = format!("must be text of at most {MOST_COMMENT} characters");
        faults.add("comment", "invalid", message);
    }
}

fn check_one(declared: &Declared, wish: &Wish, wished: &Wished, faults: &mut Faults) {
    let key = &wished.key;
    let system = wish.scope == TENANT_SYSTEM;
    if !declared.takes_scope(system) {
        let only = if system {
            "a tenant"
        } else {
            "the installation"
        };
        faults.add(key, "scope", format!("can only be set for {only}"));
    }
    if wished.base.is_none() && wish.base_seq.is_none() {
        let message = "the version that the change is based on is missing (or `base_seq` for all)";
        faults.add(key, "version_missing", message);
    }
    if declared.danger == Danger::Confirm && !wish.confirm {
        let message = "this needs `confirm`: true";
        faults.add(key, "confirm", message);
    }
    let Some(value) = &wished.to else { return };
    if value.to_string().len() > MOST_BYTES {
        let message = format!("must be at most {MOST_BYTES} bytes of JSON");
        faults.add(key, "too_large", message);
        return;
    }
    if has_nul(value) {
        faults.add(key, "control", "must not contain the character U+0000");
        return;
    }
    for fault in declared.check(value) {
        faults.add(key, "invalid", fault);
    }
}

/// PostgreSQL keeps no U+0000.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(object) => object.iter().any(|(k, v)| k.contains('\0') || has_nul(v)),
        _ => false,
    }
}

/// A value as it may be told.
pub(crate) fn shown(declared: &Declared, value: Option<&Value>) -> Option<Value> {
    match value {
        Some(value) if declared.secret => Some(Value::String(fingerprint(value))),
        other => other.cloned(),
    }
}

fn conflict(
    declared: &Declared,
    wish: &Wish,
    wished: &Wished,
    known: Option<&Taken>,
) -> Option<Conflict> {
    let stored = known.map(|taken| &taken.stored);
    let version = stored.map_or(0, |s| s.version);
    let moved = match (wished.base, wish.base_seq) {
        (Some(base), _) => base != version,
        (None, Some(seq)) => stored.is_some_and(|s| s.seq > seq),
        (None, None) => false,
    };
    if !moved {
        return None;
    }
    let current = stored.and_then(|s| shown(declared, s.value.as_deref()));
    let yours = shown(declared, wished.to.as_ref());
    Some(Conflict {
        key: wished.key.clone(),
        base_version: wished.base,
        version,
        // The base is filled in from the history by whoever can read it.
        diff: ThreeWay::of(None, current.as_ref(), yours.as_ref()),
        current: current.unwrap_or_default(),
        changed_by: stored.map(|s| s.by.clone()),
        changed_at: stored.map(|s| s.at),
    })
}

/// The services' own checks, over everything as it would be.
fn check_together(core: &Core, state: &State, wish: &Wish, planned: &[Planned]) -> Result<()> {
    let mut next = state.clone();
    let mut scopes = BTreeSet::from([wish.scope]);
    if wish.scope == TENANT_SYSTEM {
        scopes.extend(state.scopes().into_iter().take(MOST_TENANTS));
    }
    for one in planned {
        next.suppose(wish.scope, &one.declared.key, one.after.clone());
    }
    let supposed = Supposed {
        state: next,
        file: Arc::clone(&core.file),
    };
    let settings = supposed.settings();
    let mut faults: Vec<FieldFault> = Vec::new();
    for scope in scopes {
        for fault in core.checks.iter().flat_map(|c| c(&settings, scope)) {
            // What was wrong before is not this change's fault, unless it is about the same key.
            let fault = FieldFault::new(fault.key, "together", fault.message);
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let before = Supposed {
        state: state.clone(),
        file: Arc::clone(&core.file),
    };
    let settings = before.settings();
    let old: Vec<_> = core
        .checks
        .iter()
        .flat_map(|c| c(&settings, wish.scope))
        .collect();
    faults.retain(|new| {
        let was = |o: &&portico_contract::settings::SettingFault| {
            o.key == new.field && o.message == new.message
        };
        !old.iter().any(|o| was(&o))
    });
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(faults))
    }
}
