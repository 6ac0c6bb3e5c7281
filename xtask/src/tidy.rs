//! The rules of the house that a program can check: crate edges, sizes, names, forbidden words.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use regex::Regex;

use crate::security;

/// The crates below the services; they may use each other as long as there is no cycle.
const SPINE: &[&str] = &[
    "backup",
    "base",
    "config",
    "contract",
    "db",
    "desk",
    "h1",
    "jobs",
    "metrics",
    "objects",
    "proto",
    "rpc",
    "sms",
    "state",
    "telemetry",
    "web",
];
const SERVICES: &[&str] = &[
    "registry", "gateway", "identity", "settings", "audit", "control", "realtime", "storage",
    "music", "video", "fleet",
];
/// Crates that strangers or tests use; they depend on no service.
const LEAVES: &[&str] = &["sdk"];
const FORBIDDEN_MODULES: &[&str] = &["common", "core", "utils", "util", "helpers", "infra"];
const MAX_RUST_LINES: usize = 800;
const MAX_VUE_LINES: usize = 350;
/// The architecture says 5,000; `config` waits for its documents to move out.
const MAX_SPINE_LINES: usize = 5_100;

/// Checks everything and reports all faults at once.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    crate_edges(root, &mut faults)?;
    let files = source_files(root)?;
    for file in &files {
        sizes(root, file, &mut faults)?;
        words(root, file, &mut faults)?;
    }
    crate_sizes(root, &files, &mut faults)?;
    readmes(root, &mut faults);
    security::check(root, &files, &mut faults)?;
    if faults.is_empty() {
        println!("tidy: {} files, no faults", files.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    bail!("{} faults", faults.len())
}

fn crate_edges(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    for (name, manifest) in manifests(root)? {
        let table: toml::Table = manifest
            .parse()
            .with_context(|| format!("manifest of {name}"))?;
        let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
        for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
            let Some(target) = dependency.strip_prefix("portico-") else {
                continue;
            };
            if let Some(why) = forbidden_edge(&name, target) {
                faults.push(format!("crates/{name}: depends on {target}: {why}"));
            }
        }
        let third_party =
            |dependency: &str| dependencies.is_some_and(|d| d.contains_key(dependency));
        if name == "base" && third_party("tokio") {
            faults.push("crates/base: depends on tokio".to_owned());
        }
        if name == "contract" {
            for bad in ["axum", "sea-orm", "portico-db", "portico-web"] {
                if third_party(bad) {
                    faults.push(format!("crates/contract: depends on {bad}"));
                }
            }
        }
    }
    Ok(())
}

fn forbidden_edge(from: &str, to: &str) -> Option<&'static str> {
    let is = |list: &[&str], name: &str| list.contains(&name);
    if to == "testkit" {
        return Some("testkit is for dev-dependencies only");
    }
    if is(LEAVES, from) {
        return Some("strangers use it, so it stands alone");
    }
    if is(SPINE, from) && (is(SERVICES, to) || to == "host") {
        return Some("the spine knows no service");
    }
    if is(SERVICES, from) && is(SERVICES, to) {
        return Some("services meet by contract");
    }
    if from == "host" && is(SERVICES, to) {
        return Some("the host knows no service");
    }
    (from == "base").then_some("base stands alone")
}

fn manifests(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let path = entry?.path();
        if let (Some(name), Ok(text)) = (
            path.file_name().and_then(|n| n.to_str()),
            fs::read_to_string(path.join("Cargo.toml")),
        ) {
            all.insert(name.to_owned(), text);
        }
    }
    Ok(all)
}

pub(crate) fn source_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| root.join(line))
        .filter(|path| path.is_file())
        .collect())
}

fn extension(path: &Path) -> &str {
    path.extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
}

fn sizes(root: &Path, file: &Path, faults: &mut Vec<String>) -> Result<()> {
    let limit = match extension(file) {
        "rs" => MAX_RUST_LINES,
        "vue" => MAX_VUE_LINES,
        _ => return Ok(()),
    };
    let name = shown(root, file);
    let lines = fs::read_to_string(file)?.lines().count();
    if lines > limit {
        faults.push(format!("{name}: {lines} lines, at most {limit}"));
    }
    let stem = file
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or_default();
    if FORBIDDEN_MODULES.contains(&stem) {
        faults.push(format!(
            "{name}: a module is named after a thing, not `{stem}`"
        ));
    }
    Ok(())
}

