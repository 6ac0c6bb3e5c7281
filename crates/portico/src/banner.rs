//! What the first start says: at most twelve lines, all of them useful.

use std::path::Path;

use portico_host::Ready;

/// What the banner tells.
pub(crate) struct Facts<'a> {
    pub(crate) ready: &'a Ready,
    pub(crate) token_file: &'a Path,
    /// Where the first administrator is made, while there is none.
    pub(crate) setup: Option<&'a str>,
    pub(crate) demo: bool,
    /// The Consul-compatible API is open to programs on this machine.
    pub(crate) anonymous: bool,
}

/// Prints the banner.
pub(crate) fn print(facts: &Facts<'_>) {
    crate::text::print(&text(facts, crate::table::colours()));
}

fn text(facts: &Facts<'_>, colours: bool) -> String {
    let Facts {
        ready,
        token_file,
        setup,
        demo,
        anonymous,
    } = *facts;
    let bold = |text: &str| {
        if colours {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut lines = vec![bold(&format!("Portico {} is ready", ready.version))];
    let mut line = |name: &str, value: &str| lines.push(format!("  {name:9} {value}"));
    let gateway = ready
        .url("http")
        .or_else(|| ready.url("https"))
        .unwrap_or("off");
    line("gateway", gateway);
    match ready.url("consul") {
        Some(url) if anonymous => line(
            "consul",
            &format!("{url}  (open to programs on this machine)"),
        ),
        Some(url) => line("consul", url),
        None => {}
    }
    if let Some(url) = ready.url("admin") {
        line("health", &format!("{url}/health"));
    }
    line("data", &ready.data_dir);
    if let Some(url) = setup {
        line("set up", &format!("{url}  (once, within 30 minutes)"));
    }
    if demo {
        line(
            "try",
            &format!("curl {gateway}/api/echo/hello   curl {gateway}/api/clock/"),
        );
    }
    line(
        "yours",
        "portico run --name hello --public -- python3 -m http.server '{port}'",
    );
    line(
        "token",
        &format!(
            "curl -H @{} {gateway}/api/registry/services",
            token_file.display()
        ),
    );
    lines.push("stop with Ctrl-C".to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn at_most_twelve_lines() {
        let urls = json!({ "http": "http://127.0.0.1:8080", "consul": "http://127.0.0.1:8500", "admin": "http://127.0.0.1:9100" });
        let ready = Ready {
            event: "ready",
            urls: urls.as_object().cloned().unwrap_or_default(),
            pid: 1,
            version: "0.1.0",
            data_dir: "portico-data".to_owned(),
        };
        let facts = Facts {
            ready: &ready,
            token_file: Path::new("portico-data/operator.token"),
            setup: Some("http://127.0.0.1:8080/auth/setup#token"),
            demo: true,
            anonymous: true,
        };
        let text = text(&facts, false);
        assert!(text.lines().count() <= 12, "{text}");
        assert!(text.contains("http://127.0.0.1:8080/api/echo/hello"));
    }
}
