//! The rows and the writes of the settings service.

use super::*;

/// Whoever may read settings, and plug-ins, which read their own.
const fn plugin_too(status: u16, plugin: u16) -> Statuses {
    [401, status, 403, plugin, 403, 403, 403]
}

pub(super) fn rows() -> Vec<Row> {
    let empty = || Some(json!({}));
    let set = format!("/changes/{NOBODY}");
    vec![
        row(
            "settings GET /schema",
            "/schema",
            None,
            plugin_too(200, 200),
        ),
        row("settings GET /", "", None, plugin_too(200, 200)),
        row(
            "settings GET /{key}",
            "/kv.max_keys",
            None,
            plugin_too(200, 404),
        ),
        row(
            "settings GET /watch",
            "/watch?wait=0s",
            None,
            plugin_too(200, 200),
        ),
        row(
            "settings GET /stream",
            "/stream",
            None,
            plugin_too(200, 200),
        ),
        row("settings POST /changes", "/changes", empty(), admin(400)),
        row("settings GET /changes", "/changes", None, admin(200)),
        row("settings GET /changes/{id}", &set, None, admin(404)),
        row(
            "settings POST /changes/{id}/rollback",
            &format!("{set}/rollback"),
            empty(),
            admin(404),
        ),
        row("settings POST /rollback", "/rollback", empty(), admin(400)),
        row(
            "settings POST /{key}/rollback",
            "/kv.max_keys/rollback",
            Some(json!({ "version": 1 })),
            admin(404),
        ),
        row(
            "settings GET /{key}/history",
            "/kv.max_keys/history",
            None,
            admin(200),
        ),
        row(
            "settings GET /diff",
            "/diff?key=kv.max_keys&from=0&to=0",
            None,
            admin(200),
        ),
        row("settings GET /applied", "/applied", None, admin(200)),
        row(
            "settings GET /configuration",
            "/configuration",
            None,
            admin(200),
        ),
        row("settings POST /export", "/export", empty(), admin(200)),
        row("settings POST /import", "/import", empty(), admin(400)),
        row("settings GET /secrets", "/secrets", None, admin(200)),
        row(
            "settings POST /secrets/rotate",
            "/secrets/rotate",
            empty(),
            admin(200),
        ),
    ]
}

pub(super) async fn writes(w: &mut Writer<'_>) {
    let change = |value: u32, version: u32| {
        Some(json!({ "changes": [{ "key": "kv.max_keys", "value": value, "version": version }] }))
    };
    let (changed, back) = ("settings.value.changed", "settings.value.rolled_back");
    let route = "settings POST /changes";
    w.write(route, "/changes", change(2_000, 0), changed).await;
    let second = w.write(route, "/changes", change(3_000, 1), changed).await;
    let id = second.json()["id"].as_str().unwrap().to_owned();
    w.write(
        "settings POST /changes/{id}/rollback",
        &format!("/changes/{id}/rollback"),
        Some(json!({})),
        back,
    )
    .await;
    w.write(
        "settings POST /{key}/rollback",
        "/kv.max_keys/rollback",
        Some(json!({ "version": 2 })),
        back,
    )
    .await;
    w.write(
        "settings POST /rollback",
        "/rollback",
        Some(json!({ "seq": 0 })),
        back,
    )
    .await;
    let import = json!({ "settings": { "kv.max_keys": 4_000 } });
    w.write("settings POST /import", "/import", Some(import), changed)
        .await;
    w.write(
        "settings POST /export",
        "/export",
        Some(json!({})),
        "settings.value.exported",
    )
    .await;
    w.write(
        "settings POST /secrets/rotate",
        "/secrets/rotate",
        Some(json!({})),
        "settings.secrets.resealed",
    )
    .await;
    // What comes later writes as before.
    w.write(route, "/changes", change(100_000, 6), changed)
        .await;
}
