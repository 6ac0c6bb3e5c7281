//! The rows and the writes of backups.

use super::*;

pub(super) fn rows() -> Vec<Row> {
    let one = |after: &str| format!("/backups/{NOBODY}{after}");
    let meant = Some(json!({ "confirm": "portico.pbk" }));
    let wrong = Some(json!({ "include_objects": "all of them" }));
    vec![
        row("control GET /backups", "/backups", None, admin(200)),
        row("control POST /backups", "/backups", wrong, admin(400)),
        row("control GET /backups/{id}", &one(""), None, admin(404)),
        row("control DELETE /backups/{id}", &one(""), None, admin(404)),
        row(
            "control POST /backups/{id}/verify",
            &one("/verify"),
            None,
            admin(404),
        ),
        row(
            "control POST /backups/{id}/restore",
            &one("/restore"),
            meant,
            admin(404),
        ),
        row(
            "control GET /backups/{id}/file",
            &one("/file"),
            None,
            admin(404),
        ),
    ]
}

/// A backup as it stands when nothing is done with it.
async fn settled(w: &Writer<'_>, path: &str) -> Value {
    loop {
        let now = w.operator.get(&format!("/api/control{path}")).await.json();
        if now["state"] == "done" {
            return now;
        }
        assert_ne!(now["state"], "failed", "{now}");
    }
}

pub(super) async fn writes(w: &mut Writer<'_>) {
    let (make, none) = ("control POST /backups", || Some(json!({})));
    let made = w.write(make, "/backups", none(), "control.backup.requested");
    let path = format!("/backups/{}", made.await.json()["id"].as_str().unwrap());
    let backup = settled(w, &path).await;
    assert_eq!(backup["verified_at"], Value::Null);
    w.write(
        "control POST /backups/{id}/verify",
        &format!("{path}/verify"),
        None,
        "control.backup.verification_requested",
    )
    .await;
    let verified = settled(w, &path).await;
    assert_eq!(verified["report"]["good"], true, "{verified}");
    let file = format!("/api/control{path}/file");
    let file = w.operator.request(Method::GET, &file).send().await;
    let file = file.unwrap().bytes().await.unwrap();
    assert_eq!(json!(file.len()), verified["bytes"]);
    let other = w.write(make, "/backups", none(), "control.backup.requested");
    let other = format!("/backups/{}", other.await.json()["id"].as_str().unwrap());
    settled(w, &other).await;
    w.write(
        "control DELETE /backups/{id}",
        &other,
        None,
        "control.backup.removed",
    )
    .await;
    // Nobody starts this process anew: the order waits in the data directory.
    w.write(
        "control POST /backups/{id}/restore",
        &format!("{path}/restore"),
        Some(json!({ "confirm": verified["location"] })),
        "control.backup.restore_requested",
    )
    .await;
}
