//! Settings: business configuration, declared in code by the service that owns it, changeable at run time.
//!
//! A service declares its keys as constants and reads them through [`Settings`]. Until the control
//! services exist the values come from configuration; the callers will not change.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

/// Which type a setting has, with its bounds (CT-1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A number within bounds, both included.
    Decimal {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// Text of at most `max` bytes.
    Text {
        /// Longest, in bytes.
        max: usize,
    },
    /// One of the words.
    Enum(&'static [&'static str]),
    /// A list of texts, at most `max` of them.
    TextList {
        /// Most entries.
        max: usize,
    },
    /// Any JSON object or list; its reader checks it.
    Json,
}

/// For whom a setting can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Once for the installation.
    System,
    /// For each tenant.
    Tenant,
    /// Once, and differently for a tenant.
    Both,
}

/// Everything about a setting but its type in Rust.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    /// `service.group.key`.
    pub key: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Default as JSON text.
    pub default: &'static str,
    /// Unit for people (`ms`, `s`, `bytes`), or empty.
    pub unit: &'static str,
    /// For whom.
    pub scope: Scope,
    /// Never shown, stored encrypted.
    pub secret: bool,
    /// What it is, in English.
    pub title: &'static str,
    /// What it is, in Chinese.
    pub title_zh: &'static str,
}

impl Declaration {
    /// A system-wide, public setting without unit.
    #[must_use]
    pub const fn new(
        key: &'static str,
        kind: Kind,
        default: &'static str,
        title: &'static str,
        title_zh: &'static str,
    ) -> Self {
        Self {
            key,
            kind,
            default,
            unit: "",
            scope: Scope::System,
            secret: false,
            title,
            title_zh,
        }
    }

    /// The same with a unit.
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// The same for another scope.
    #[must_use]
    pub const fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Says what is wrong with a value.
    ///
    /// # Errors
    /// A sentence that names what is allowed.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let good = match self.kind {
            Kind::Bool => value.is_boolean(),
            Kind::Integer { min, max } => value.as_i64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Decimal { min, max } => value.as_f64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Text { max } => value.as_str().is_some_and(|s| s.len() <= max),
            Kind::Enum(words) => value.as_str().is_some_and(|s| words.contains(&s)),
            Kind::TextList { max } => value
                .as_array()
                .is_some_and(|list| list.len() <= max && list.iter().all(Value::is_string)),
            Kind::Json => value.is_object() || value.is_array(),
        };
        if good {
            Ok(())
        } else {
            Err(format!("must be {}", self.kind))
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Decimal { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Text { max } => write!(f, "text of at most {max} bytes"),
            Self::Enum(words) => write!(f, "one of {}", words.join(", ")),
            Self::TextList { max } => write!(f, "a list of at most {max} texts"),
            Self::Json => f.write_str("a JSON object or list"),
        }
    }
}

/// A declared setting with its type in Rust.
pub struct Key<T> {
    /// The declaration.
    pub declaration: Declaration,
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Binds a declaration to a type.
    #[must_use]
    pub const fn new(declaration: Declaration) -> Self {
        Self {
            declaration,
            value: PhantomData,
        }
    }
}

/// Called after settings changed, with the changed keys; must be quick.
pub type SettingsListener = Arc<dyn Fn(&[String]) + Send + Sync>;

/// Where values come from.
pub trait SettingsSource: Send + Sync {
    /// The value that holds for `tenant` (its own, else the system's), already checked against the
    /// declaration; nothing when only the default holds.
    fn value(&self, tenant: Uuid, key: &str) -> Option<Arc<Value>>;

    /// Adds a listener.
    fn subscribe(&self, listener: SettingsListener);
}

/// Typed access to settings. Cheap to clone.
#[derive(Clone)]
pub struct Settings(Arc<dyn SettingsSource>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

impl Settings {
    /// Settings from a source.
    #[must_use]
    pub fn new(source: Arc<dyn SettingsSource>) -> Self {
        Self(source)
    }

    /// Only defaults, for tests.
    #[must_use]
    pub fn defaults() -> Self {
        Self(Arc::new(NoValues))
    }

    /// The value for a tenant. A value that does not fit the Rust type falls back to the default:
    /// the declaration was checked when it was written, so that this is a defect of the declaration,
    /// which the test of [`Key`]s finds.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, tenant: Uuid, key: &Key<T>) -> T {
        self.0
            .value(tenant, key.declaration.key)
            .and_then(|value| T::deserialize(&*value).ok())
            .unwrap_or_else(|| {
                serde_json::from_str(key.declaration.default)
                    .expect("declared defaults fit their type, which each service's test checks")
            })
    }

    /// The value for the installation.
    #[must_use]
    pub fn system<T: DeserializeOwned>(&self, key: &Key<T>) -> T {
        self.get(portico_base::id::TENANT_SYSTEM, key)
    }

    /// Calls `listener` after changes.
    pub fn subscribe(&self, listener: SettingsListener) {
        self.0.subscribe(listener);
    }
}

struct NoValues;

impl SettingsSource for NoValues {
    fn value(&self, _tenant: Uuid, _key: &str) -> Option<Arc<Value>> {
        None
    }

    fn subscribe(&self, _listener: SettingsListener) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_S: Key<u32> = Key::new(Declaration::new(
        "gateway.breaker.open_s",
        Kind::Integer { min: 1, max: 300 },
        "30",
        "open time",
        "断开时间",
    ));

    #[test]
    fn defaults_and_checks() {
        assert_eq!(Settings::defaults().system(&OPEN_S), 30);
        assert!(OPEN_S.declaration.check(&serde_json::json!(300)).is_ok());
        let message = OPEN_S
            .declaration
            .check(&serde_json::json!(301))
            .unwrap_err();
        assert_eq!(message, "must be a whole number from 1 to 300");
        assert!(OPEN_S.declaration.check(&serde_json::json!("1")).is_err());
    }
}
