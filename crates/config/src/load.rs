//! Loading: defaults, file, environment and flags become one checked configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::check;
use crate::expand::expand;
use crate::fault::{Fault, Faults, Warning};
use crate::format;
use crate::free::FreeValues;
use crate::key::{Declared, Reader, Section, Value as _};
use crate::layer::{Layer, Layers};
use crate::origin::{Origin, Origins};
use crate::raw::{Entry, Raw};
use crate::sections::Config;

/// A configuration or secret file larger than this is refused.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

const DATA_DIR: &str = "node.data_dir";

/// A value that a flag of the command line gave.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The dotted key that it sets.
    pub key: String,
    /// Its value as text; it is parsed by the type of the key.
    pub value: String,
    /// The flag with its dashes, for messages.
    pub flag: String,
}

impl Flag {
    /// A flag such as `--listen`.
    pub fn new(key: impl Into<String>, value: impl Into<String>, flag: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            flag: flag.into(),
        }
    }
}

/// A check of someone else that runs with the built-in ones, so that its faults are in the same report.
pub type AlsoCheck<'a> = &'a dyn Fn(&Config, &Origins) -> Vec<Fault>;

/// Everything that loading reads; nothing else is looked at, so that a test decides all of it.
pub struct Input<'a> {
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Flags in the order of the command line.
    pub flags: Vec<Flag>,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// Reads a whole file. See [`read_file`].
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Further checks.
    pub also: Vec<AlsoCheck<'a>>,
}

impl Input<'_> {
    /// The input of this process: its environment and the real files.
    #[must_use]
    pub fn of_process(flags: Vec<Flag>, config_file: Option<PathBuf>) -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            env: std::env::vars_os()
                .map(|(name, value)| (lossy(name), lossy(value)))
                .collect(),
            flags,
            config_file,
            read: &read_file,
            also: Vec::new(),
        }
    }
}

/// Reads a file of at most [`MAX_FILE_BYTES`].
///
/// # Errors
/// Those of the file system, and `FileTooLarge`.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 1 MiB",
        ));
    }
    Ok(bytes)
}

/// One value with its origin. It has no `Debug`: the value may be a secret.
#[derive(Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) raw: Raw,
    pub(crate) origin: Origin,
    /// The key as it was written, for messages: `database.url_file` for `database.url`.
    pub(crate) written: String,
}

impl Found {
    pub(crate) fn new(raw: Raw, origin: Origin, written: &str) -> Self {
        let written = written.to_owned();
        Self {
            raw,
            origin,
            written,
        }
    }
}

/// A configuration that may be started with.
#[derive(Clone)]
pub struct Loaded {
    /// The typed values.
    pub config: Config,
    /// Where each came from.
    pub origins: Origins,
    /// What works but should be looked at.
    pub warnings: Vec<Warning>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Every declared key with the value in force.
    pub(crate) found: BTreeMap<String, Found>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("config", &self.config)
            .field("origins", &self.origins)
            .field("warnings", &self.warnings)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Loads the configuration, or tells everything that is wrong with it at once.
///
/// # Errors
/// All faults of all layers and checks; the process ends with [`crate::EXIT_CODE`].
pub fn load(input: &Input<'_>) -> Result<Loaded, Faults> {
    let declared = Declared::of::<Config>();
    let mut layers = Layers::new(&declared);
    let env = layers.environment(&input.env);
    let flags = layers.flags(&input.flags);
    let early = [&flags, &env].map(|layer| layer.values.get(DATA_DIR));
    let early = data_dir(&declared, early.into_iter());
    let file = find_file(input, &early, &mut layers);
    let from_file = file
        .as_ref()
        .map(|(path, text)| read_layer(path, text, input, &mut layers));

    let mut free = FreeValues::default();
    let mut found = BTreeMap::new();
    for layer in [from_file.unwrap_or_default(), env, flags] {
        layers.put_over(layer, &mut found, &mut free);
    }
    let data_dir = data_dir(&declared, [found.get(DATA_DIR)].into_iter());
    layers.settle(&mut found, &data_dir, input.read);
    check::derive(&mut found);

    let mut reader = Reader {
        declared: &declared,
        found: &found,
        free: &free,
        data_dir: &data_dir,
        faults: Vec::new(),
    };
    let config = Config::read("", &mut reader);
    let (mut faults, mut warnings) = (layers.faults, layers.warnings);
    faults.extend(reader.faults);

    let origins = origins(&declared, &found, &free);
    let wrong = faults.iter().map(|fault| fault.key.clone()).collect();
    let checked = check::check(&config, &origins, &declared, wrong, input.read);
    faults.extend(checked.faults);
    warnings.extend(checked.warnings);
    for also in &input.also {
        faults.extend(also(&config, &origins));
    }
    if !faults.is_empty() {
        sort(&mut faults);
        return Err(Faults(faults));
    }
    complete(&declared, &data_dir, &mut found);
    Ok(Loaded {
        config,
        origins,
        warnings,
        file: file.map(|(path, _)| path),
        found,
    })
}

/// The data directory that the candidates name, first wins. While a wrong one is being reported, the
/// other keys are read with the default, so that they are not wrong because of it.
fn data_dir<'a>(
    declared: &'a Declared,
    mut found: impl Iterator<Item = Option<&'a Found>>,
) -> String {
    let usable = |raw: &Raw| {
        PathBuf::parse(raw).is_ok_and(|dir| dir.as_os_str().len() <= check::MAX_DATA_DIR)
    };
    let chosen = found
        .find_map(|found| found.map(|found| &found.raw))
        .filter(|raw| usable(raw));
    let default = declared.get(DATA_DIR).map(|key| &key.default);
    chosen
        .or(default)
        .and_then(Raw::as_text)
        .unwrap_or_default()
        .to_owned()
}

