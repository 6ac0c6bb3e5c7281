//! Where a value came from: the layer, and in it the line, name or flag.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// Where one value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// Nobody set it, and another key moved its default; the text says why.
    Derived(&'static str),
    /// A configuration file.
    File {
        /// The file as it was found.
        path: PathBuf,
        /// Line, counted from 1; 0 when the fault is about the file as a whole.
        line: usize,
    },
    /// A variable of the environment.
    Env(String),
    /// A flag of the command line, with its dashes.
    Flag(String),
    /// A file that holds one secret, and what named it.
    SecretFile {
        /// The file that was read.
        path: PathBuf,
        /// Where the path of that file came from.
        named_by: Box<Origin>,
    },
}

impl Origin {
    pub(crate) fn file(path: &Path, line: usize) -> Self {
        Self::File {
            path: path.to_owned(),
            line,
        }
    }

    /// True when nobody set the value.
    #[must_use]
    pub fn is_default(&self) -> bool {
        matches!(self, Self::Default | Self::Derived(_))
    }

    /// Name of the layer: `default`, `file`, `environment` or `flag`.
    #[must_use]
    pub fn layer(&self) -> &'static str {
        match self {
            Self::Default | Self::Derived(_) => "default",
            Self::File { .. } => "file",
            Self::Env(_) => "environment",
            Self::Flag(_) => "flag",
            Self::SecretFile { named_by, .. } => named_by.layer(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Derived(why) => write!(f, "default, because {why}"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::SecretFile { path, named_by } => {
                write!(f, "{} (named by {named_by})", path.display())
            }
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The origin of every declared key.
#[derive(Debug, Clone, Default)]
pub struct Origins(pub(crate) BTreeMap<String, Origin>);

impl Origins {
    /// Origin of a key such as `listen.http`; keys that do not exist are defaults.
    #[must_use]
    pub fn of(&self, key: &str) -> &Origin {
        self.0.get(key).unwrap_or(&Origin::Default)
    }

    /// True when nobody set this key.
    #[must_use]
    pub fn is_default(&self, key: &str) -> bool {
        self.of(key).is_default()
    }

    /// Every key with its origin, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.0.iter().map(|(key, origin)| (key.as_str(), origin))
    }
}
