//! Benchmarks: each is a folder of `bench/` with a `run.sh`; the release binary is built first.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// Runs `bench/<name>/run.sh`, or every one for `all`.
pub(crate) fn run(root: &Path, name: &str, rest: &[&str]) -> Result<()> {
    let names = names(root)?;
    let chosen: Vec<&String> = names
        .iter()
        .filter(|n| name == "all" || *n == name)
        .collect();
    if chosen.is_empty() {
        bail!(
            "there is no benchmark {name}; there are: {}",
            names.join(", ")
        );
    }
    let binaries = crate::dist::build(root, &["portico", "portico-bench"])?;
    for bench in chosen {
        let status = Command::new("bash")
            .arg(root.join("bench").join(bench).join("run.sh"))
            .args(rest)
            .env("PORTICO_BIN", binaries.join("portico"))
            .env("PORTICO_BENCH_BIN", binaries.join("portico-bench"))
            .current_dir(root)
            .status()?;
        if !status.success() {
            bail!("bench/{bench} failed");
        }
    }
    Ok(())
}

fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("bench"))? {
        let path = entry?.path();
        if path.join("run.sh").is_file()
            && let Some(name) = path.file_name().and_then(|n| n.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
