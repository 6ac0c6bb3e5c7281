//! The release binary: one file, stripped, fat LTO.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

const MAX_BYTES: u64 = 40 * 1024 * 1024;

/// Builds with the `dist` profile, copies to `dist/portico` and checks the size.
pub(crate) fn run(root: &Path) -> Result<()> {
    let binary = build(root)?;
    let folder = root.join("dist");
    std::fs::create_dir_all(&folder)?;
    let target = folder.join("portico");
    let bytes = std::fs::copy(binary, &target)?;
    println!("dist/portico: {:.1} MiB", bytes as f64 / 1_048_576.0);
    if bytes > MAX_BYTES {
        bail!("the binary is larger than 40 MiB");
    }
    Ok(())
}

/// Builds the release binary and tells where it is.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let status = Command::new("cargo")
        .args([
            "build",
            "--profile",
            "dist",
            "--package",
            "portico",
            "--locked",
        ])
        .current_dir(root)
        .status()?;
    if !status.success() {
        bail!("the build failed");
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("dist").join("portico"))
}
