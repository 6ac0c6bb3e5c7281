//! A declared setting, of one of our services or of a plug-in (CT-1, CT-15).

use std::sync::Arc;

use portico_contract::json_schema::Schema;
use portico_contract::settings::{Danger, Declaration, Kind, Scope};
use serde_json::Value;
use uuid::Uuid;

/// What values it takes.
#[derive(Debug, Clone)]
pub(crate) enum Takes {
    /// As one of our services declares.
    Builtin(Declaration),
    /// Whatever fits, with the schema as it was written.
    Schema(Arc<Schema>, Arc<Value>),
}

/// A declared setting.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub key: Arc<str>,
    pub service: Arc<str>,
    pub takes: Takes,
    /// Null when a plug-in names none.
    pub default: Arc<Value>,
    pub unit: Arc<str>,
    pub scope: Scope,
    pub secret: bool,
    pub danger: Danger,
    pub title: Arc<str>,
    pub title_zh: Arc<str>,
    pub help: Arc<str>,
    pub help_zh: Arc<str>,
    /// Plug-ins may read it.
    pub public: bool,
    /// The plug-in's tenant: nobody else sees it.
    pub tenant: Option<Uuid>,
}

impl Declared {
    /// A setting of one of our services.
    pub(crate) fn builtin(service: &str, d: &Declaration) -> Self {
        Self {
            key: Arc::from(d.key),
            service: Arc::from(service),
            takes: Takes::Builtin(*d),
            // Each service's test parses its defaults.
            default: Arc::new(serde_json::from_str(d.default).unwrap_or_default()),
            unit: Arc::from(d.unit),
            scope: d.scope,
            secret: d.secret,
            danger: d.danger,
            title: Arc::from(d.title),
            title_zh: Arc::from(d.title_zh),
            help: Arc::from(d.help.0),
            help_zh: Arc::from(d.help.1),
            public: d.public && !d.secret,
            tenant: None,
        }
    }

    /// What is wrong with a value, with the path inside of it.
    pub(crate) fn check(&self, value: &Value) -> Vec<String> {
        match &self.takes {
            Takes::Builtin(declaration) => declaration.check(value).err().into_iter().collect(),
            Takes::Schema(schema, _) => schema
                .check(value)
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// The name of its type for people and screens.
    pub(crate) fn type_name(&self) -> &'static str {
        let Takes::Builtin(declaration) = &self.takes else {
            return "object";
        };
        match declaration.kind {
            Kind::Bool => "bool",
            Kind::Integer { .. } => match &*self.unit {
                "ms" | "s" | "min" | "h" | "d" => "duration",
                "bytes" => "bytes",
                _ => "integer",
            },
            Kind::Decimal { .. } => "decimal",
            Kind::Text { .. } => "string",
            Kind::Enum(_) => "enum",
            Kind::TextList { .. } => "list",
            Kind::Json | Kind::Object { .. } => "object",
        }
    }

    /// The same as JSON Schema, for editors.
    pub(crate) fn schema(&self) -> Value {
        let kind = match &self.takes {
            Takes::Schema(_, written) => return (**written).clone(),
            Takes::Builtin(declaration) => declaration.kind,
        };
        match kind {
            Kind::Bool => serde_json::json!({ "type": "boolean" }),
            Kind::Integer { min, max } => {
                serde_json::json!({ "type": "integer", "minimum": min, "maximum": max })
            }
            Kind::Decimal { min, max } => {
                serde_json::json!({ "type": "number", "minimum": min, "maximum": max })
            }
            Kind::Text { max } => serde_json::json!({ "type": "string", "x-max-bytes": max }),
            Kind::Enum(words) => serde_json::json!({ "enum": words }),
            Kind::TextList { max } => {
                serde_json::json!({ "type": "array", "items": { "type": "string" }, "maxItems": max })
            }
            Kind::Json => serde_json::json!({ "type": ["object", "array"] }),
            Kind::Object { schema } => serde_json::from_str(schema).unwrap_or_default(),
        }
    }

    /// May it be set for this scope?
    pub(crate) const fn takes_scope(&self, system: bool) -> bool {
        matches!(
            (self.scope, system),
            (Scope::Both, _) | (Scope::System, true) | (Scope::Tenant, false)
        )
    }

    /// Can somebody who sees one tenant only see it?
    pub(crate) fn is_for_tenant(&self, tenant: Uuid) -> bool {
        self.scope != Scope::System && self.tenant.is_none_or(|own| own == tenant)
    }
}

/// The word of a scope.
pub(crate) const fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "system",
        Scope::Tenant => "tenant",
        Scope::Both => "both",
    }
}
