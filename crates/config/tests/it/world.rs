//! A world in memory: files, environment and flags for one call of `load`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use portico_config::{AlsoCheck, Faults, Flag, Input, Loaded, load};

#[derive(Default, Clone)]
pub(crate) struct World {
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) config_file: Option<PathBuf>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_toml(text: &str) -> Self {
        Self::new().file("./portico.toml", text)
    }

    pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.as_bytes().to_vec());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn flag(mut self, flag: &str, key: &str, value: &str) -> Self {
        self.flags.push(Flag::new(key, value, flag));
        self
    }

    pub(crate) fn config(mut self, path: &str) -> Self {
        self.config_file = Some(path.into());
        self
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.starts_with("/forbidden") {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "permission denied",
            ));
        }
        let not_found = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        self.files.get(path).cloned().ok_or_else(not_found)
    }

    pub(crate) fn load(&self) -> Result<Loaded, Faults> {
        self.load_also(Vec::new())
    }

    pub(crate) fn load_also(&self, also: Vec<AlsoCheck<'_>>) -> Result<Loaded, Faults> {
        load(&Input {
            env: self.env.clone(),
            flags: self.flags.clone(),
            config_file: self.config_file.clone(),
            read: &|path| self.read(path),
            also,
        })
    }
}
