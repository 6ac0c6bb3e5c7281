//! The environment as a layer: `PORTICO__SECTION__KEY`.

use std::collections::BTreeMap;

const PREFIX: &str = "PORTICO__";

/// The variable of a key: `database.url` is `PORTICO__DATABASE__URL`.
pub(crate) fn name_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// The key of a variable, or none when the variable is not ours.
pub(crate) fn path_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    Some(rest.replace("__", ".").to_ascii_lowercase())
}

/// Variables with a single underscore that look like keys: `PORTICO_DATABASE_URL` is read by nobody.
pub(crate) fn lookalikes<'a>(
    env: &'a BTreeMap<String, String>,
    paths: impl Iterator<Item = &'a str>,
) -> Vec<(&'a str, String)> {
    let single: BTreeMap<String, &str> = paths
        .map(|path| {
            (
                format!("PORTICO_{}", path.replace('.', "_").to_ascii_uppercase()),
                path,
            )
        })
        .collect();
    env.keys()
        .filter(|name| !name.starts_with(PREFIX))
        .filter_map(|name| Some((name.as_str(), name_of(single.get(name.as_str())?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        assert_eq!(
            name_of("telemetry.log.max_mb"),
            "PORTICO__TELEMETRY__LOG__MAX_MB"
        );
        assert_eq!(
            path_of("PORTICO__TELEMETRY__LOG__MAX_MB").unwrap(),
            "telemetry.log.max_mb"
        );
        assert_eq!(path_of("PORTICO_CONFIG"), None);
        let env = [
            ("PORTICO_DATABASE_URL", ""),
            ("PORTICO_URL", ""),
            ("PORTICO__NODE__DEV", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        assert_eq!(
            lookalikes(&env, ["database.url", "node.dev"].into_iter()),
            [("PORTICO_DATABASE_URL", "PORTICO__DATABASE__URL".to_owned())]
        );
    }

    proptest! {
        #[test]
        fn a_path_comes_back(path in "[a-z][a-z0-9]{0,6}(_[a-z0-9]{1,4}){0,2}(\\.[a-z][a-z0-9]{0,6}(_[a-z0-9]{1,4}){0,2}){0,3}") {
            prop_assert_eq!(path_of(&name_of(&path)).unwrap(), path);
        }

        #[test]
        fn no_name_panics(name in "\\PC{0,40}") {
            let _ = path_of(&name);
            let _ = path_of(&format!("PORTICO__{name}"));
        }
    }
}
