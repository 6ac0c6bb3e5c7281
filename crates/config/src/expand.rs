//! `${VAR}` and `${VAR:-x}` in the texts of configuration files; `$${` stands for `${` itself.

use std::collections::BTreeMap;

/// Expands every variable of `text`. `Ok(None)` means that there was nothing to expand.
///
/// # Errors
/// One sentence for each variable that is not set or not written well.
pub(crate) fn expand(
    text: &str,
    env: &BTreeMap<String, String>,
) -> Result<Option<String>, Vec<String>> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let Some(end) = from.find('}') else {
            problems.push("`${` has no closing `}`; write `$${` for the two characters".to_owned());
            rest = "";
            break;
        };
        match variable(&from[2..end], env) {
            Ok(value) => out.push_str(value),
            Err(problem) => problems.push(problem),
        }
        rest = &from[end + 1..];
    }
    out.push_str(rest);
    if problems.is_empty() {
        Ok(Some(out))
    } else {
        Err(problems)
    }
}

/// As in a shell, `:-` also replaces a variable that is set but empty.
fn variable<'a>(inside: &'a str, env: &'a BTreeMap<String, String>) -> Result<&'a str, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let mut bytes = name.bytes();
    let starts = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("a variable is written `${NAME}` or `${NAME:-default}`".to_owned());
    }
    match (env.get(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default),
        (None, None) => Err(format!(
            "variable {name} is not set; set it or write `${{{name}:-default}}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env() -> BTreeMap<String, String> {
        [("A", "1"), ("EMPTY", ""), ("LONG_name1", "x${A}y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn table() {
        let ok = |text: &str| expand(text, &env()).unwrap();
        assert_eq!(ok("no variable, $5 and $A"), None);
        assert_eq!(ok("a${A}b${A}").as_deref(), Some("a1b1"));
        assert_eq!(ok("${EMPTY}").as_deref(), Some(""));
        assert_eq!(
            ok("${EMPTY:-x}${NONE:-}${NONE:-a:-b}").as_deref(),
            Some("xa:-b")
        );
        assert_eq!(ok("$${A} costs $${").as_deref(), Some("${A} costs ${"));
        // A value is never expanded a second time: the environment is data, not a template.
        assert_eq!(ok("${LONG_name1}").as_deref(), Some("x${A}y"));
    }

    #[test]
    fn every_problem_is_told() {
        let problems = expand("${ONE} ${TWO} ${} ${1A} ${A-x} ${open", &env()).unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(problems[0].contains("ONE") && problems[1].contains("TWO"));
        assert!(problems[5].contains("no closing"));
    }

    proptest! {
        #[test]
        fn never_panics_and_plain_text_stays(text in "\\PC{0,40}", tail in "[ -#%-~]{0,20}") {
            let _ = expand(&text, &env());
            let _ = expand(&format!("${{{text}"), &env());
            prop_assert_eq!(expand(&tail, &env()).unwrap(), None);
            let with = format!("{tail}${{A}}{tail}");
            prop_assert_eq!(expand(&with, &env()).unwrap().unwrap(), format!("{tail}1{tail}"));
        }

        #[test]
        fn a_default_is_taken_as_it_is(default in "[^}]{0,30}") {
            let text = format!("${{NOT_SET:-{default}}}");
            prop_assert_eq!(expand(&text, &env()).unwrap().unwrap(), default);
        }
    }
}
