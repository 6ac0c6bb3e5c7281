//! `portico secrets export` and `import`: a copy of the master keys under a passphrase (BK-3).

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use portico_backup::{open_copy, seal_copy};
use portico_base::{Secret, SystemRandom};
use portico_host::datadir::parse_key;
use portico_host::{StartError, exit};

use super::ground::Ground;
use crate::cli::KeyCopyArgs;
use crate::text::say;

/// Longest passphrase, in bytes.
const LONGEST: usize = 4_096;

/// Writes a copy of the keys of a configuration.
pub(crate) fn export(data_dir: Option<&Path>, args: &KeyCopyArgs) -> Result<u8> {
    let ground = Ground::load(args.config.clone(), data_dir, None)?;
    let keys = keys_of(&ground)?;
    let passphrase = passphrase(args)?;
    let text = seal_copy(&passphrase, &keys, &SystemRandom)?;
    match &args.file {
        Some(file) => write_new(file, &text)?,
        None => say!("{text}"),
    }
    Ok(0)
}

/// Opens a copy and writes the present key as a key file.
pub(crate) fn import(args: &KeyCopyArgs, to: &Path) -> Result<u8> {
    let file = args.file.as_ref().context("which copy? give its file")?;
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let keys = open_copy(&passphrase(args)?, &text)
        .map_err(|error| StartError::new(exit::KEY, error.to_string()))?;
    for (number, key) in keys.iter().enumerate() {
        let path = match number {
            0 => to.to_owned(),
            older => PathBuf::from(format!("{}.previous-{older}", to.display())),
        };
        write_new(&path, &hex(key))?;
        say!("{}", path.display());
    }
    Ok(0)
}

/// The present key and those before it.
fn keys_of(ground: &Ground) -> Result<Vec<Secret<[u8; 32]>>> {
    let section = &ground.config.keys;
    let mut keys = Vec::new();
    match &section.master {
        Some(key) => keys.push(key.0.clone()),
        None => keys.push(read_key(&section.master_file)?),
    }
    for file in &section.previous_files {
        keys.push(read_key(file)?);
    }
    Ok(keys)
}

fn read_key(file: &Path) -> Result<Secret<[u8; 32]>> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        StartError::new(
            exit::KEY,
            format!("{} cannot be read: {error}", file.display()),
        )
    })?;
    parse_key(&text).ok_or_else(|| {
        let message = format!("{} is not a key of 64 hex digits", file.display());
        StartError::new(exit::KEY, message).into()
    })
}

/// The first line of a file or of standard input: never an argument, which everybody on the machine sees.
fn passphrase(args: &KeyCopyArgs) -> Result<Secret<String>> {
    let mut line = String::new();
    match &args.passphrase_file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            text.lines()
                .next()
                .unwrap_or_default()
                .clone_into(&mut line);
        }
        None if args.passphrase => {
            if std::io::stdin().is_terminal() {
                eprint!("passphrase (it is shown as you type): ");
            }
            let mut input = std::io::stdin().lock();
            input.read_line(&mut line).context("no passphrase came")?;
        }
        None => bail!(
            "give the passphrase with --passphrase (on standard input) or --passphrase-file FILE"
        ),
    }
    let passphrase = line.trim_end_matches(['\n', '\r']).to_owned();
    if passphrase.len() > LONGEST {
        bail!("the passphrase is too long");
    }
    Ok(Secret::new(passphrase))
}

/// A new file, readable for its owner alone.
fn write_new(path: &Path, text: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        })
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn hex(key: &Secret<[u8; 32]>) -> String {
    use std::fmt::Write as _;
    key.expose().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
