//! Settings as a file: export and apply (CT-17).

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::change::apply as change;
use super::{Session, print_json};
use crate::cli::ChangeArgs;
use crate::text;

pub(super) async fn export(session: &Session, prefix: &str) -> Result<u8> {
    let body = json!({ "scope": session.scope, "prefix": prefix });
    let found = session.client.post("/api/settings/export", &body).await?;
    if session.json {
        print_json(&found)?;
    } else {
        text::print(&yaml(&found));
    }
    Ok(0)
}

/// JSON is YAML: every value stands on one line behind its key.
fn yaml(found: &Value) -> String {
    let mut out = format!(
        "# Settings of Portico at position {}; apply with: portico settings apply FILE\nscope: {}\nsettings:",
        found["seq"], found["scope"]
    );
    let settings = found["settings"].as_object();
    if settings.is_none_or(serde_json::Map::is_empty) {
        out.push_str(" {}");
    }
    out.push('\n');
    for (key, value) in settings.into_iter().flatten() {
        out.push_str(&format!("  {}: {value}\n", Value::from(key.as_str())));
    }
    for secret in found["secrets"].as_array().into_iter().flatten() {
        out.push_str(&format!("# secret, left out: {secret}\n"));
    }
    out
}

pub(super) async fn apply(
    session: &Session,
    file: &Path,
    prune: bool,
    args: &ChangeArgs,
) -> Result<u8> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let document = portico_config::document(file, &text)
        .map_err(|fault| anyhow::anyhow!("{}: {fault}", file.display()))?;
    for name in document.as_object().into_iter().flatten().map(|(n, _)| n) {
        if !matches!(name.as_str(), "scope" | "settings" | "seq" | "secrets") {
            bail!("{}: `{name}` is not known here", file.display());
        }
    }
    let Some(settings) = document["settings"].as_object() else {
        bail!("{}: `settings` is missing", file.display());
    };
    let mut body = json!({ "settings": settings, "prune": prune });
    // The file says for whom its values are, unless the command does.
    if session.scope.is_none() && document["scope"].is_string() {
        body["scope"] = document["scope"].clone();
    }
    change(session, "/api/settings/import", body, args).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_can_be_read_again() {
        let found = json!({
            "scope": "system", "seq": 3, "secrets": ["mail.smtp.password"],
            "settings": { "a.b": "x: y # z\n\"", "c.d": [1, {"k": null}], "e.f": true },
        });
        let text = yaml(&found);
        let read = portico_config::document(Path::new("s.yaml"), &text).unwrap();
        assert_eq!(read["settings"], found["settings"]);
        assert_eq!(read["scope"], "system");
        let empty = yaml(&json!({ "scope": "system", "seq": 0, "settings": {}, "secrets": [] }));
        let read = portico_config::document(Path::new("s.yaml"), &empty).unwrap();
        assert_eq!(read["settings"], json!({}));
    }
}
