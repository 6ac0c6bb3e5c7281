//! Values before they have a type: what a file, the environment or a flag said.

use serde_json::{Map, Number, Value as Json};

/// One value, not yet checked against its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// `null` of YAML and JSON; the same as an absent key.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text that the file wrote as text.
    String(String),
    /// Text whose type is still open: from the environment, a flag or an expanded `${VAR}`.
    Text(String),
    /// A list.
    List(Vec<Raw>),
    /// A table.
    Table(Vec<Entry>),
}

/// One key of a table with the line it stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Line, counted from 1.
    pub line: usize,
    /// The value.
    pub raw: Raw,
}

impl Raw {
    /// What kind of thing this is, for error texts: "a table", "text".
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::String(_) | Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// The text of a text value.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of a value, also of open text that reads as one.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "only compared with small bounds"
            )]
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The value as JSON. Open text becomes a boolean, number, list or object when it reads as one.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Integer(value) => Json::from(*value),
            Self::Float(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Self::String(text) => Json::String(text.clone()),
            Self::Text(text) => match serde_json::from_str::<Json>(text) {
                Ok(value) if !value.is_string() => value,
                _ => Json::String(text.clone()),
            },
            Self::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Self::Table(entries) => Json::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.raw.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The value on one line, as the TOML file would write it; open text is written as it came.
    #[must_use]
    pub fn to_line(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => format!("{value:?}"),
            Self::String(text) | Self::Text(text) => quoted(text),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::to_line).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        format!("{} = {}", bare_or_quoted(&entry.key), entry.raw.to_line())
                    })
                    .collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }

    /// Changes every text in place, lists and tables included.
    pub(crate) fn map_text(&mut self, change: &mut dyn FnMut(&mut Self)) {
        match self {
            Self::List(items) => items.iter_mut().for_each(|item| item.map_text(change)),
            Self::Table(entries) => {
                for entry in entries {
                    entry.raw.map_text(change);
                }
            }
            Self::String(_) | Self::Text(_) => change(self),
            _ => {}
        }
    }
}

impl From<&str> for Raw {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

macro_rules! raw_from {
    ($($ty:ty => $variant:ident),*) => {$(
        impl From<$ty> for Raw {
            fn from(value: $ty) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
raw_from!(bool => Bool, i32 => Integer, f64 => Float);

impl<const N: usize> From<[&str; N]> for Raw {
    fn from(items: [&str; N]) -> Self {
        Self::List(items.into_iter().map(Self::from).collect())
    }
}

/// Text in double quotes, with the escapes that TOML, YAML and JSON share.
pub(crate) fn quoted(text: &str) -> String {
    Json::String(text.to_owned()).to_string()
}

fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { quoted(key) }
}