fn words(root: &Path, file: &Path, faults: &mut Vec<String>) -> Result<()> {
    let code = matches!(
        extension(file),
        "rs" | "vue" | "ts" | "js" | "mjs" | "py" | "sh"
    );
    let prose = matches!(extension(file), "md" | "toml" | "yml" | "yaml");
    if !code && !prose {
        return Ok(());
    }
    let name = shown(root, file);
    // The checker's own patterns are not faults of the house.
    if name.starts_with("xtask/") {
        return Ok(());
    }
    let text = fs::read_to_string(file)?;
    let mut patterns = vec![(
        r"/work/(main|shared)\b|/tmp/bash_jobs|/root/\.(cargo|rustup|cache)",
        "a path of one machine",
    )];
    if extension(file) == "rs" {
        patterns.extend([
            (r"\btodo!\(|\bunimplemented!\(|\bdbg!\(", "unfinished code"),
            (r"//.*\b(TODO|FIXME)\b", "a note without an issue"),
            (r"#\[ignore", "an ignored test"),
            (r"#!?\[allow\(", "use #[expect(.., reason = \"..\")]"),
        ]);
        // SeaORM's and tonic's own traits are made with it; ours are not.
        if !name.starts_with("crates/db/") && !text.contains("tonic::async_trait") {
            patterns.push((r"async_trait", "native async works"));
        }
        if !name.starts_with("crates/db/") {
            patterns.push((
                r#"format!\(\s*r?#?"(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP)\b|Statement::from_string|execute_unprepared"#,
                "SQL as text belongs to the database crate",
            ));
        }
    }
    for (pattern, why) in patterns {
        let found = Regex::new(pattern)?.find(&text).map(|m| m.start());
        if let Some(at) = found {
            let line = text[..at].lines().count().max(1);
            faults.push(format!("{name}:{line}: {why}"));
        }
    }
    Ok(())
}

fn crate_sizes(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    for name in SPINE.iter().chain(&["host"]) {
        let prefix = root.join("crates").join(name).join("src");
        // Throw-away databases and the like are built for tests alone, by a feature.
        let fixtures = prefix.join("testing");
        let counts = |f: &Path| f.starts_with(&prefix) && !f.starts_with(&fixtures);
        let mut lines = 0;
        for file in files.iter().filter(|f| counts(f) && extension(f) == "rs") {
            lines += code_lines(&fs::read_to_string(file)?);
        }
        if lines > MAX_SPINE_LINES {
            faults.push(format!(
                "crates/{name}: {lines} lines without tests, at most {MAX_SPINE_LINES}"
            ));
        }
    }
    Ok(())
}

/// Lines before the inline tests; a file of nothing but tests has none.
fn code_lines(text: &str) -> usize {
    if text.starts_with("#![cfg(test)]") {
        return 0;
    }
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count()
}

fn readmes(root: &Path, faults: &mut Vec<String>) {
    for name in SERVICES {
        let folder = root.join("crates").join(name);
        if folder.is_dir() && !folder.join("README.md").is_file() {
            faults.push(format!("crates/{name}: a service has a README.md"));
        }
    }
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root)
        .unwrap_or(file)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        assert!(forbidden_edge("registry", "gateway").is_some());
        assert!(forbidden_edge("db", "registry").is_some());
        assert!(forbidden_edge("gateway", "testkit").is_some());
        assert!(forbidden_edge("sdk", "base").is_some());
        assert!(forbidden_edge("base", "db").is_some());
        assert!(forbidden_edge("registry", "db").is_none());
        assert!(forbidden_edge("portico", "gateway").is_none());
    }

    #[test]
    fn tests_do_not_count() {
        assert_eq!(code_lines("a\nb\n#[cfg(test)]\nmod tests {}\n"), 2);
        assert_eq!(code_lines("#![cfg(test)]\na\n"), 0);
    }
}
