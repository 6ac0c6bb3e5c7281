//! The trace table of `docs/security.md`: whole, and every test that it names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use regex::Regex;

const DOCUMENT: &str = "docs/security.md";
/// How many requirements of levels 1 and 2 each chapter of ASVS 5.0.0 has.
const CHAPTERS: &[(&str, usize)] = &[
    ("V1", 27),
    ("V2", 11),
    ("V3", 19),
    ("V4", 10),
    ("V6", 35),
    ("V7", 18),
    ("V8", 7),
    ("V9", 7),
    ("V10", 29),
    ("V11", 14),
    ("V12", 9),
    ("V13", 13),
    ("V14", 9),
    ("V15", 13),
    ("V16", 16),
];
const STATES: &[&str] = &["met", "partly", "not", "n/a"];

/// Checks the table against the sources.
pub(crate) fn check(root: &Path, sources: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let rows = rows(&text);
    counts(&rows, faults);
    let mut cache = BTreeMap::new();
    for row in &rows {
        if !STATES.contains(&row.state) {
            faults.push(format!("{DOCUMENT}: {} is {:?}", row.id, row.state));
        }
        for name in &row.tests {
            if !exists(root, sources, name, &mut cache) {
                faults.push(format!(
                    "{DOCUMENT}: {} names {name}, which is not there",
                    row.id
                ));
            }
        }
    }
    Ok(())
}

struct Row<'t> {
    id: &'t str,
    state: &'t str,
    /// `file::function`, or the path of a script.
    tests: Vec<&'t str>,
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let lines = text.lines().filter(|line| line.starts_with("| V"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let last = cells.last().copied().unwrap_or_default();
            Row {
                id: cells[0].trim_start_matches("| "),
                state: cells.get(2).copied().unwrap_or_default(),
                tests: quoted(last),
            }
        })
        .collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn counts(rows: &[Row<'_>], faults: &mut Vec<String>) {
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
    if ids.len() != rows.len() {
        faults.push(format!("{DOCUMENT}: a requirement stands there twice"));
    }
    for (chapter, wanted) in CHAPTERS {
        let of = |id: &&&str| id.split('.').next() == Some(chapter);
        let found = ids.iter().filter(of).count();
        if found != *wanted {
            faults.push(format!(
                "{DOCUMENT}: {chapter} has {found} of {wanted} requirements"
            ));
        }
    }
}

fn exists(
    root: &Path,
    sources: &[PathBuf],
    name: &str,
    cache: &mut BTreeMap<PathBuf, String>,
) -> bool {
    let Some((file, function)) = name.rsplit_once("::") else {
        return root.join(name).is_file();
    };
    // A test, not any function of that name: attribute lines stand directly above it.
    let test = format!(r"#\[(tokio::)?test[^\n]*\](\s*#\[[^\n]*\])*\s*(async )?fn {function}\(");
    let Ok(test) = Regex::new(&test) else {
        return false;
    };
    let ends = [format!("/{file}.rs"), format!("/{file}/mod.rs")];
    sources.iter().any(|path| {
        let shown = path.to_string_lossy();
        ends.iter().any(|end| shown.ends_with(end.as_str()))
            && test.is_match(
                cache
                    .entry(path.clone())
                    .or_insert_with(|| fs::read_to_string(path).unwrap_or_default()),
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str =
        "| V6.2.1 | 1 | met | eight | there | `security::the_table_is_read`, `Makefile` |\n";

    fn faults_of(text: &str) -> Vec<String> {
        let root = crate::root();
        let sources = [root.join("xtask/src/security.rs")];
        let mut cache = BTreeMap::new();
        rows(text)
            .iter()
            .flat_map(|row| row.tests.clone())
            .filter(|name| !exists(&root, &sources, name, &mut cache))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_table_is_read() {
        let found = rows(HERE);
        assert_eq!((found[0].id, found[0].state), ("V6.2.1", "met"));
        assert_eq!(found[0].tests.len(), 2);
        assert_eq!(faults_of(HERE), Vec::<String>::new());
    }

    #[test]
    fn what_is_gone_is_named() {
        for gone in [
            "security::the_table_was_read",
            // A function, but no test.
            "security::exists",
            "elsewhere::the_table_is_read",
            "scripts/gone.sh",
        ] {
            let text = HERE.replace("security::the_table_is_read", gone);
            assert_eq!(faults_of(&text), [gone]);
        }
        let mut faults = Vec::new();
        counts(&rows(HERE), &mut faults);
        assert!(faults.contains(&"docs/security.md: V6 has 1 of 35 requirements".to_owned()));
    }

    /// The table as it is: `make test` finds out before `cargo xtask tidy` does.
    #[test]
    fn the_table_of_this_house_is_true() {
        let root = crate::root();
        let sources = crate::tidy::source_files(&root).unwrap();
        let mut faults = Vec::new();
        check(&root, &sources, &mut faults).unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