/// The first file of the list that exists, with its text.
fn find_file(
    input: &Input<'_>,
    data_dir: &str,
    layers: &mut Layers<'_>,
) -> Option<(PathBuf, String)> {
    let named = match (&input.config_file, input.env.get("PORTICO_CONFIG")) {
        (Some(path), _) => Some((path.clone(), Origin::Flag("--config".to_owned()))),
        (None, Some(path)) if !path.is_empty() => Some((
            PathBuf::from(path),
            Origin::Env("PORTICO_CONFIG".to_owned()),
        )),
        _ => None,
    };
    if let Some((path, origin)) = named {
        return match (input.read)(&path) {
            Ok(bytes) => Some((path.clone(), text_of(&path, bytes, layers))),
            Err(error) => {
                let problem = format!("cannot read {}: {error}", path.display());
                layers.faults.push(Fault::new(&origin, "", problem));
                None
            }
        };
    }
    let mut first: Option<(PathBuf, String)> = None;
    for path in searched(data_dir) {
        match (input.read)(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let origin = Origin::file(&path, 0);
                layers
                    .faults
                    .push(Fault::new(&origin, "", format!("cannot be read: {error}")));
            }
            Ok(bytes) => match &first {
                None => first = Some((path.clone(), text_of(&path, bytes, layers))),
                Some((first, _)) => {
                    let message = format!("not read, because {} was found first", first.display());
                    layers.warnings.push(Warning::new(
                        &Origin::File { path, line: 0 },
                        "",
                        message,
                    ));
                }
            },
        }
    }
    first
}

/// Where a file is looked for when nobody named one, first wins.
#[must_use]
pub fn searched(data_dir: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = ["./portico.toml", "./portico.yaml", "./portico.json"]
        .map(PathBuf::from)
        .into();
    let of_data = Path::new(data_dir).join("portico.toml");
    // With the working directory as data directory it is the same file twice.
    if of_data != Path::new("./portico.toml") && of_data != Path::new("portico.toml") {
        paths.push(of_data);
    }
    paths.push(PathBuf::from("/etc/portico/portico.toml"));
    paths
}

fn text_of(path: &Path, bytes: Vec<u8>, layers: &mut Layers<'_>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let origin = Origin::file(path, line);
        layers
            .faults
            .push(Fault::new(&origin, "", "the file is not UTF-8 text"));
        String::new()
    })
}

fn read_layer(path: &Path, text: &str, input: &Input<'_>, layers: &mut Layers<'_>) -> Layer {
    let (mut entries, errors) = format::parse(path, text);
    for error in errors {
        let origin = Origin::file(path, error.line);
        layers.faults.push(Fault::new(&origin, "", error.problem));
    }
    expand_entries(path, "", &mut entries, &input.env, &mut layers.faults);
    layers.file(path, entries)
}

fn expand_entries(
    path: &Path,
    prefix: &str,
    entries: &mut [Entry],
    env: &BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) {
    for entry in entries {
        let key = crate::key::join(prefix, &entry.key);
        if let Raw::Table(inner) = &mut entry.raw {
            expand_entries(path, &key, inner, env, faults);
            continue;
        }
        let origin = Origin::file(path, entry.line);
        let before = faults.len();
        entry.raw.map_text(&mut |raw| {
            let Some(text) = raw.as_text() else { return };
            match expand(text, env) {
                Ok(None) => {}
                Ok(Some(expanded)) => *raw = Raw::Text(expanded),
                Err(problems) => {
                    faults.extend(problems.into_iter().map(|p| Fault::new(&origin, &key, p)));
                }
            }
        });
        if faults.len() > before {
            // What is left of the value would only be reported a second time.
            entry.raw = Raw::Null;
        }
    }
}

fn origins(declared: &Declared, found: &BTreeMap<String, Found>, free: &FreeValues) -> Origins {
    let mut origins: BTreeMap<String, Origin> = declared
        .keys
        .iter()
        .map(|key| (key.path.clone(), crate::key::origin_of(found, &key.path)))
        .collect();
    for (section, table) in &free.0 {
        for (key, _, origin) in table.leaves() {
            origins.insert(crate::key::join(section, &key), origin);
        }
    }
    Origins(origins)
}

/// Adds the defaults, so that `show` and `diff` see every key.
fn complete(declared: &Declared, data_dir: &str, found: &mut BTreeMap<String, Found>) {
    for key in &declared.keys {
        found
            .entry(key.path.clone())
            .or_insert_with(|| Found::new(key.default_in(data_dir), Origin::Default, &key.path));
    }
}

/// By layer and line, so that a person can walk through the file.
fn sort(faults: &mut [Fault]) {
    let rank = |fault: &Fault| match &fault.origin {
        Origin::File { line, .. } => (0, *line),
        Origin::SecretFile { .. } => (1, 0),
        Origin::Env(_) => (2, 0),
        Origin::Flag(_) => (3, 0),
        Origin::Default | Origin::Derived(_) => (4, 0),
    };
    faults.sort_by_key(rank);
}
