//! One declaration per key: its type, default, bounds and text make the struct, the reader, the
//! default file, the schema and the documentation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::fault::Fault;
use crate::load::Found;
use crate::origin::Origin;
use crate::raw::Raw;

/// How a value is printed and whether `<key>_file` may name a file that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Printed as it is.
    Plain,
    /// Never printed.
    Secret,
    /// Printed without the password inside.
    Url,
}

/// What a type accepts, in words and as JSON Schema.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// One or two words for tables: "address", "list of networks".
    pub(crate) name: String,
    /// What is allowed, for error texts.
    pub(crate) allowed: String,
    pub(crate) schema: Json,
    pub(crate) class: Class,
}

/// A type that a key can have.
pub(crate) trait Value: Sized {
    fn kind() -> Kind;
    /// Reads a value; the error says what is wrong and never repeats a secret.
    fn parse(raw: &Raw) -> Result<Self, String>;
}

/// Everything known about one key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) path: String,
    pub(crate) doc: String,
    pub(crate) default: Raw,
    pub(crate) kind: Kind,
    pub(crate) reload: bool,
    pub(crate) flag: Option<&'static str>,
    pub(crate) later: Option<&'static str>,
    pub(crate) range: Option<(f64, f64)>,
    pub(crate) no_file: bool,
}

impl Key {
    pub(crate) fn new<T: Value>(path: String, doc: &[&str], default: impl Into<Raw>) -> Self {
        Self {
            path,
            doc: text_of(doc),
            default: default.into(),
            kind: T::kind(),
            reload: false,
            flag: None,
            later: None,
            range: None,
            no_file: false,
        }
    }

    /// A change is taken over by a reload, without a restart (CF-5).
    pub(crate) fn reload(mut self) -> Self {
        self.reload = true;
        self
    }

    /// The flag of the command line that sets it.
    pub(crate) fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    /// It is read and checked, but nothing uses it yet; the text names what will.
    pub(crate) fn later(mut self, with: &'static str) -> Self {
        self.later = Some(with);
        self
    }

    /// Smallest and largest number.
    pub(crate) fn range(mut self, least: impl Into<f64>, most: impl Into<f64>) -> Self {
        self.range = Some((least.into(), most.into()));
        self
    }

    /// A secret that has its own key for a file, so that the general `<key>_file` does not apply.
    pub(crate) fn no_file(mut self) -> Self {
        self.no_file = true;
        self
    }

    /// The key that names a file with this value, if it is a secret.
    pub(crate) fn file_key(&self) -> Option<String> {
        let takes = self.kind.class != Class::Plain && !self.no_file;
        takes.then(|| format!("{}_file", self.path))
    }

    /// What is allowed, with the bounds.
    pub(crate) fn allowed(&self) -> String {
        match self.range {
            Some((least, most)) => format!("{} from {least} to {most}", self.kind.allowed),
            None => self.kind.allowed.clone(),
        }
    }

    /// The default, with the data directory written into it.
    pub(crate) fn default_in(&self, data_dir: &str) -> Raw {
        let mut raw = self.default.clone();
        self.write_data_dir(&mut raw, data_dir);
        raw
    }

    /// `<data>` in any value stands for the data directory; in a URL its special characters are encoded.
    pub(crate) fn write_data_dir(&self, raw: &mut Raw, data_dir: &str) {
        let encoded = || {
            data_dir
                .replace('%', "%25")
                .replace('?', "%3F")
                .replace('#', "%23")
        };
        raw.map_text(&mut |raw| {
            if let Raw::String(text) | Raw::Text(text) = raw
                && text.contains("<data>")
            {
                let url = self.kind.class == Class::Url;
                *text = text.replace("<data>", &if url { encoded() } else { data_dir.to_owned() });
            }
        });
    }

    /// The name of its variable in the environment.
    pub(crate) fn env(&self) -> String {
        crate::env::name_of(&self.path)
    }
}

/// All keys and sections in the order of their declaration.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    pub(crate) keys: Vec<Key>,
    pub(crate) sections: Vec<(String, String)>,
    /// Sections whose keys are not known here.
    pub(crate) free: BTreeSet<String>,
    index: BTreeMap<String, usize>,
    files: BTreeMap<String, usize>,
}

/// What a dotted path means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Key(&'a Key),
    /// `<key>_file` of a secret.
    FileOf(&'a Key),
    Section,
    /// A section with free keys.
    Free,
    Unknown,
}

impl Declared {
    pub(crate) fn of<S: Section>() -> Self {
        let mut declared = Self::default();
        S::declare("", &mut declared);
        declared
    }

    pub(crate) fn section(&mut self, path: &str, doc: &[&str]) {
        self.sections.push((path.to_owned(), text_of(doc)));
    }

    pub(crate) fn free_section(&mut self, path: &str, doc: &[&str]) {
        self.section(path, doc);
        self.free.insert(path.to_owned());
    }

    pub(crate) fn key(&mut self, key: Key) {
        let at = self.keys.len();
        self.index.insert(key.path.clone(), at);
        if let Some(file) = key.file_key() {
            self.files.insert(file, at);
        }
        self.keys.push(key);
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Key> {
        self.index.get(path).map(|at| &self.keys[*at])
    }

    pub(crate) fn place(&self, path: &str) -> Place<'_> {
        if let Some(key) = self.get(path) {
            Place::Key(key)
        } else if let Some(at) = self.files.get(path) {
            Place::FileOf(&self.keys[*at])
        } else if self.free.contains(path) {
            Place::Free
        } else if self.sections.iter().any(|(section, _)| section == path) {
            Place::Section
        } else {
            Place::Unknown
        }
    }

