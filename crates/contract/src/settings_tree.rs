//! Settings as a tree of keys, for the Consul-compatible view (CT-14), and the settings of plug-ins (CT-15).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Context, FieldFault};
use serde_json::Value;
use uuid::Uuid;

/// A setting as a key of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// `identity/sms/chain`.
    pub key: String,
    /// The value in force as JSON; empty for a secret.
    pub value: Vec<u8>,
    /// It is a secret.
    pub secret: bool,
    /// Position of the first change in the caller's scope; 0 when there was none.
    pub created: u64,
    /// Position of the last change in the caller's scope; 0 while nothing is set there.
    pub modified: u64,
}

/// What a look at the tree found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    /// In the order of their keys.
    pub leaves: Vec<Leaf>,
    /// Position of the last change of any of them, removals and inherited values included.
    pub changed: u64,
}

/// Why a leaf is not written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The caller may not.
    #[error("the right to do this is missing")]
    Denied,
    /// There is no such setting.
    #[error("there is no such setting")]
    Unknown,
    /// The value does not fit; the sentence says why.
    #[error("{0}")]
    Invalid(String),
    /// It could not be written.
    #[error("settings cannot be written now")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Told of the keys that changed, as paths.
pub type TreeListener = Arc<dyn Fn(&[String]) + Send + Sync>;

/// Reads and writes settings as leaves. The scope is that of the caller's tenant.
pub trait SettingsTree: Send + Sync {
    /// The leaves whose keys begin with a prefix, or the one with exactly this key. From memory.
    ///
    /// # Errors
    /// When the caller may not read settings.
    fn look(&self, context: &Context, key: &str, exactly: bool) -> Result<Leaves, TreeError>;

    /// Sets a leaf (or resets it, without a value). With `cas` only while its `modified` is that; false
    /// when it is not.
    fn write<'a>(
        &'a self,
        context: &'a Context,
        key: &'a str,
        value: Option<&'a [u8]>,
        cas: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, TreeError>>;

    /// Adds a listener.
    fn subscribe(&self, listener: TreeListener);
}

/// What a plug-in says of its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSchema {
    /// The plug-in.
    pub service: Arc<str>,
    /// The tenant that it belongs to; nothing for a global one.
    pub tenant: Option<Uuid>,
    /// JSON Schema of an object with one property a setting.
    pub schema: Arc<Value>,
}

/// Takes the settings that plug-ins declare when they register.
pub trait PluginSettings: Send + Sync {
    /// What is wrong with a declaration; `field` is where it stands in the registration.
    fn check(&self, service: &str, schema: &Value, field: &str) -> Vec<FieldFault>;

    /// What all plug-ins declare now.
    fn declared(&self, all: Vec<PluginSchema>);
}
