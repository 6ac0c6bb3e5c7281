//! The plain types of keys: booleans, numbers, texts, paths, choices, lists, durations, secrets.

use std::path::PathBuf;
use std::time::Duration;

use portico_base::Secret;
use serde_json::json;

use crate::fault::nearest;
use crate::key::{Class, Kind, Value};
use crate::raw::{Raw, quoted};

/// `auto`, or a value that somebody chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auto<T> {
    /// The program decides; the key's text says how.
    Auto,
    /// Chosen.
    Is(T),
}

impl<T: Copy> Auto<T> {
    /// The chosen value, else `auto`.
    pub fn unwrap_or(self, auto: T) -> T {
        match self {
            Self::Auto => auto,
            Self::Is(value) => value,
        }
    }
}

macro_rules! durations {
    ($($(#[doc = $doc:literal])* $name:ident = $from:ident;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl $name {
            /// As a duration.
            #[must_use]
            pub const fn get(self) -> Duration {
                Duration::$from(self.0)
            }
        }

        impl Value for $name {
            fn kind() -> Kind {
                u64::kind()
            }
            fn parse(raw: &Raw) -> Result<Self, String> {
                u64::parse(raw).map(Self)
            }
        }
    )*};
}
durations! {
    /// A time in milliseconds (keys that end in `_ms`).
    Millis = from_millis;
    /// A time in seconds (keys that end in `_s`).
    Seconds = from_secs;
}

impl Kind {
    pub(crate) fn plain(name: &str, allowed: &str, schema: serde_json::Value) -> Self {
        Self {
            name: name.to_owned(),
            allowed: allowed.to_owned(),
            schema,
            class: Class::Plain,
        }
    }

    pub(crate) fn class(self, class: Class) -> Self {
        Self { class, ..self }
    }
}

/// Declares a type of text with a rule, which gives the text in its normal form or says what it is not.
macro_rules! checked_text {
    ($(#[doc = $doc:literal])* pub struct $name:ident { $kind:literal, $allowed:literal, $schema:tt, $rule:expr }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::key::Value for $name {
            fn kind() -> $crate::key::Kind {
                $crate::key::Kind::plain($kind, $allowed, serde_json::json!($schema))
            }
            fn parse(raw: &$crate::raw::Raw) -> Result<Self, String> {
                let written = $crate::types::text(raw)?;
                let rule: fn(&str) -> Result<String, &'static str> = $rule;
                rule(written)
                    .map(Self)
                    .map_err(|what| format!("{} {what}", $crate::types::shown(written)))
            }
        }
    };
}
pub(crate) use checked_text;

/// The kind of a choice between words.
pub(crate) fn choice(words: &[&str]) -> Kind {
    let allowed = format!("one of {}", words.join(", "));
    Kind::plain(&words.join(" / "), &allowed, json!({ "enum": words }))
}

pub(crate) fn no_such_word(written: &str, words: &[&str]) -> String {
    let problem = format!("{} is not one of the words", shown(written));
    match nearest(written, words.iter().copied()) {
        Some(word) => format!("{problem}, did you mean {}?", quoted(&word)),
        None => problem,
    }
}

/// The text of a value that must be text; a number counts as its own text (`min_version = 1.2`).
pub(crate) fn word(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Integer(_) | Raw::Float(_) => Ok(raw.to_line()),
        _ => text(raw).map(str::to_owned),
    }
}

pub(crate) fn text(raw: &Raw) -> Result<&str, String> {
    let text = raw
        .as_text()
        .ok_or_else(|| format!("expected text, found {}", raw.what()))?;
    if text.len() > 4096 {
        return Err("longer than 4096 bytes".to_owned());
    }
    if text.contains('\0') {
        return Err("contains a NUL character".to_owned());
    }
    Ok(text)
}

/// A value in an error text: one line, not longer than needed to recognise it.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().count() <= 60 {
        return quoted(text);
    }
    let start: String = text.chars().take(57).collect();
    quoted(&format!("{start}..."))
}

impl Value for bool {
    fn kind() -> Kind {
        Kind::plain("boolean", "true or false", json!({ "type": "boolean" }))
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Text(text) => match text.trim() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                other => Err(format!("{} is neither true nor false", shown(other))),
            },
            other => Err(format!("expected true or false, found {}", other.what())),
        }
    }
}

