//! Settings: business configuration, declared in code by the service that owns it, changeable at run time.
//!
//! A service declares its keys as constants and reads them through [`Settings`]. Values come from the
//! settings service, from configuration below it, and from the declared defaults below that.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::json_schema::Schema;

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
    /// JSON that fits a schema (the subset of [`crate::json_schema`]), given as text.
    Object {
        /// The schema.
        schema: &'static str,
    },
}

/// What a change of a setting asks of whoever makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// Nothing more than the permission.
    None,
    /// To say that it is meant.
    Confirm,
    /// A second factor and a recent authentication.
    Aal2,
}

impl Danger {
    /// The word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Confirm => "confirm",
            Self::Aal2 => "aal2",
        }
    }
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
    /// What a change asks for.
    pub danger: Danger,
    /// More about it, in English and Chinese; empty when the title says it all.
    pub help: (&'static str, &'static str),
    /// Plug-ins may read it.
    pub public: bool,
    /// Whether the type in Rust reads a value; set by [`Key::new`].
    pub reads: Option<Reads>,
}

/// Says why a type in Rust does not read a value.
pub type Reads = fn(&Value) -> Result<(), String>;

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
            danger: Danger::None,
            help: ("", ""),
            public: false,
            reads: None,
        }
    }

    /// The same, never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The same, with what a change asks for.
    #[must_use]
    pub const fn danger(mut self, danger: Danger) -> Self {
        self.danger = danger;
        self
    }

    /// The same with help in both languages.
    #[must_use]
    pub const fn help(mut self, en: &'static str, zh: &'static str) -> Self {
        self.help = (en, zh);
        self
    }

    /// The same, open to plug-ins.
    #[must_use]
    pub const fn public(mut self) -> Self {
        self.public = true;
        self
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
        if let Kind::Object { schema } = self.kind {
            return by_schema(schema, value);
        }
        let good = match self.kind {
            Kind::Bool => value.is_boolean(),
            Kind::Integer { min, max } => value.as_i64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Decimal { min, max } => value.as_f64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Text { max } => value.as_str().is_some_and(|s| s.len() <= max),
            Kind::Enum(words) => value.as_str().is_some_and(|s| words.contains(&s)),
            Kind::TextList { max } => value
                .as_array()
                .is_some_and(|list| list.len() <= max && list.iter().all(Value::is_string)),
            Kind::Json | Kind::Object { .. } => value.is_object() || value.is_array(),
        };
        if !good {
            return Err(format!("must be {}", self.kind));
        }
        match self.reads.map_or(Ok(()), |reads| reads(value)) {
            // What serde says may hold the value.
            Err(_) if self.secret => Err("does not have the form that is read".to_owned()),
            other => other,
        }
    }
}

fn by_schema(schema: &str, value: &Value) -> Result<(), String> {
    let schema = serde_json::from_str(schema)
        .ok()
        .and_then(|schema| Schema::parse(&schema).ok())
        .ok_or("cannot be checked: its schema is broken")?;
    match schema.check(value).first() {
        None => Ok(()),
        Some(fault) => Err(fault.to_string()),
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
            Self::Object { .. } => f.write_str("JSON that fits the schema"),
        }
    }
}

/// A declared setting with its type in Rust.
pub struct Key<T> {
    /// The declaration.
    pub declaration: Declaration,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Key<T> {
    /// Binds a declaration to a type: from now on a value must be one that the type reads.
    #[must_use]
    pub const fn new(mut declaration: Declaration) -> Self {
        declaration.reads = Some(reads::<T>);
        Self {
            declaration,
            value: PhantomData,
        }
    }
}

fn reads<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    match T::deserialize(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot be read: {error}")),
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

/// Values of one layer by their scope, which is a tenant (the tenant `system` for the installation).
pub trait SettingsLayer: Send + Sync {
    /// The value that is set for exactly this scope, checked already; nothing when none is.
    fn own(&self, scope: Uuid, key: &str) -> Option<Arc<Value>>;

    /// Adds a listener.
    fn subscribe(&self, listener: SettingsListener);
}

/// Which layer and scope a value in force comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The settings service, for the tenant or the installation.
    Stored(Uuid),
    /// The configuration file, for the tenant or the installation.
    File(Uuid),
    /// The declaration.
    Default,
}

/// The value that holds for a tenant, of two layers: by scope first, then by layer. `nothing` stands for
/// the declared default.
#[must_use]
pub fn effective(
    stored: impl Fn(Uuid) -> Option<Arc<Value>>,
    file: impl Fn(Uuid) -> Option<Arc<Value>>,
    tenant: Uuid,
) -> Option<(Arc<Value>, Origin)> {
    let at = |scope: Uuid| {
        stored(scope)
            .map(|value| (value, Origin::Stored(scope)))
            .or_else(|| file(scope).map(|value| (value, Origin::File(scope))))
    };
    let system = portico_base::id::TENANT_SYSTEM;
    let own = if tenant == system { None } else { at(tenant) };
    own.or_else(|| at(system))
}

/// What a service finds wrong with settings that fit their declarations one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingFault {
    /// The setting at fault.
    pub key: &'static str,
    /// What is wrong, lowercase without full stop.
    pub message: String,
}

/// A service's own check of all settings as they would be for a tenant (the tenant `system` for the
/// installation). Pure and quick: it is asked before a change is written and when it is taken over.
pub type SettingsCheck = fn(&Settings, Uuid) -> Vec<SettingFault>;

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

    #[test]
    fn a_value_that_the_type_cannot_read_is_refused_without_being_told() {
        const SIZES: Declaration = Declaration::new("a.b", Kind::Json, "[]", "sizes", "大小");
        let key: Key<Vec<u8>> = Key::new(SIZES);
        assert_eq!(key.declaration.check(&serde_json::json!([1])), Ok(()));
        let told = key
            .declaration
            .check(&serde_json::json!(["hidden"]))
            .unwrap_err();
        assert!(told.contains("hidden"), "{told}");
        let key: Key<Vec<u8>> = Key::new(SIZES.secret());
        let told = key
            .declaration
            .check(&serde_json::json!(["hidden"]))
            .unwrap_err();
        assert!(!told.contains("hidden"), "{told}");
    }
}
