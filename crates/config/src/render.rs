//! The commented default file, written from the declarations.

use crate::key::{Declared, Key};
use crate::raw::Raw;
use crate::sections::Config;

const HEAD: &str = "\
# The configuration of Portico with every key at its default.
# A line that begins with `#name =` is a default: take the `#` away and change it.
# Later layers win: defaults, this file, the environment (PORTICO__SECTION__KEY), flags.
# `${VAR}` and `${VAR:-default}` are replaced from the environment, `<data>` is node.data_dir, and
# the file of a secret is named by its key with _file behind it.

apiVersion = \"portico/v1\"
kind = \"PorticoConfig\"
";

/// The text of `portico config default`: a TOML file that sets nothing and says everything.
#[must_use]
pub fn render_default() -> String {
    let declared = Declared::of::<Config>();
    let mut out = String::from(HEAD);
    for (section, doc) in declared
        .sections
        .iter()
        .filter(|(path, _)| !path.is_empty())
    {
        out.push('\n');
        comment(&mut out, doc);
        out.push_str(&format!("[{section}]\n"));
        let keys = declared
            .keys
            .iter()
            .filter(|key| parent(&key.path) == section);
        for key in keys {
            write_key(&mut out, key);
        }
        if section == "settings" {
            out.push_str("#\"gateway.breaker.open_s\" = 30\n");
        }
    }
    out
}

fn write_key(out: &mut String, key: &Key) {
    out.push('\n');
    comment(out, &key.doc);
    let mut facts = vec![format!("Allowed: {}.", key.allowed())];
    if let Some(file) = key.file_key() {
        facts.push(format!("From a file: {}.", last(&file)));
    }
    if let Some(flag) = key.flag {
        facts.push(format!("Flag: {flag}."));
    }
    if key.reload {
        facts.push("Reloadable.".to_owned());
    }
    if let Some(with) = key.later {
        facts.push(format!("No effect yet, it comes with {with}."));
    }
    comment(out, &facts.join(" "));
    out.push_str(&format!("#{} = {}\n", last(&key.path), value(&key.default)));
}

/// Text as comment lines of at most 100 characters.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 100 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

pub(crate) fn value(raw: &Raw) -> String {
    raw.to_line()
}

pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

pub(crate) fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