fn whole(raw: &Raw) -> Result<i64, String> {
    match raw {
        Raw::Integer(value) => Ok(*value),
        Raw::Text(text) => text
            .trim()
            .parse()
            .map_err(|_| format!("{} is not a whole number", shown(text))),
        Raw::Float(value) => Err(format!("{value} is not a whole number")),
        Raw::String(text) => Err(format!("{} is text, not a whole number", shown(text))),
        other => Err(format!("expected a whole number, found {}", other.what())),
    }
}

macro_rules! whole_numbers {
    ($($ty:ty),*) => {$(
        impl Value for $ty {
            fn kind() -> Kind {
                Kind::plain("integer", "a whole number", json!({ "type": "integer" }))
            }
            fn parse(raw: &Raw) -> Result<Self, String> {
                let value = whole(raw)?;
                value.try_into().map_err(|_| format!("{value} is out of bounds"))
            }
        }
    )*};
}
whole_numbers!(u32, u64, usize);

impl Value for f64 {
    fn kind() -> Kind {
        Kind::plain("number", "a number", json!({ "type": "number" }))
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        match (raw, raw.as_number()) {
            (_, Some(number)) if number.is_finite() => Ok(number),
            (Raw::Text(text) | Raw::String(text), _) => {
                Err(format!("{} is not a number", shown(text)))
            }
            (other, _) => Err(format!("expected a number, found {}", other.what())),
        }
    }
}

impl Value for String {
    fn kind() -> Kind {
        Kind::plain("text", "text", json!({ "type": "string" }))
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        text(raw).map(str::to_owned)
    }
}

impl Value for PathBuf {
    fn kind() -> Kind {
        let schema = json!({ "type": "string", "minLength": 1 });
        Kind::plain("path", "a path", schema)
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        match text(raw)? {
            "" => Err("a path is not empty".to_owned()),
            path => Ok(Self::from(path)),
        }
    }
}

impl Value for Secret<String> {
    fn kind() -> Kind {
        let schema = json!({ "type": "string" });
        Kind::plain("secret", "text that is not empty", schema).class(Class::Secret)
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        match text(raw)? {
            "" => Err("a secret is not empty".to_owned()),
            secret if secret.trim() != secret => {
                Err("the secret begins or ends with white space".to_owned())
            }
            secret => Ok(Self::from(secret)),
        }
    }
}

checked_text! {
    /// An e-mail address, checked for its form only.
    pub struct Email {
        "e-mail address",
        "an e-mail address",
        { "type": "string", "pattern": "@" },
        |written| {
            let (local, domain) = written.split_once('@').unwrap_or_default();
            let good = !local.is_empty() && domain.contains('.') && !domain.contains('@');
            let bounded = written.len() <= 254 && !written.contains(char::is_whitespace);
            if good && bounded { Ok(written.to_owned()) } else { Err("is not an address") }
        }
    }
}

checked_text! {
    /// What keys of a shared store begin with; Redis reads some characters as hash tags and patterns.
    pub struct Prefix {
        "prefix",
        "at most 64 visible characters without { } * ? [ ]",
        { "type": "string", "maxLength": 64 },
        |written| {
            let mut bytes = written.bytes();
            let good = bytes.all(|b| b.is_ascii_graphic() && !b"{}*?[]".contains(&b));
            if good && written.len() <= 64 { Ok(written.to_owned()) } else { Err("is not a prefix") }
        }
    }
}

/// The 32 bytes of a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKey(pub Secret<[u8; 32]>);

impl Value for MasterKey {
    fn kind() -> Kind {
        let allowed = "32 bytes as 64 hexadecimal digits or as base64";
        Kind::plain("master key", allowed, json!({ "type": "string" })).class(Class::Secret)
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let written = text(raw)?.trim();
        let bytes = hex::decode(written)
            .ok()
            .or_else(|| STANDARD.decode(written).ok())
            .or_else(|| URL_SAFE_NO_PAD.decode(written).ok())
            .ok_or("the key is neither hexadecimal nor base64")?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|bytes: Vec<u8>| {
            format!("the key has {} bytes, 32 are needed", bytes.len())
        })?;
        Ok(Self(Secret::new(bytes)))
    }
}