    /// Every name that a file may hold.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.index
            .keys()
            .chain(self.files.keys())
            .map(String::as_str)
            .chain(self.sections.iter().map(|(path, _)| path.as_str()))
            .filter(|path| !path.is_empty())
    }

    /// The direct members of a section, for "allowed".
    pub(crate) fn members(&self, section: &str) -> Vec<&str> {
        let prefix = if section.is_empty() {
            String::new()
        } else {
            format!("{section}.")
        };
        let mut members: Vec<&str> = Vec::new();
        let keys = self.keys.iter().map(|key| key.path.as_str());
        for path in keys.chain(self.free.iter().map(String::as_str)) {
            let member = path
                .strip_prefix(&prefix)
                .and_then(|rest| rest.split('.').next());
            if let Some(member) = member.filter(|member| !members.contains(member)) {
                members.push(member);
            }
        }
        members
    }
}

/// A struct whose fields are keys and groups; written by [`section!`].
pub(crate) trait Section: Sized {
    fn declare(path: &str, out: &mut Declared);
    fn read(path: &str, reader: &mut Reader<'_>) -> Self;
}

/// Reads declared keys out of the layered values and collects what is wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) declared: &'a Declared,
    pub(crate) found: &'a BTreeMap<String, Found>,
    pub(crate) free: &'a crate::free::FreeValues,
    pub(crate) data_dir: &'a str,
    pub(crate) faults: Vec<Fault>,
}

impl Reader<'_> {
    /// The value of a key; a wrong one is reported and replaced by the default, so that reading goes on.
    pub(crate) fn read<T: Value>(&mut self, path: &str) -> T {
        let key = self
            .declared
            .get(path)
            .expect("only declared keys are read");
        if let Some(found) = self.found.get(path) {
            match checked(key, &found.raw) {
                Ok(value) => return value,
                Err(problem) => self.faults.push(
                    Fault::new(&found.origin, &found.written, problem).allowed(key.allowed()),
                ),
            }
        }
        T::parse(&key.default_in(self.data_dir))
            .expect("every default is valid, see the test of the default file")
    }
}

fn checked<T: Value>(key: &Key, raw: &Raw) -> Result<T, String> {
    let value = T::parse(raw)?;
    if let (Some((least, most)), Some(number)) = (key.range, raw.as_number())
        && !(least..=most).contains(&number)
    {
        return Err(format!("{number} is out of bounds"));
    }
    Ok(value)
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The origin that a fault about an absent value has.
pub(crate) fn origin_of(found: &BTreeMap<String, Found>, path: &str) -> Origin {
    found
        .get(path)
        .map_or(Origin::Default, |found| found.origin.clone())
}

fn text_of(doc: &[&str]) -> String {
    let lines: Vec<_> = doc.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

/// Declares a section: `groups` are sections inside it, `keys` are `name: Type = default; attribute(..)`.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $(groups { $( $group:ident : $gty:ty ),* $(,)? })?
            $(keys {
                $(
                    $(#[doc = $kdoc:literal])*
                    $key:ident : $kty:ty = $default:expr $(; $attr:ident ( $($arg:expr),* ))*
                ),* $(,)?
            })?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(
                #[doc = concat!("Section `", stringify!($group), "`.")]
                pub $group: $gty,
            )*)?
            $($( $(#[doc = $kdoc])* pub $key: $kty, )*)?
        }

        impl $crate::key::Section for $name {
            fn declare(path: &str, out: &mut $crate::key::Declared) {
                out.section(path, &[$($doc),*]);
                $($(
                    let at = $crate::key::join(path, stringify!($key));
                    out.key(
                        $crate::key::Key::new::<$kty>(at, &[$($kdoc),*], $default)
                            $(.$attr($($arg),*))*
                    );
                )*)?
                $($(
                    <$gty as $crate::key::Section>::declare(
                        &$crate::key::join(path, stringify!($group)), out,
                    );
                )*)?
            }

            fn read(path: &str, reader: &mut $crate::key::Reader<'_>) -> Self {
                Self {
                    $($(
                        $group: <$gty as $crate::key::Section>::read(
                            &$crate::key::join(path, stringify!($group)), reader,
                        ),
                    )*)?
                    $($( $key: reader.read(&$crate::key::join(path, stringify!($key))), )*)?
                }
            }
        }
    };
}

/// Declares a choice between words.
macro_rules! choice {
    ($(#[doc = $doc:literal])* pub enum $name:ident { $( $(#[doc = $vdoc:literal])* $variant:ident = $word:literal ),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[doc = $vdoc])* $variant ),* }

        impl $name {
            /// Every word, in the order of declaration.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word of the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word ),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::key::Value for $name {
            fn kind() -> $crate::key::Kind {
                $crate::types::choice(Self::WORDS)
            }
            fn parse(raw: &$crate::raw::Raw) -> Result<Self, String> {
                match $crate::types::word(raw)?.as_str() {
                    $( $word => Ok(Self::$variant), )*
                    other => Err($crate::types::no_such_word(other, Self::WORDS)),
                }
            }
        }
    };
}

pub(crate) use {choice, section};
