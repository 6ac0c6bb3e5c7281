//! Texts that are written from the declarations: default file, schema, documentation, `show`.

use std::path::Path;

use portico_config::{diff, docs, render_default, rows, schema, show};
use serde_json::{Value as Json, json};

use crate::schema_check::faults;
use crate::world::World;

/// The default file with every commented default switched on.
fn all_on() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => rest.to_owned(),
        _ => line.to_owned(),
    };
    render_default()
        .lines()
        .map(|line| on(line) + "\n")
        .collect()
}

fn as_json(text: &str) -> Json {
    let table: toml::Table = text.parse().unwrap();
    serde_json::to_value(table).unwrap()
}

#[test]
fn the_default_file_changes_nothing() {
    let plain = World::new().load().unwrap();
    for text in [render_default(), all_on()] {
        let loaded = World::with_toml(&text).load().unwrap();
        assert_eq!(loaded.warnings, []);
        let mut changes = diff(&plain, &loaded);
        // The example of a setting is the only thing that the file itself brings.
        changes
            .reloadable
            .retain(|change| change.key != "settings.gateway.breaker.open_s");
        assert!(changes.is_empty(), "{changes:?}");
    }
}

#[test]
fn every_key_of_the_default_file_is_set_by_it_and_documented() {
    let text = all_on();
    let loaded = World::with_toml(&text).load().unwrap();
    let left: Vec<_> = rows(&loaded)
        .into_iter()
        .filter(|row| row.layer == "default")
        .collect();
    assert_eq!(left, []);
    let rendered = render_default();
    let lines: Vec<&str> = rendered.lines().collect();
    let keys = lines
        .windows(2)
        .filter(|two| two[1].starts_with('#') && !two[1].starts_with("# "));
    for two in keys {
        assert!(
            two[0].starts_with("# ") || two[1].contains("gateway.breaker"),
            "{}",
            two[1]
        );
    }
    assert!(lines.iter().all(|line| line.chars().count() <= 120));
}

#[test]
fn the_schema_accepts_the_default_file() {
    let schema = schema();
    assert_eq!(faults(&schema, &as_json(&render_default())), [""; 0]);
    assert_eq!(faults(&schema, &as_json(&all_on())), [""; 0]);
    let good = json!({
        "node": { "workers": 4, "roles": ["gateway"] },
        "redis": { "pool": "${POOL}", "url_file": "/run/redis" },
        "listen": { "http": "off" },
        "settings": { "anything": { "goes": 1 } },
    });
    assert_eq!(faults(&schema, &good), [""; 0]);
}

#[test]
fn the_schema_refuses_what_loading_refuses() {
    for bad in [
        json!({ "databse": {} }),
        json!({ "database": { "urll": "x" } }),
        json!({ "database": { "url": "mysql://db/x" } }),
        json!({ "redis": { "pool": 0 } }),
        json!({ "redis": { "pool": "many" } }),
        json!({ "node": { "roles": ["gatewy"] } }),
        json!({ "node": { "workers": 0 } }),
        json!({ "node": { "demo": "no" } }),
        json!({ "telemetry": { "traces": { "ratio": 2 } } }),
        json!({ "settings": 1 }),
        json!({ "kind": "AgentConfig" }),
    ] {
        let text = bad.to_string();
        assert!(
            World::new().file("./portico.json", &text).load().is_err(),
            "{text}"
        );
        assert!(!faults(&schema(), &bad).is_empty(), "{text}");
    }
}

#[test]
fn the_schema_names_its_dialect_and_describes_every_key() {
    fn walk(path: &str, schema: &Json, bare: &mut Vec<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if inner["description"]
                .as_str()
                .is_none_or(|text| text.len() < 8)
            {
                bare.push(path.clone());
            }
            walk(&path, inner, bare);
        }
    }
    let schema = schema();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let mut bare = Vec::new();
    walk("", &schema, &mut bare);
    assert_eq!(bare, [".$schema", ".apiVersion", ".kind"]);
}

/// `UPDATE_GOLDEN=1` writes the page.
#[test]
fn the_documentation_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, docs()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == docs(),
        "docs/configuration.md is stale: run the tests of portico-config with UPDATE_GOLDEN=1"
    );
}

#[test]
fn every_key_is_in_the_documentation_with_its_table() {
    let (loaded, docs) = (World::new().load().unwrap(), docs());
    for row in rows(&loaded) {
        let (section, key) = row.key.rsplit_once('.').unwrap();
        let section = docs
            .split(&format!("### `{section}`"))
            .nth(1)
            .unwrap_or_default();
        let section = section.split("### ").next().unwrap_or_default();
        assert!(section.contains(&format!("| `{key}` |")), "{}", row.key);
    }
}

#[test]
fn show_prints_every_key_with_its_origin() {
    let world = World::with_toml("[telemetry.metrics]\ntoken = \"0123456789abcdef\"\n")
        .env("PORTICO__REDIS__URL", "redis://u:hunter22@localhost")
        .env("PORTICO__NODE__ROLES", "gateway,worker")
        .flag("--listen", "listen.http", ":8081");
    let loaded = world.load().unwrap();
    let lines = show(&loaded, true);
    let line = |key: &str| {
        let line = lines
            .lines()
            .find(|line| line.starts_with(&format!("{key} ")))
            .unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("listen.http"), "listen.http \":8081\" flag --listen");
    assert_eq!(
        line("telemetry.metrics.token"),
        "telemetry.metrics.token «masked» ./portico.toml:2"
    );
    assert_eq!(
        line("redis.url"),
        "redis.url \"redis://u:«masked»@localhost\" environment PORTICO__REDIS__URL"
    );
    assert_eq!(
        line("node.roles"),
        "node.roles [\"gateway\", \"worker\"] environment PORTICO__NODE__ROLES"
    );
    assert_eq!(line("redis.pool"), "redis.pool 8 default");
    assert!(!show(&loaded, false).contains("default"));
}