/// Empty text stands for "not set", so that every layer can take a value back.
impl<T: Value> Value for Option<T> {
    fn kind() -> Kind {
        let mut kind = T::kind();
        kind.allowed = format!("{}, or \"\" for none", kind.allowed);
        kind.schema = json!({ "anyOf": [{ "const": "" }, kind.schema] });
        kind
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        match raw.as_text() {
            Some("") => Ok(None),
            _ => T::parse(raw).map(Some),
        }
    }
}

impl<T: Value> Value for Auto<T> {
    fn kind() -> Kind {
        let mut kind = T::kind();
        kind.name = format!("{} or auto", kind.name);
        kind.allowed = format!("auto, or {}", kind.allowed);
        kind.schema = json!({ "anyOf": [{ "const": "auto" }, kind.schema] });
        kind
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        match raw.as_text() {
            Some("auto") => Ok(Self::Auto),
            _ => T::parse(raw).map(Self::Is),
        }
    }
}

/// The items of a list; open text is split at commas.
pub(crate) fn items(raw: &Raw) -> Result<Vec<Raw>, String> {
    match raw {
        Raw::List(items) if items.len() <= 1000 => Ok(items.clone()),
        Raw::List(items) => Err(format!("{} items, at most 1000 are read", items.len())),
        Raw::Text(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Raw::Text(item.to_owned()))
            .collect()),
        Raw::String(_) => Err("expected a list, found text".to_owned()),
        other => Err(format!("expected a list, found {}", other.what())),
    }
}

impl<T: Value> Value for Vec<T> {
    fn kind() -> Kind {
        let item = T::kind();
        Kind {
            name: format!("list of {}", item.name),
            allowed: format!("a list, each item {}", item.allowed),
            schema: json!({ "type": "array", "items": item.schema }),
            class: item.class,
        }
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        let mut values = Self::new();
        let mut problems = Vec::new();
        for (at, item) in items(raw)?.iter().enumerate() {
            match T::parse(item) {
                Ok(value) => values.push(value),
                Err(problem) => problems.push(format!("item {}: {problem}", at + 1)),
            }
        }
        if problems.is_empty() {
            Ok(values)
        } else {
            Err(problems.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn open_text_is_read_by_the_wanted_type() {
        assert_eq!(bool::parse(&open("1")), Ok(true));
        assert_eq!(u32::parse(&open(" 20 ")), Ok(20));
        assert_eq!(f64::parse(&open("0.5")), Ok(0.5));
        assert_eq!(String::parse(&open("20")), Ok("20".to_owned()));
        assert_eq!(
            Vec::<String>::parse(&open("a, b ,,c")).unwrap(),
            ["a", "b", "c"]
        );
        assert_eq!(Option::<PathBuf>::parse(&open("")), Ok(None));
        assert_eq!(Auto::<usize>::parse(&open("auto")), Ok(Auto::Auto));
        assert_eq!(Auto::<usize>::parse(&Raw::Integer(3)), Ok(Auto::Is(3)));
    }

    #[test]
    fn written_text_is_not_guessed() {
        assert!(u32::parse(&Raw::from("20")).is_err());
        assert!(bool::parse(&Raw::from("true")).is_err());
        assert!(Vec::<String>::parse(&Raw::from("a,b")).is_err());
    }

    proptest! {
        #[test]
        fn numbers_of_the_environment_round_trip(number: u32, flag: bool, list in "[a-z]{1,5}(,[a-z]{1,5}){0,4}") {
            prop_assert_eq!(u32::parse(&open(&number.to_string())).unwrap(), number);
            prop_assert_eq!(bool::parse(&open(&flag.to_string())).unwrap(), flag);
            prop_assert_eq!(Vec::<String>::parse(&open(&list)).unwrap().join(","), list);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,50}") {
            let _ = (u64::parse(&open(&text)), f64::parse(&open(&text)), bool::parse(&open(&text)));
            let _ = (Vec::<u32>::parse(&open(&text)), Option::<PathBuf>::parse(&open(&text)));
        }

        #[test]
        fn a_wrong_secret_is_not_repeated(secret in "[a-z]{8} ") {
            let problem = Secret::<String>::parse(&open(&secret)).unwrap_err();
            prop_assert!(!problem.contains(secret.trim()));
        }
    }
}
