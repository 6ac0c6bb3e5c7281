//! The licences of all dependencies, from `cargo metadata`: only permissive ones, one TLS provider.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Crates that must not be linked, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls on aws-lc"),
    ("native-tls", "TLS is rustls on aws-lc"),
    ("rsa", "RUSTSEC-2023-0071"),
];

/// Fails when a dependency's licence is not allowed or a banned crate is linked.
pub(crate) fn run(root: &Path) -> Result<()> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
        ])
        .arg("x86_64-unknown-linux-gnu")
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let linked = linked(&metadata);
    let mut faults = Vec::new();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    for package in packages
        .iter()
        .filter(|p| linked.contains(&p["id"].as_str().unwrap_or_default()))
    {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or("none");
        if !permitted(licence) {
            faults.push(format!("{name}: licence {licence}"));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            faults.push(format!("{name}: {why}"));
        }
    }
    if faults.is_empty() {
        println!("licences: {} dependencies, all permitted", linked.len());
        return Ok(());
    }
    bail!("{}", faults.join("\n"))
}

/// Packages in the resolved graph; the lock file also names optional ones that nobody links.
fn linked(metadata: &Value) -> Vec<&str> {
    metadata["resolve"]["nodes"]
        .as_array()
        .map(|nodes| {
            nodes
                .iter()
                .filter_map(|node| node["id"].as_str())
                .collect()
        })
        .unwrap_or_default()
}

/// True when one alternative of an SPDX expression consists of allowed licences only.
fn permitted(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" OR ").any(|alternative| {
        alternative
            .split(" AND ")
            .all(|licence| ALLOWED.contains(&licence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::permitted;

    #[test]
    fn expressions() {
        assert!(permitted("MIT OR Apache-2.0"));
        assert!(permitted("MIT/Apache-2.0"));
        assert!(permitted("GPL-3.0 OR MIT"));
        assert!(permitted("ISC AND (Apache-2.0 OR ISC)"));
        assert!(!permitted("GPL-3.0"));
        assert!(!permitted("none"));
    }
}
