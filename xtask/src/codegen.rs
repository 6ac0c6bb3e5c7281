//! Generated files, written by the binary itself: configuration reference and schema, OpenAPI, metrics;
//! and the check of the gRPC contracts.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Each generated file with the arguments of the binary that print it.
const GENERATED: &[(&str, &[&str])] = &[
    ("docs/configuration.md", &["config", "docs"]),
    ("docs/configuration.schema.json", &["config", "schema"]),
    ("docs/portico.toml", &["config", "default"]),
    ("docs/openapi.json", &["docs", "openapi"]),
    ("docs/metrics.md", &["docs", "metrics"]),
    ("docs/settings.md", &["docs", "settings"]),
];

/// Writes the files, or fails with the list of stale ones.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    // Clients and servers of the gRPC contracts are generated whenever they are built (`crates/proto`).
    crate::proto::check(root)?;
    let mut stale = Vec::new();
    for (file, arguments) in GENERATED {
        let output = printer().args(*arguments).current_dir(root).output()?;
        if !output.status.success() {
            bail!(
                "portico {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let path = root.join(file);
        if std::fs::read(&path).is_ok_and(|present| present == output.stdout) {
            continue;
        }
        if check {
            stale.push(*file);
        } else {
            std::fs::write(&path, &output.stdout).with_context(|| (*file).to_owned())?;
            println!("wrote {file}");
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    bail!("stale, run `cargo xtask codegen`: {}", stale.join(", "))
}

/// The binary that prints: the one that was built already (`PORTICO_BINARY`), else a fresh one.
fn printer() -> Command {
    match std::env::var_os("PORTICO_BINARY") {
        Some(binary) => Command::new(binary),
        None => {
            let mut cargo = Command::new("cargo");
            cargo.args(["run", "--quiet", "--package", "portico", "--"]);
            cargo
        }
    }
}
